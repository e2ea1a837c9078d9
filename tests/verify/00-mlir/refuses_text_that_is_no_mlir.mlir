func.func forward {  // expected-error: expected valid '@'-identifier
}
