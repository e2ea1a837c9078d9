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
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %o_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !tall
    %o = "nemo.linear"(%x, %o_w) {name = "layers.0.mixer.out_proj", precision = "float"} : (!x, !tall) -> !wide
    %oq = "nemo.quantize"(%o) : (!wide) -> !wideq
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d_q = "nemo.quantize_weight"(%d_w) {rounding = "rtn"} : (!narrow) -> !narrowq
    %d_s = "nemo.linear"(%oq, %d_q) {name = "layers.0.mixer.down_proj", precision = "w8a8"} : (!wideq, !narrowq) -> !xs
    %d = "nemo.dequantize"(%d_s) : (!xs) -> !x
    %s = "nemo.add"(%x, %d) : (!x, !x) -> !x
    %c = "nemo.convert"(%s) {from = "w4a8", to = "w8a8"} : (!x) -> !x
    %n = "nemo.rms_norm"(%c) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %nq = "nemo.quantize"(%n) : (!x) -> !xq
    %u_w = "nemo.weight"() {tensor = "layers.1.mixer.up_proj.weight"} : () -> !tall
    %u_q = "nemo.quantize_weight"(%u_w) {rounding = "rtn"} : (!tall) -> !tallq
    %u_s = "nemo.linear"(%nq, %u_q) {name = "layers.1.mixer.up_proj", precision = "w8a8"} : (!xq, !tallq) -> !wides
    %u = "nemo.dequantize"(%u_s) : (!wides) -> !wide
    %uq = "nemo.quantize"(%u) : (!wide) -> !wideq
    %e_w = "nemo.weight"() {tensor = "layers.1.mixer.down_proj.weight"} : () -> !narrow
    %e_q = "nemo.quantize_weight"(%e_w) {rounding = "rtn"} : (!narrow) -> !narrowq
    %e_s = "nemo.linear"(%uq, %e_q) {name = "layers.1.mixer.down_proj", precision = "w8a8"} : (!wideq, !narrowq) -> !xs
    %e = "nemo.dequantize"(%e_s) : (!xs) -> !x
    %y = "nemo.add"(%c, %e) : (!x, !x) -> !x
    return %y : !x
  }
}
