!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
module attributes {nemo.recipe = "{\22phase\22:2,\22rounding\22:\22rtn-absmax\22,\22override\22:[{\22match\22:\22lm_head|embeddings\22,\22rounding\22:\22gptq\22}]}", nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !wide {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "w4a8"} : (!nemo.tokens, !tall) -> !x
    %y_w = "nemo.weight"() {tensor = "lm_head.weight"} : () -> !tall
    %y = "nemo.linear"(%x, %y_w) {name = "lm_head", precision = "w4a8"} : (!x, !tall) -> !wide
    return %y : !wide
  }
}
