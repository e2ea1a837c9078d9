// recipe: [rotation]
// recipe: kind = 'random-hadamard'
// recipe: seed = 7
// recipe: residual = false
// recipe: value_output = false
// recipe: query_key = false
// recipe: out_proj = false
// recipe: down_proj = true
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %n0 = "nemo.rms_norm"(%x) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0, 0>} : (!x) -> !x
    %u0_w = "nemo.weight"() {tensor = "layers.0.mixer.up_proj.weight"} : () -> !tall
    %u0 = "nemo.linear"(%n0, %u0_w) {name = "layers.0.mixer.up_proj", precision = "w8a8"} : (!x, !tall) -> !wide
    %r0 = "nemo.relu2"(%u0) : (!wide) -> !wide
    %d0_w = "nemo.weight"() {tensor = "layers.0.mixer.down_proj.weight"} : () -> !narrow
    %d0 = "nemo.linear"(%r0, %d0_w) {name = "layers.0.mixer.down_proj", precision = "float"} : (!wide, !narrow) -> !x
    %y = "nemo.add"(%x, %d0) : (!x, !x) -> !x
    return %y : !x
  }
}
