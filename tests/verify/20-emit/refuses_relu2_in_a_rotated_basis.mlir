!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_f32_r = !nemo.act<32 : i64, f32, "none", "r">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %r = "nemo.rotate"(%x) {basis = "r", kind = "hadamard", size = 32 : i64, seed = 0 : i64, transpose = false} : (!act_32_f32) -> !act_32_f32_r
    %a = "nemo.map"(%r) {relu2 = true} : (!act_32_f32_r) -> !act_32_f32_r  // expected-error: the basis of x is r, expected plain
    return %x : !act_32_f32
  }
}
