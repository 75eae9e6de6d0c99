//! A report as a document.

use super::super::who_can::word;
use super::{ended, facts, short};
use crate::past::Report;
use std::fmt::Write as _;

/// The whole report.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!("# Access to {}\n\n", plain(&report.target));
    table(
        &mut text,
        &["", ""],
        facts(report)
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value]),
    );
    text.push_str("\n## Who could\n\n");
    table(
        &mut text,
        &["user", "device", "access", "rule", "line", "between"],
        report.could.rows.iter().map(|row| {
            vec![
                dash(row.user.as_deref()),
                row.device.clone(),
                word(row.way.access).to_owned(),
                row.way.rule.clone(),
                row.way
                    .line
                    .map_or_else(String::new, |line| line.to_string()),
                row.way.between(),
            ]
        }),
    );
    let _ = writeln!(
        text,
        "\nDevices that did not get there: {}.",
        report.could.never
    );
    text.push_str("\n## Who did\n\n");
    table(
        &mut text,
        &[
            "start",
            "end",
            "user",
            "device",
            "destination",
            "rule",
            "policy",
            "run/flow",
        ],
        report.did.iter().map(|one| {
            vec![
                one.start.rfc3339(),
                ended(one),
                dash(one.user.as_deref()),
                dash(one.device.as_deref()),
                one.to.to_string(),
                one.rule.clone(),
                short(&one.policy).to_owned(),
                format!("{}/{}", one.boot, one.flow),
            ]
        }),
    );
    if report.did_more > 0 {
        let _ = writeln!(text, "\nAnd {} older flows.", report.did_more);
    }
    text.push_str("\n## Who was refused\n\n");
    table(
        &mut text,
        &["user", "device", "attempts", "reason", "rule"],
        report.refused.iter().map(|one| {
            vec![
                dash(one.user.as_deref()),
                dash(one.device.as_deref()),
                one.attempts.to_string(),
                one.deny_reason.clone(),
                one.rule.clone(),
            ]
        }),
    );
    text.push_str("\n## Records that it rests on\n\n");
    table(
        &mut text,
        &["run", "worker", "first", "last", "records"],
        report.rests_on.records.iter().map(|range| {
            vec![
                range.boot.clone(),
                range.worker.to_string(),
                range.first_seq.to_string(),
                range.last_seq.to_string(),
                range.records.to_string(),
            ]
        }),
    );
    if let Some(head) = report.rests_on.head {
        let _ = writeln!(
            text,
            "\nChecked by: `postern-gateway flows verify --head {}:{}`",
            head.n, head.hash
        );
    }
    text
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    text.push_str(&line(&mut header.iter().map(|name| (*name).to_owned())));
    text.push_str(&line(&mut header.iter().map(|_| "---".to_owned())));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(|cell| plain(cell))));
    }
}

fn dash(name: Option<&str>) -> String {
    name.unwrap_or("-").to_owned()
}

/// Nothing in a name is markup.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' => {
                plain.push('\\');
                plain.push(c);
            }
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_markup() {
        assert_eq!(plain("a|b <i>\n`x`"), "a\\|b \\<i\\> \\`x\\`");
        let mut text = String::new();
        table(
            &mut text,
            &["a", "b"],
            [vec!["1|2".to_owned(), String::new()]].into_iter(),
        );
        assert_eq!(text, "| a | b |\n| --- | --- |\n| 1\\|2 |  |\n");
    }
}
