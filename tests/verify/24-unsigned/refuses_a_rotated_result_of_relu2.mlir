!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_32_f32_r = !nemo.act<32 : i64, f32, "none", "r">
!act_32_ui8_r = !nemo.act<32 : i64, ui8, "token", "r">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %r = "nemo.relu2"(%x) : (!act_32_f32) -> !act_32_f32
    %h = "nemo.rotate"(%r) {basis = "r", kind = "hadamard", size = 32 : i64, seed = 0 : i64, transpose = false} : (!act_32_f32) -> !act_32_f32_r
    %q = "nemo.quantize"(%h) : (!act_32_f32_r) -> !act_32_ui8_r  // expected-error: only what relu2 made is never negative
    %m = "nemo.map"(%x) {relu2 = true, hadamard_block = 32 : i64} : (!act_32_f32) -> !act_32_ui8_r  // expected-error: only what relu2 made is never negative
    return %x : !act_32_f32
  }
}
