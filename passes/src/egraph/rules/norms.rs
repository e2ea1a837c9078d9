//! Norms with the residual add in front of them, and on fewer rows.

use crate::egraph::Rule;
use egg::{multi_rewrite, rewrite};

/// The rules of this family.
pub fn rules() -> Vec<Rule> {
    vec![
        multi_rewrite!("add-in-norm"; "?k = (norm ?a ?w ?s), ?s = (add ?x ?d)" => "?k = (norm-add ?a ?w ?x ?d), ?s = (sum ?k)"),
        rewrite!("select-before-norm"; "(select (emit ?r ?t (norm ?a ?w ?x)))" => "(emit ?r ?t (norm ?a ?w (select ?x)))"),
    ]
}
