//! Rule 29: launches.

use super::checker::Checker;
use crate::ops::views;
use std::collections::HashSet;

/// Checks a launch.
pub(super) fn launch(checker: &mut Checker<'_, '_>, op: views::Launch<'_, '_>) {
    checker.require(!op.kernel().is_empty(), || "kernel is empty".into());
    let roles = op.roles();
    checker.same("the number of roles", roles.len(), op.arguments().len());
    let mut seen = HashSet::new();
    for role in &roles {
        checker.require(!role.is_empty() && seen.insert(role), || format!("role \"{role}\" is empty or given twice"));
    }
    let object = serde_json::from_str::<serde_json::Value>(&op.parameters()).is_ok_and(|json| json.is_object());
    checker.require(object, || "parameters is no JSON object".into());
    let costs = [
        ("fixed_bytes", op.fixed_bytes()),
        ("row_bytes", op.row_bytes()),
        ("sequence_bytes", op.sequence_bytes()),
        ("row_ops", op.row_ops()),
    ];
    for (name, cost) in costs {
        checker.require(cost >= 0, || format!("{name} is {cost}, expected 0 or more"));
    }
}
