//! The passes that rewrite the nemo IR from imported to planned.
