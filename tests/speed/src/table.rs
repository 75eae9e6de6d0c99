//! The counts beside the committed ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How far a count may rise above the committed one.
pub const TOLERANCE: f64 = 0.03;

/// What one packet costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerPacket {
    /// Instructions outside the cipher.
    pub ours: f64,
    /// Instructions of the cipher: shown, never judged.
    pub cipher: f64,
    /// Calls for heap memory.
    pub allocations: f64,
}

/// The committed counts, by name.
pub type Committed = BTreeMap<String, (f64, f64)>;

/// Reads the committed file: name, instructions, allocations on each line.
///
/// # Errors
/// Every line that makes no sense, with its number.
pub fn parse(text: &str) -> Result<Committed, String> {
    let mut committed = Committed::new();
    let mut faults = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [] | ["#", ..] => {}
            [name, ours, allocations] => match (ours.parse(), allocations.parse()) {
                (Ok(ours), Ok(allocations)) => {
                    committed.insert((*name).to_owned(), (ours, allocations));
                }
                _ => {
                    let _ = writeln!(faults, "line {number}: not two numbers after the name");
                }
            },
            _ => {
                let _ = writeln!(
                    faults,
                    "line {number}: expected name, instructions, allocations"
                );
            }
        }
    }
    if faults.is_empty() {
        Ok(committed)
    } else {
        Err(faults)
    }
}

/// Writes the file that [`parse`] reads.
#[must_use]
pub fn write(tools: &str, now: &[(String, PerPacket)]) -> String {
    let mut text = format!(
        "# Instructions for one packet on its road through one end, without those of the cipher, and\n\
         # calls for heap memory. Written by `scripts/instructions --accept`.\n\
         # {tools}\n"
    );
    for (name, cost) in now {
        let _ = writeln!(
            text,
            "{name:<20} {:>8.1} {:>6.2}",
            cost.ours, cost.allocations
        );
    }
    text
}

/// The table, and what is wrong with it, in words.
#[must_use]
pub fn compare(committed: &Committed, now: &[(String, PerPacket)]) -> (String, Vec<String>) {
    let mut table = format!(
        "{:<20} {:>8} {:>9} {:>8} {:>6} {:>8}\n",
        "per packet", "now", "committed", "change", "heap", "cipher"
    );
    let mut faults = Vec::new();
    for (name, cost) in now {
        let (before, change) = match committed.get(name) {
            Some((ours, allocations)) => {
                let change = cost.ours / ours - 1.0;
                if change > TOLERANCE {
                    faults.push(format!(
                        "{name} takes {:.1} instructions, {:.1} % more than the {ours:.1} committed",
                        cost.ours,
                        change * 100.0
                    ));
                }
                if cost.allocations > allocations + 0.005 {
                    faults.push(format!(
                        "{name} asks for heap memory {:.2} times, committed are {allocations:.2}",
                        cost.allocations
                    ));
                }
                // Adding zero takes the sign off a negative one.
                let percent = (change * 1000.0).round() / 10.0 + 0.0;
                (format!("{ours:.1}"), format!("{percent:+.1} %"))
            }
            None => {
                faults.push(format!("{name} has no committed count"));
                ("-".to_owned(), "new".to_owned())
            }
        };
        let _ = writeln!(
            table,
            "{name:<20} {:>8.1} {before:>9} {change:>8} {:>6.2} {:>8.0}",
            cost.ours, cost.allocations, cost.cipher
        );
    }
    for name in committed.keys() {
        if !now.iter().any(|(known, _)| known == name) {
            faults.push(format!("{name} is committed and was not counted"));
        }
    }
    (table, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(ours: f64, allocations: f64) -> Vec<(String, PerPacket)> {
        let cost = PerPacket {
            ours,
            cipher: 4000.0,
            allocations,
        };
        vec![("laptop-out-full".to_owned(), cost)]
    }

    fn faults(ours: f64, allocations: f64) -> usize {
        let committed = parse(&write("rustc", &cost(1000.0, 0.0))).unwrap();
        compare(&committed, &cost(ours, allocations)).1.len()
    }

    #[test]
    fn more_than_the_tolerance_is_a_fault_and_less_is_none() {
        assert_eq!(faults(1029.0, 0.0), 0);
        assert_eq!(faults(500.0, 0.0), 0);
        assert_eq!(faults(1031.0, 0.0), 1);
    }

    #[test]
    fn one_allocation_in_ninety_packets_is_a_fault() {
        assert_eq!(faults(1000.0, 1.0 / 90.0), 1);
    }

    #[test]
    fn what_comes_or_goes_is_a_fault() {
        let committed = parse("gone 10.0 0\n").unwrap();
        let (_, faults) = compare(&committed, &cost(1.0, 0.0));
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn every_bad_line_is_named() {
        let faults = parse("# fine\na 1 2\nb one 2\nc 1\n").unwrap_err();
        assert!(
            faults.contains("line 3") && faults.contains("line 4"),
            "{faults}"
        );
    }
}
