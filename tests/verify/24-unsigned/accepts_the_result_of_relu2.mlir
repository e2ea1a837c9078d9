!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_ui8 = !nemo.act<32 : i64, ui8, "token", "plain">
!matrix_32_32_bf16 = !nemo.matrix<32 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %r = "nemo.relu2"(%x) : (!act_32_f32) -> !act_32_f32
    %c = "nemo.convert"(%r) {from = "w4a8", to = "w8a8"} : (!act_32_f32) -> !act_32_f32
    %q = "nemo.quantize"(%c) : (!act_32_f32) -> !act_32_ui8
    %w = "nemo.weight"() {tensor = "w"} : () -> !matrix_32_32_bf16
    %l = "nemo.linear"(%x, %w) {name = "l", precision = "float", epilogue = "relu2"} : (!act_32_f32, !matrix_32_32_bf16) -> !act_32_f32
    %u = "nemo.quantize"(%l) : (!act_32_f32) -> !act_32_ui8
    return %x : !act_32_f32
  }
}
