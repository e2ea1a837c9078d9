//! What a linear does to its sums before it stores them.

use crate::egraph::Rule;
use egg::rewrite;

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![
        rewrite!("relu2-in-linear"; "(emit none f32 (relu2 (linear ?w f32 ?x)))" => "(linear-relu2 ?w ?x)"),
        rewrite!("residual-in-linear"; "(add ?r (linear ?w f32 ?x))" => "(linear-add ?w ?r ?x)"),
        rewrite!("left-residual-in-linear"; "(add (linear ?w f32 ?x) ?r)" => "(linear-add ?w ?r ?x)"),
    ]
}
