// recipe: [rotation]
// recipe: kind = 'random-hadamard'
// recipe: seed = 7
// recipe: residual = true
// recipe: value_output = false
// recipe: query_key = false
// recipe: out_proj = false
// recipe: down_proj = false
!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
module {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%x, %y_w) {name = "lm_head"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
