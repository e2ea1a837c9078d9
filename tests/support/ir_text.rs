//! IR as snapshots show it: stable under rewrites elsewhere, so that a diff shows what a pass did and nothing else.

use std::collections::HashMap;

/// The text of a module without locations, each value named by its op and a count: `%linear_2`. MLIR numbers values from
/// top to bottom, so that one more op would change every line below it.
pub fn readable(text: &str) -> String {
    let mut names = HashMap::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("#loc")) {
        let line = without_location(line);
        if let Some((number, mnemonic)) = definition(&line) {
            let count = counts.entry(mnemonic.to_owned()).or_default();
            names.insert(number.to_owned(), format!("{mnemonic}_{count}"));
            *count += 1;
        }
        out.push_str(&renamed(&line, &names));
        out.push('\n');
    }
    out
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
