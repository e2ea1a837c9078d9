//! Type aliases in printed IR: a type such as `!nemo.act<4096 : i64, i8, "token", "residual">` is written once, at the
//! top, and used by a short name. MLIR reads aliases natively; only dialects written in C++ can make its printer emit them.

use std::collections::BTreeMap;
use std::fmt::Write;

const PREFIX: &str = "!nemo.";

/// Replaces every parametric nemo type in printed IR by an alias and puts the definitions in front.
pub(crate) fn with_aliases(text: &str) -> String {
    let mut aliases: BTreeMap<&str, String> = BTreeMap::new();
    let mut body = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(PREFIX) {
        body.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = type_length(rest);
        let spelled = &rest[..end];
        if spelled.contains('<') {
            body.push_str(aliases.entry(spelled).or_insert_with(|| alias_name(spelled)));
        } else {
            body.push_str(spelled);
        }
        rest = &rest[end..];
    }
    body.push_str(rest);
    let mut definitions = String::new();
    for (spelled, alias) in &aliases {
        let _ = writeln!(definitions, "{alias} = {spelled}");
    }
    definitions + &body
}

/// Length of the type that `text` starts with: the mnemonic and, if there are any, the parameters.
fn type_length(text: &str) -> usize {
    let mnemonic = PREFIX.len()
        + text[PREFIX.len()..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len() - PREFIX.len());
    if text[mnemonic..].starts_with('<') {
        text[mnemonic..].find('>').map_or(mnemonic, |end| mnemonic + end + 1)
    } else {
        mnemonic
    }
}

/// `!nemo.act<4096 : i64, i8, "token", "residual">` becomes `!act_4096_i8_token_residual`.
fn alias_name(spelled: &str) -> String {
    let spelled = spelled[PREFIX.len()..].replace(": i64", "");
    let mut parts: Vec<&str> =
        spelled.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty()).collect();
    // Floats have no scale and most values are in the plain basis: saying so would only lengthen the name. A matrix
    // has two bases; they are dropped together, so that names stay distinct.
    while parts.last() == Some(&"plain") && (parts[0] != "matrix" || parts[parts.len() - 2] == "plain") {
        parts.truncate(parts.len() - if parts[0] == "matrix" { 2 } else { 1 });
    }
    parts.retain(|part| *part != "none");
    format!("!{}", parts.join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_type_once() {
        let text = r#"%0 = "nemo.x"(%a) : (!nemo.tokens) -> !nemo.act<64 : i64, i8, "token", "r">, !nemo.act<64 : i64, i8, "token", "r">"#;
        let aliased = with_aliases(text);
        assert_eq!(
            aliased,
            "!act_64_i8_token_r = !nemo.act<64 : i64, i8, \"token\", \"r\">\n%0 = \"nemo.x\"(%a) : (!nemo.tokens) -> !act_64_i8_token_r, !act_64_i8_token_r"
        );
    }
}
