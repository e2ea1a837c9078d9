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
    %n = "nemo.rms_norm"(%x) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %nq = "nemo.quantize"(%n) : (!x) -> !xq
    %a_w = "nemo.weight"() {tensor = "layers.0.mixer.q_proj.weight"} : () -> !tall
    %a_q = "nemo.quantize_weight"(%a_w) {rounding = "rtn"} : (!tall) -> !tallq
    %a_s = "nemo.linear"(%nq, %a_q) {name = "layers.0.mixer.q_proj", precision = "w8a8"} : (!xq, !tallq) -> !wides
    %a = "nemo.dequantize"(%a_s) : (!wides) -> !wide
    %nr = "nemo.quantize"(%n) : (!x) -> !xq
    %b_w = "nemo.weight"() {tensor = "layers.0.mixer.k_proj.weight"} : () -> !tall
    %b_q = "nemo.quantize_weight"(%b_w) {rounding = "rtn"} : (!tall) -> !tallq
    %b_s = "nemo.linear"(%nr, %b_q) {name = "layers.0.mixer.k_proj", precision = "w8a8"} : (!xq, !tallq) -> !wides
    %b = "nemo.dequantize"(%b_s) : (!wides) -> !wide
    %y = "nemo.add"(%a, %b) : (!wide, !wide) -> !wide
    return %y : !wide
  }
}
