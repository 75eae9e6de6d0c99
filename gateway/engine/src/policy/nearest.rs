//! "Did you mean": the known word that is the fewest slips of the pen away.

/// Longer words are not compared: the cost is the product of the lengths.
const MAX_WORD: usize = 64;

/// The nearest of `known`, if it is near enough to be what was meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    if word.len() > MAX_WORD {
        return None;
    }
    let near = (word.len() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            let close = letters.len().abs_diff(word.len()) <= near;
            close.then(|| (distance(&word, &letters), candidate))
        })
        .filter(|(slips, _)| *slips <= near)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let known = ["users", "groups", "devices"];
        assert_eq!(nearest("grups", known), Some("groups"));
        assert_eq!(nearest("gruops", known), Some("groups"));
        assert_eq!(nearest("Users", known), Some("users"));
        assert_eq!(nearest("posture", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
