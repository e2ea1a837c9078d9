module {  // expected-error: the module has no function @forward
}
