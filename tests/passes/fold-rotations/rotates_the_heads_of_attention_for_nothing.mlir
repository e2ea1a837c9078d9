!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!v = !nemo.act<64 : i64, f32, "none", "layers.0.v">
!qk = !nemo.act<64 : i64, f32, "none", "layers.0.qk">
!sq = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!kv = !nemo.state<"kv", 64 : i64, f32>
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %q_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !sq
    %q = "nemo.linear"(%x, %q_w) {name = "layers.0.mixer.q_proj", precision = "float"} : (!x, !sq) -> !x
    %k_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !sq
    %k = "nemo.linear"(%x, %k_w) {name = "layers.0.mixer.k_proj", precision = "float"} : (!x, !sq) -> !x
    %v_w = "nemo.weight"() {tensor = "layers.0.mixer.v_proj.weight"} : () -> !sq
    %v = "nemo.linear"(%x, %v_w) {name = "layers.0.mixer.v_proj", precision = "float"} : (!x, !sq) -> !x
    %qr = "nemo.rotate"(%q) {basis = "layers.0.qk", kind = "random-hadamard", seed = 7 : i64, size = 16 : i64, transpose = false} : (!x) -> !qk
    %kr = "nemo.rotate"(%k) {basis = "layers.0.qk", kind = "random-hadamard", seed = 7 : i64, size = 16 : i64, transpose = false} : (!x) -> !qk
    %vr = "nemo.rotate"(%v) {basis = "layers.0.v", kind = "random-hadamard", seed = 7 : i64, size = 16 : i64, transpose = false} : (!x) -> !v
    %c = "nemo.read_state"() {name = "layers.0.kv_cache"} : () -> !kv
    %a:2 = "nemo.attention"(%qr, %kr, %vr, %c) {head_dim = 16 : i64, heads = 4 : i64, kv_heads = 4 : i64, name = "layers.0.mixer", scale = 0.25 : f64} : (!qk, !qk, !v, !kv) -> (!v, !kv)
    "nemo.update_state"(%a#1) {name = "layers.0.kv_cache"} : (!kv) -> ()
    %ap = "nemo.rotate"(%a#0) {basis = "layers.0.v", kind = "random-hadamard", seed = 7 : i64, size = 16 : i64, transpose = true} : (!v) -> !x
    %y_w = "nemo.weight"() {tensor = "layers.0.mixer.o_proj.weight"} : () -> !sq
    %y = "nemo.linear"(%ap, %y_w) {name = "layers.0.mixer.o_proj", precision = "float"} : (!x, !sq) -> !x
    return %y : !x
  }
}
