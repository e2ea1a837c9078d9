// recipe: phase = 1
!x = !nemo.act<64 : i64, f32, "none", "plain">
!half = !nemo.act<32 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!square = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!low = !nemo.matrix<32 : i64, 64 : i64, bf16, "none", "plain", "plain">
!kv = !nemo.state<"kv", 32 : i64, f32>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %q_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !square
    %q = "nemo.linear"(%x, %q_w) {name = "layers.0.mixer.q_proj"} : (!x, !square) -> !x
    %k_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !low
    %k = "nemo.linear"(%x, %k_w) {name = "layers.0.mixer.k_proj"} : (!x, !low) -> !half
    %v_w = "nemo.weight"() {tensor = "layers.0.mixer.v_proj.weight"} : () -> !low
    %v = "nemo.linear"(%x, %v_w) {name = "layers.0.mixer.v_proj"} : (!x, !low) -> !half
    %s = "nemo.read_state"() {name = "layers.0.kv_cache"} : () -> !kv
    %a, %t = "nemo.attention"(%q, %k, %v, %s) {head_dim = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, name = "layers.0.mixer", scale = 2.5e-01 : f64} : (!x, !half, !half, !kv) -> (!x, !kv)
    "nemo.update_state"(%t) {name = "layers.0.kv_cache"} : (!kv) -> ()
    %o_w = "nemo.weight"() {tensor = "layers.0.mixer.o_proj.weight"} : () -> !square
    %y = "nemo.linear"(%a, %o_w) {name = "layers.0.mixer.o_proj"} : (!x, !square) -> !x
    return %y : !x
  }
}
