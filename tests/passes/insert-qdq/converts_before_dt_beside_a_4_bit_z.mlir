!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!zt = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!fused = !nemo.matrix<72 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dtw = !nemo.matrix<8 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dt = !nemo.act<8 : i64, f32, "none", "plain">
!expand = !nemo.matrix<64 : i64, 8 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "w4a8"} : (!nemo.tokens, !tall) -> !x
    %in0 = "nemo.weight"() {tensor = "layers.0.mixer.in_proj.weight"} : () -> !fused
    %zw0 = "nemo.slice_rows"(%in0) {count = 64 : i64, start = 0 : i64} : (!fused) -> !zt
    %z0 = "nemo.linear"(%x, %zw0) {name = "layers.0.mixer.in_proj.z", precision = "w4a8"} : (!x, !zt) -> !x
    %dw0 = "nemo.slice_rows"(%in0) {count = 8 : i64, start = 64 : i64} : (!fused) -> !dtw
    %dt0 = "nemo.linear"(%x, %dw0) {name = "layers.0.mixer.in_proj.dt", precision = "w8a8"} : (!x, !dtw) -> !dt
    %e_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !expand
    %e = "nemo.linear"(%dt0, %e_w) {name = "layers.0.mixer.out_proj", precision = "w4a8"} : (!dt, !expand) -> !x
    %y = "nemo.add"(%z0, %e) : (!x, !x) -> !x
    return %y : !x
  }
}
