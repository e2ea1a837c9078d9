//! Conversions between formats that turn out to be nothing, or part of a linear.

use crate::egraph::Rule;
use egg::rewrite;

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![
        rewrite!("drop-convert"; "(convert ?x)" => "?x"),
        rewrite!("dequantize-in-linear"; "(dequantize (linear ?w i32 ?x))" => "(linear ?w f32 ?x)"),
    ]
}
