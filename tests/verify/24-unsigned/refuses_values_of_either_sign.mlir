!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_ui8 = !nemo.act<32 : i64, ui8, "token", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %q = "nemo.quantize"(%x) : (!act_32_f32) -> !act_32_ui8  // expected-error: the result is stored as ui8, expected i8
    return %x : !act_32_f32
  }
}
