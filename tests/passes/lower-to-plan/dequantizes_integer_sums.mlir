!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!xq = !nemo.act<64 : i64, i8, "token", "plain">
!wideq = !nemo.act<128 : i64, i8, "token", "plain">
!wideu = !nemo.act<128 : i64, ui8, "token", "plain">
!xs = !nemo.act<64 : i64, i32, "token_channel", "plain">
!wides = !nemo.act<128 : i64, i32, "token_channel", "plain">
!tallq = !nemo.matrix<128 : i64, 64 : i64, i8, "channel", "plain", "plain">
!narrowq = !nemo.matrix<64 : i64, 128 : i64, i8, "channel", "plain", "plain">
module attributes {nemo.stage = "quantized"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %o = "nemo.select_outputs"(%x) : (!x) -> !x
    %xq = "nemo.quantize"(%o) : (!x) -> !xq
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y_q = "nemo.quantize_weight"(%y_w) {rounding = "rtn"} : (!tall) -> !tallq
    %y_s = "nemo.linear"(%xq, %y_q) {name = "lm_head", precision = "w8a8"} : (!xq, !tallq) -> !wides
    %y = "nemo.dequantize"(%y_s) : (!wides) -> !wide
    return %y : !wide
  }
}
