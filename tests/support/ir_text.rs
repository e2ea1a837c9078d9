//! IR as snapshots show it: stable under rewrites elsewhere, so that a diff shows what a pass did and nothing else.

use std::collections::{HashMap, HashSet};

/// The text of a module without locations, each value named by its op and a count: `%linear_2`. MLIR numbers values from
/// top to bottom, so that one more op would change every line below it.
///
/// Of the lines whose location has a name, only those are kept whose name `is_shown`, and of the types those in use.
pub fn readable_where(text: &str, is_shown: impl Fn(&str) -> bool) -> String {
    let locations = locations(text);
    let mut names = HashMap::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut out = String::new();
    for full in text.lines().filter(|line| !line.starts_with("#loc")) {
        let line = without_segments(&without_location(full));
        if let Some((number, mnemonic)) = definition(&line) {
            let count = counts.entry(mnemonic.to_owned()).or_default();
            names.insert(number.to_owned(), format!("{mnemonic}_{count}"));
            *count += 1;
        }
        if location(full).and_then(|alias| locations.get(alias)).is_none_or(|name| is_shown(name)) {
            out.push_str(&renamed(&line, &names));
            out.push('\n');
        }
    }
    without_unused_types(&out)
}

/// The lines whose location has a name that `is_wanted`, without it.
#[allow(dead_code, reason = "not every test wants lines alone")]
pub fn lines_where(text: &str, is_wanted: impl Fn(&str) -> bool) -> String {
    let locations = locations(text);
    let is_wanted =
        |line: &str| location(line).and_then(|alias| locations.get(alias)).is_some_and(|name| is_wanted(name));
    let lines = text.lines().filter(|line| !line.starts_with("#loc") && is_wanted(line));
    lines.flat_map(|line| [without_location(line), "\n".to_owned()]).collect()
}

/// The names behind `#loc12 = loc("layers.0")`.
fn locations(text: &str) -> HashMap<&str, &str> {
    let definitions = text.lines().filter_map(|line| line.split_once(" = loc(\""));
    definitions.filter_map(|(alias, rest)| Some((alias, rest.split('"').next()?))).collect()
}

/// The alias at the end of a line.
fn location(line: &str) -> Option<&str> {
    line.rsplit_once(" loc(")?.1.strip_suffix(')')
}

fn without_unused_types(text: &str) -> String {
    let definition = |line: &str| line.starts_with('!').then(|| line.split(' ').next().unwrap_or_default().to_owned());
    let body: String = text.lines().filter(|line| definition(line).is_none()).flat_map(|l| [l, "\n"]).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '!';
    let used: HashSet<&str> = body.split(|c| !is_word(c)).collect();
    let definitions = text.lines().filter(|line| definition(line).is_some_and(|name| used.contains(name.as_str())));
    definitions.flat_map(|line| [line, "\n"]).collect::<String>() + &body
}

/// A line without its ` loc(#loc12)`, of which a function signature has one in the middle.
fn without_location(line: &str) -> String {
    let mut parts = line.split(" loc(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    out
}

/// A line without the attribute in which MLIR counts optional operands: the operands themselves are shown.
fn without_segments(line: &str) -> String {
    let Some((before, rest)) = line.split_once("operandSegmentSizes = array<i32: ") else { return line.to_owned() };
    let (_, after) = rest.split_once('>').unwrap_or_default();
    match after.strip_prefix(", ") {
        Some(after) => format!("{before}{after}"),
        None => format!("{}{after}", before.trim_end_matches(", ")),
    }
}

/// Number and op of `  %12:2 = "nemo.attention"(...`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (number, rest) = line.trim_start().strip_prefix('%')?.split_once(" = \"nemo.")?;
    let number = number.split(':').next()?;
    Some((number, rest.split('"').next()?))
}

fn renamed(line: &str, names: &HashMap<String, String>) -> String {
    let mut parts = line.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        out.push('%');
        match names.get(&part[..digits]) {
            Some(name) => out.push_str(name),
            None => out.push_str(&part[..digits]),
        }
        out.push_str(&part[digits..]);
    }
    out
}

/// What a pass did, as a unified diff.
pub fn difference(before: &str, after: &str) -> String {
    similar::TextDiff::from_lines(before, after).unified_diff().context_radius(2).header("before", "after").to_string()
}
