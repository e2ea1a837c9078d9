// recipe: phase = 2
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!zt = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!fused = !nemo.matrix<72 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dtw = !nemo.matrix<8 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dt = !nemo.act<8 : i64, f32, "none", "plain">
!expand = !nemo.matrix<64 : i64, 8 : i64, bf16, "none", "plain", "plain">
module {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %in0 = "nemo.weight"() {tensor = "layers.0.mixer.in_proj.weight"} : () -> !fused
    %zw0 = "nemo.slice_rows"(%in0) {count = 64 : i64, start = 0 : i64} : (!fused) -> !zt
    %z0 = "nemo.linear"(%x, %zw0) {name = "layers.0.mixer.in_proj.z"} : (!x, !zt) -> !x
    %dw0 = "nemo.slice_rows"(%in0) {count = 8 : i64, start = 64 : i64} : (!fused) -> !dtw
    %dt0 = "nemo.linear"(%x, %dw0) {name = "layers.0.mixer.in_proj.dt"} : (!x, !dtw) -> !dt
    %e_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !expand
    %e = "nemo.linear"(%dt0, %e_w) {name = "layers.0.mixer.out_proj"} : (!dt, !expand) -> !x
    %s = "nemo.add"(%z0, %e) : (!x, !x) -> !x
    %n1 = "nemo.rms_norm"(%s) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %u1_w = "nemo.weight"() {tensor = "layers.1.mixer.up_proj.weight"} : () -> !tall
    %u1 = "nemo.linear"(%n1, %u1_w) {name = "layers.1.mixer.up_proj"} : (!x, !tall) -> !wide
    %r1 = "nemo.relu2"(%u1) : (!wide) -> !wide
    %d1_w = "nemo.weight"() {tensor = "layers.1.mixer.down_proj.weight"} : () -> !narrow
    %d1 = "nemo.linear"(%r1, %d1_w) {name = "layers.1.mixer.down_proj"} : (!wide, !narrow) -> !x
    %y = "nemo.add"(%s, %d1) : (!x, !x) -> !x
    %logits_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %logits = "nemo.linear"(%y, %logits_w) {name = "lm_head"} : (!x, !tall) -> !wide
    return %logits : !wide
  }
}
