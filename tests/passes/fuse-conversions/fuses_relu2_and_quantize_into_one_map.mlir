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
    %xq = "nemo.quantize"(%x) : (!x) -> !xq
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u_q = "nemo.quantize_weight"(%u_w) {rounding = "rtn"} : (!tall) -> !tallq
    %u_s = "nemo.linear"(%xq, %u_q) {name = "layers.0.mixer.up_proj", precision = "w8a8"} : (!xq, !tallq) -> !wides
    %u = "nemo.dequantize"(%u_s) : (!wides) -> !wide
    %r = "nemo.relu2"(%u) : (!wide) -> !wide
    %rq = "nemo.quantize"(%r) : (!wide) -> !wideu
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d_q = "nemo.quantize_weight"(%d_w) {rounding = "rtn"} : (!narrow) -> !narrowq
    %d_s = "nemo.linear"(%rq, %d_q) {name = "layers.0.mixer.down_proj", precision = "w8a8"} : (!wideu, !narrowq) -> !xs
    %d = "nemo.dequantize"(%d_s) : (!xs) -> !x
    return %d : !x
  }
}
