//! Type aliases in printed IR: a type such as `!nemo.act<4096 : i64, i8, "token", "residual">` is written once, at the
//! top, and used by a short name. MLIR reads aliases natively; only dialects written in C++ can make its printer emit them.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

const PREFIX: &str = "!nemo.";

/// Replaces every parametric nemo type in printed IR by an alias and puts the definitions in front.
pub(crate) fn with_aliases(text: &str) -> String {
    let mut aliases = Aliases::default();
    let mut body = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(['"', '!']) {
        body.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = if rest.starts_with('"') { string_length(rest) } else { type_length(rest) };
        let spelled = &rest[..end];
        body.push_str(if spelled.starts_with(PREFIX) && spelled.ends_with('>') {
            aliases.of(spelled)
        } else {
            spelled
        });
        rest = &rest[end..];
    }
    body.push_str(rest);
    let mut text = String::with_capacity(body.len() + 1024);
    for (spelled, alias) in &aliases.of_type {
        let _ = writeln!(text, "{alias} = {spelled}");
    }
    text + &body
}

/// The aliases in use.
#[derive(Default)]
struct Aliases<'t> {
    of_type: BTreeMap<&'t str, String>,
    taken: HashSet<String>,
}

impl<'t> Aliases<'t> {
    /// The alias of a type; two types whose names fall together get different ones.
    fn of(&mut self, spelled: &'t str) -> &str {
        let taken = &mut self.taken;
        self.of_type.entry(spelled).or_insert_with(|| {
            let name = alias_name(spelled);
            let mut alias = name.clone();
            let mut count = 1;
            while !taken.insert(alias.clone()) {
                count += 1;
                alias = format!("{name}__{count}");
            }
            alias
        })
    }
}

/// Length of the string literal that `text` starts with; MLIR escapes quotes and backslashes in it.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the nemo type that `text`, which starts with `!`, starts with: the mnemonic and, if there are any, the
/// parameters. 1 for what is no nemo type.
fn type_length(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(PREFIX) else { return 1 };
    let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let mnemonic = PREFIX.len() + word;
    if !text[mnemonic..].starts_with('<') {
        return mnemonic;
    }
    let mut at = mnemonic;
    while let Some(next) = text[at..].find(['"', '>']) {
        at += next;
        if text[at..].starts_with('>') {
            return at + 1;
        }
        at += string_length(&text[at..]);
    }
    mnemonic
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

    #[test]
    fn keeps_strings_as_they_are() {
        let text = r#"loc("!nemo.act<4 : i64>") "a \" !nemo.vector<4 : i64, f32>" !nemo.tokens"#;
        assert_eq!(with_aliases(text), text);
    }

    #[test]
    fn gives_two_types_two_aliases_when_their_names_fall_together() {
        let text = r#"!nemo.act<4 : i64, f32, "none", "a.b">, !nemo.act<4 : i64, f32, "none", "a-b">"#;
        let aliased = with_aliases(text);
        assert!(aliased.ends_with("\n!act_4_f32_a_b, !act_4_f32_a_b__2"), "{aliased}");
        assert_eq!(aliased.lines().count(), 3);
    }
}
