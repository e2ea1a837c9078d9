// recipe: [rotation]
// recipe: kind = 'klt'
// recipe: seed = 7
// recipe: residual = false
// recipe: value_output = true
// recipe: query_key = true
// recipe: out_proj = false
// recipe: down_proj = false
!x = !nemo.act<64 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!square = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!kv = !nemo.act<32 : i64, f32, "none", "plain">
!half = !nemo.matrix<32 : i64, 64 : i64, bf16, "none", "plain", "plain">
!cache = !nemo.state<"kv", 32 : i64, f32>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %n0 = "nemo.rms_norm"(%x) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %q0_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !square
    %q0 = "nemo.linear"(%n0, %q0_w) {name = "layers.0.mixer.q_proj"} : (!x, !square) -> !x
    %k0_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !half
    %k0 = "nemo.linear"(%n0, %k0_w) {name = "layers.0.mixer.k_proj"} : (!x, !half) -> !kv
    %v0_w = "nemo.weight"() {tensor = "layers.0.mixer.v_proj.weight"} : () -> !half
    %v0 = "nemo.linear"(%n0, %v0_w) {name = "layers.0.mixer.v_proj"} : (!x, !half) -> !kv
    %s0 = "nemo.read_state"() {name = "layers.0.kv_cache"} : () -> !cache
    %a0:2 = "nemo.attention"(%q0, %k0, %v0, %s0) {head_dim = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, name = "layers.0.mixer", scale = 2.5e-01 : f64} : (!x, !kv, !kv, !cache) -> (!x, !cache)
    "nemo.update_state"(%a0#1) {name = "layers.0.kv_cache"} : (!cache) -> ()
    %o0_w = "nemo.weight"() {tensor = "layers.0.mixer.o_proj.weight"} : () -> !square
    %o0 = "nemo.linear"(%a0#0, %o0_w) {name = "layers.0.mixer.o_proj"} : (!x, !square) -> !x
    %y = "nemo.add"(%x, %o0) : (!x, !x) -> !x
    return %y : !x
  }
}
