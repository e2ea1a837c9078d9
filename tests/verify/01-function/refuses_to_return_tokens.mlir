func.func @forward(%t: !nemo.tokens) -> !nemo.tokens {
  return %t : !nemo.tokens  // expected-error: @forward returns something else than one plain f32 activation
}
