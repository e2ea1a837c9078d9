!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_65568_f32 = !nemo.act<65568 : i64, f32, "none", "plain">
!act_65568_i8 = !nemo.act<65568 : i64, i8, "token", "plain">
!matrix_32_65568_bf16 = !nemo.matrix<32 : i64, 65568 : i64, bf16, "none", "plain", "plain">
!matrix_32_65568_i8 = !nemo.matrix<32 : i64, 65568 : i64, i8, "channel", "plain", "plain">
!matrix_65568_32_bf16 = !nemo.matrix<65568 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
    %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
    %x = "nemo.embed"(%t, %e) {name = "embeddings", precision = "float"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
    %l = "nemo.weight"() {tensor = "l"} : () -> !matrix_65568_32_bf16
    %m = "nemo.weight"() {tensor = "m"} : () -> !matrix_32_65568_bf16
    %a = "nemo.quantize_weight"(%m) {rounding = "rtn"} : (!matrix_32_65568_bf16) -> !matrix_32_65568_i8
    %u = "nemo.linear"(%x, %l) {name = "u", precision = "float"} : (!act_32_f32, !matrix_65568_32_bf16) -> !act_65568_f32
    %q = "nemo.quantize"(%u) : (!act_65568_f32) -> !act_65568_i8
    %y = "nemo.linear"(%q, %a) {name = "l", precision = "w8a8"} : (!act_65568_i8, !matrix_32_65568_i8) -> !act_32_f32  // expected-error: 65568 columns could overflow an i32 sum
    return %x : !act_32_f32
  }
}
