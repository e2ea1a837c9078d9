//! The core of a Mamba-2 layer as one launch.

use crate::egraph::Rule;
use egg::rewrite;

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![rewrite!("fuse-mixer"; "(gate ?a ?w (scan ?s (conv ?c ?x) ?dt) ?z)" => "(mixer ?c ?s ?a ?w ?z ?x ?dt)")]
}
