//! Online rotations and quantizations in the launch that computes what they apply to.

use crate::egraph::leaves::{Leaves, rotation_of, runs_online};
use crate::egraph::{Nemo, Rule};
use egg::{EGraph, Id, Subst, Var, rewrite};

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![
        rewrite!("rotate-is-emit"; "(rotate ?r ?x)" => "(emit ?r f32 (copy ?x))" if online("?r")),
        rewrite!("rotate-in-kernel"; "(emit ?r f32 (copy (emit none f32 ?k)))" => "(emit ?r f32 ?k)"),
        rewrite!("quantize-in-kernel"; "(emit none ?t (copy (emit ?r f32 ?k)))" => "(emit ?r ?t ?k)"),
    ]
}

/// Whether a kernel can apply the rotation.
fn online(rotation: &str) -> impl Fn(&mut EGraph<Nemo, Leaves>, Id, &Subst) -> bool + use<> {
    let rotation: Var = rotation.parse().expect("a rule names its variables");
    move |egraph, _, substitution| rotation_of(egraph, substitution[rotation]).is_some_and(runs_online)
}
