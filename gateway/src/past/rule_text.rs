//! A rule as the file had it, for people: by the indentation of its lines.

/// Longer rules are cut.
const MAX_LINES: usize = 40;

/// The lines of the list item that holds line `line`, counted from 1, without the indentation that
/// all have.
#[must_use]
pub(super) fn rule_text(source: &str, line: usize) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let Some(at) = line.checked_sub(1).filter(|at| *at < lines.len()) else {
        return Vec::new();
    };
    let own = indent(lines[at]);
    // The name need not come first.
    let first = (0..=at)
        .rev()
        .find(|n| is_item(lines[*n]) && (*n == at || indent(lines[*n]) < own))
        .unwrap_or(at);
    let depth = indent(lines[first]);
    let more = lines[first + 1..]
        .iter()
        .take_while(|line| line.trim().is_empty() || indent(line) > depth)
        .count();
    let mut text: Vec<String> = lines[first..=first + more]
        .iter()
        .map(|line| line.get(depth..).unwrap_or("").trim_end().to_owned())
        .collect();
    while text.last().is_some_and(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    }) {
        text.pop();
    }
    if text.len() > MAX_LINES {
        text.truncate(MAX_LINES);
        text.push("…".to_owned());
    }
    text
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("- ") || line == "-"
}

#[cfg(test)]
mod tests {
    use super::rule_text;

    #[test]
    fn a_rule_ends_where_the_next_begins() {
        let file = "rules:\n  - name: a\n    action: allow\n\n    to: [x]\n  # about b\n\n  - action: deny\n    \
                    name: b\n    to:\n      - y\ntests:\n  - { user: u }\n";
        assert_eq!(
            rule_text(file, 2),
            ["- name: a", "  action: allow", "", "  to: [x]"]
        );
        assert_eq!(
            rule_text(file, 9),
            ["- action: deny", "  name: b", "  to:", "    - y"]
        );
        assert_eq!(rule_text(file, 13), ["- { user: u }"]);
        assert!(rule_text(file, 0).is_empty() && rule_text(file, 99).is_empty());
        assert_eq!(rule_text("ü\n", 1), ["ü"]);
    }
}
