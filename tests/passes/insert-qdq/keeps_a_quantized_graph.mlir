!x = !nemo.act<64 : i64, f32, "none", "plain">
!x_i8 = !nemo.act<64 : i64, i8, "token", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!tall_i8 = !nemo.matrix<128 : i64, 64 : i64, i8, "channel", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %w_i8 = "nemo.quantize_weight"(%w) {rounding = "rtn"} : (!tall) -> !tall_i8
    %x_i8 = "nemo.quantize"(%x) : (!x) -> !x_i8
    %y = "nemo.linear"(%x_i8, %w_i8) {name = "lm_head", precision = "w8a8"} : (!x_i8, !tall_i8) -> !wide
    return %y : !wide
  }
}
