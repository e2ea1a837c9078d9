module {  // expected-error: the module has no function @forward with a body
  func.func private @forward(!nemo.tokens) -> !nemo.tokens
}
