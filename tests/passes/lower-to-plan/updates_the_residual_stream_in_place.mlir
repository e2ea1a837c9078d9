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
    %u_w = "nemo.weight"() {tensor = "layers.0.mixer.probe.weight"} : () -> !tall
    %u = "nemo.linear"(%x, %u_w) {name = "layers.0.mixer.probe", precision = "float"} : (!x, !tall) -> !wide
    %uq = "nemo.quantize"(%u) : (!wide) -> !wideq
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d_q = "nemo.quantize_weight"(%d_w) {rounding = "rtn"} : (!narrow) -> !narrowq
    %d = "nemo.linear"(%uq, %d_q, %x) {name = "layers.0.mixer.down_proj", precision = "w8a8"} : (!wideq, !narrowq, !x) -> !x
    %o = "nemo.select_outputs"(%d) : (!x) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%o, %y_w) {name = "lm_head", precision = "float"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
