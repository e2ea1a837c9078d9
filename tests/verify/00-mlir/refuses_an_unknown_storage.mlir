func.func @forward(%t: !nemo.act<4 : i64, i13, "none", "plain">) {  // expected-error: 'i13' does not satisfy the constraint
  return
}
