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
!rot = !nemo.act<128 : i64, f32, "none", "layers.0.down_proj">
!rotq = !nemo.act<128 : i64, i8, "token", "layers.0.down_proj">
!nr = !nemo.matrix<64 : i64, 128 : i64, f32, "none", "layers.0.down_proj", "plain">
!nrq = !nemo.matrix<64 : i64, 128 : i64, i8, "channel", "layers.0.down_proj", "plain">
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
    %h = "nemo.rotate"(%r) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, size = 128 : i64, transpose = false} : (!wide) -> !rot
    %hq = "nemo.quantize"(%h) : (!rot) -> !rotq
    %d_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d_r = "nemo.rotate_weight"(%d_w) {basis = "layers.0.down_proj", kind = "hadamard", seed = 0 : i64, size = 128 : i64, side = "in", transpose = false} : (!narrow) -> !nr
    %d_q = "nemo.quantize_weight"(%d_r) {rounding = "rtn"} : (!nr) -> !nrq
    %d_s = "nemo.linear"(%hq, %d_q) {name = "layers.0.mixer.down_proj", precision = "w8a8"} : (!rotq, !nrq) -> !xs
    %d = "nemo.dequantize"(%d_s) : (!xs) -> !x
    return %d : !x
  }
}
