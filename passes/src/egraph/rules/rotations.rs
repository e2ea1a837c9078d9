//! Rotations into weights.
//!
//! `(unrotate r (rotate r x))` is not simplified: that pair in front of a linear is how an online rotation is written,
//! and half of it goes into the weight.

use crate::egraph::Rule;
use egg::rewrite;

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![
        rewrite!("rotate-weight-input"; "(linear ?w f32 (unrotate ?r ?x))" => "(linear (rotate-in ?r ?w) f32 ?x)"),
        rewrite!("rotate-weight-output"; "(rotate ?r (linear ?w f32 ?x))" => "(linear (rotate-out ?r ?w) f32 ?x)"),
        rewrite!("rotate-embedding"; "(rotate ?r (embed ?w))" => "(embed (rotate-in ?r ?w))"),
        rewrite!("cancel-rotation"; "(rotate ?r (unrotate ?r ?x))" => "?x"),
        rewrite!("rotate-before-add"; "(rotate ?r (add ?a ?b))" => "(add (rotate ?r ?a) (rotate ?r ?b))"),
        rewrite!("unrotate-after-add"; "(add (unrotate ?r ?a) (unrotate ?r ?b))" => "(unrotate ?r (add ?a ?b))"),
        rewrite!("rotate-before-norm"; "(rotate ?r (emit none f32 (norm ?a none ?x)))" => "(emit none f32 (norm ?a none (rotate ?r ?x)))"),
        rewrite!("unrotate-after-norm"; "(emit none f32 (norm ?a none (unrotate ?r ?x)))" => "(unrotate ?r (emit none f32 (norm ?a none ?x)))"),
        rewrite!("rotate-before-select"; "(rotate ?r (select ?x))" => "(select (rotate ?r ?x))"),
        rewrite!("unrotate-after-select"; "(select (unrotate ?r ?x))" => "(unrotate ?r (select ?x))"),
    ]
}
