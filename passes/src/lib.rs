//! The passes that rewrite the nemo IR from imported to planned.

pub mod cost;
pub mod lower_to_plan;
