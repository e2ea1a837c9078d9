//! Suggestions for misspelled names.

/// The candidates, those that take the fewest edits to become `name` first; ties stay in order.
pub(crate) fn first(name: &str, candidates: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut all: Vec<_> = candidates.collect();
    all.sort_by_key(|candidate| edits(name, candidate));
    all
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_insertions_deletions_and_substitutions() {
        assert_eq!(edits("fold", "fold"), 0);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }
}
