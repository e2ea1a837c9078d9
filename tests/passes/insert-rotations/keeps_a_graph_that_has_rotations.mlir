// recipe: rotation.kind = 'hadamard'
!x = !nemo.act<64 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!r = !nemo.act<64 : i64, f32, "none", "residual">
module {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings"} : (!nemo.tokens, !tall) -> !x
    %r = "nemo.rotate"(%x) {basis = "residual", kind = "hadamard", seed = 0 : i64, size = 64 : i64, transpose = false} : (!x) -> !r
    %y = "nemo.rotate"(%r) {basis = "residual", kind = "hadamard", seed = 0 : i64, size = 64 : i64, transpose = true} : (!r) -> !x
    return %y : !x
  }
}
