// recipe: phase = 1
!x = !nemo.act<64 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!square = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!vector = !nemo.vector<64 : i64, bf16>
!factors = !nemo.vector<64 : i64, f32>
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %w = "nemo.weight"() {tensor = "layers.0.mixer.norm.weight"} : () -> !vector
    %a = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight.absmax"} : () -> !factors
    %o_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !square
    %m = "nemo.column_absmax"(%o_w) : (!square) -> !factors
    %s = "nemo.smooth_factors"(%a, %m) {alpha = 5.0e-01 : f64, block = 1 : i64, power = 1.0e+00 : f64, share = 1 : i64} : (!factors, !factors) -> !factors
    %g = "nemo.scale_columns"(%w, %s) {inverse = true} : (!vector, !factors) -> !factors
    %n = "nemo.gated_rms_norm"(%x, %x, %g) {eps = 1.0e-05 : f64, group_size = 32 : i64} : (!x, !x, !factors) -> !x
    %y_w = "nemo.weight"() {tensor = "layers.0.mixer.out_proj.weight"} : () -> !square
    %y = "nemo.linear"(%n, %y_w) {name = "layers.0.mixer.out_proj"} : (!x, !square) -> !x
    return %y : !x
  }
}
