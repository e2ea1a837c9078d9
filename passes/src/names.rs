//! What ops are called in plans and reports: the same for every naming scheme of checkpoints.

use ir::melior::ir::operation::OperationLike;
use ir::module::location_name;
use ir::ops::Op;

/// The canonical name of a linear, or of the tensor or layer in another op's location, without `.weight`. An op without
/// a location is called by its mnemonic.
pub fn canonical(op: &Op<'_, '_>) -> String {
    if let Op::Linear(linear) = op {
        return linear.name();
    }
    let located = location_name(&op.operation());
    let plain = ["backbone.", "model."].iter().find_map(|prefix| located.strip_prefix(prefix)).unwrap_or(&located);
    let name = plain.strip_suffix(".weight").unwrap_or(plain);
    if name.is_empty() {
        let name = op.operation().name();
        return name.as_string_ref().as_str().unwrap_or_default().trim_start_matches("nemo.").to_owned();
    }
    // The final norm is `model.norm` in one scheme, `norm_f` in the other.
    if name == "norm" { "norm_f".to_owned() } else { name.to_owned() }
}

/// What linears that share a launch are called together: `layers.0.mixer.in_proj.{z,xbc,dt}`.
pub fn group(names: &[String]) -> String {
    let [first, rest @ ..] = names else { return String::new() };
    if rest.is_empty() {
        return first.clone();
    }
    let parent = |name: &str| name.rfind('.').map_or(0, |dot| dot + 1);
    let prefix = &first[..parent(first)];
    if rest.iter().any(|name| &name[..parent(name)] != prefix) {
        return names.join(",");
    }
    let last: Vec<_> = names.iter().map(|name| &name[prefix.len()..]).collect();
    format!("{prefix}{{{}}}", last.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_siblings_by_what_they_have_in_common() {
        let names = |list: &[&str]| group(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["lm_head"]), "lm_head");
        assert_eq!(names(&["layers.0.mixer.q_proj", "layers.0.mixer.k_proj"]), "layers.0.mixer.{q_proj,k_proj}");
        assert_eq!(names(&["layers.0.a", "layers.1.a"]), "layers.0.a,layers.1.a");
    }
}
