module {  // expected-error: expected only the function @forward
  func.func @backward() { return }
}
