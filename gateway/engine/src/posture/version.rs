//! Versions: numbers with dots between them, compared number by number.

use std::cmp::Ordering;
use std::fmt;

/// More numbers than any version has.
const MAX_NUMBERS: usize = 8;

/// `>= 12`: what a version must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    operator: Operator,
    version: Version,
}

/// Numbers that are missing count as zero: `12` and `12.0` are the same version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version(Vec<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

/// The longer first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 5] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (">", Operator::Above),
    ("<", Operator::Below),
    ("=", Operator::Equal),
];

impl Comparison {
    /// `>= 12`, `> 6.1`, `<= 2`, `< 2.0`, `= 12`: an operator and numbers with dots between them.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Comparison, String> {
        const EXAMPLE: &str = "write an operator and a version, such as `\">= 12\"` or `\"< 2.0\"`";
        let found = OPERATORS.iter().find(|(sign, _)| text.starts_with(sign));
        let Some((sign, operator)) = found else {
            return Err(match Version::whole(text) {
                Some(_) => format!(
                    "write `\">= {text}\"` for {text} or newer, `\"= {text}\"` for no other"
                ),
                None => EXAMPLE.to_owned(),
            });
        };
        match Version::whole(text[sign.len()..].trim()) {
            Some(version) => Ok(Comparison {
                operator: *operator,
                version,
            }),
            None => Err(EXAMPLE.to_owned()),
        }
    }

    /// Whether the version that `reported` starts with is as it must be; never for text that
    /// starts with no number. What follows the numbers is not looked at: `6.1.0-18-amd64` is 6.1.0.
    #[must_use]
    pub fn holds(&self, reported: &str) -> bool {
        let Some(reported) = Version::leading(reported) else {
            return false;
        };
        let order = reported.compare(&self.version);
        match self.operator {
            Operator::AtLeast => order.is_ge(),
            Operator::Above => order.is_gt(),
            Operator::AtMost => order.is_le(),
            Operator::Below => order.is_lt(),
            Operator::Equal => order.is_eq(),
        }
    }
}

impl Version {
    /// The text is a version and nothing else.
    fn whole(text: &str) -> Option<Version> {
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        numbers
            .filter(|numbers| numbers.len() <= MAX_NUMBERS)
            .map(Version)
    }

    /// The text starts with a version.
    fn leading(text: &str) -> Option<Version> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        Version::whole(text[..end].trim_end_matches('.'))
    }

    fn compare(&self, other: &Version) -> Ordering {
        let number = |version: &Version, place| version.0.get(place).copied().unwrap_or(0);
        (0..MAX_NUMBERS)
            .map(|place| number(self, place).cmp(&number(other, place)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// Digits only: no sign, no white space.
fn number(text: &str) -> Option<u32> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, known)| *known == self.operator);
        f.write_str(sign.map_or("", |(sign, _)| sign))?;
        for (place, number) in self.version.0.iter().enumerate() {
            write!(f, "{}{number}", if place > 0 { "." } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        for (comparison, holds, fails) in [
            (">= 12", "12 12.0 12.4 13 100", "11 11.9 9 0"),
            ("> 6.1", "6.1.1 6.2 6.10 7", "6.1 6.1.0 6.0.9 5"),
            ("<= 2", "2 2.0.0 1.9", "2.0.1 3"),
            ("< 2.0", "1 1.99.99", "2 2.0 2.1"),
            ("= 24.04", "24.04 24.4 24.04.0", "24.040.1 24.5 24"),
            (">=12", "12-rc1 12+deb12u5 12.", "rolling v12 .12 12..1 -12"),
            (">= 6.1", "6.1.0-18-amd64", "6.0.0-18-amd64 99999999999"),
        ] {
            let parsed = Comparison::parse(comparison).unwrap();
            for version in holds.split(' ') {
                assert!(parsed.holds(version), "{version} {comparison}");
            }
            for version in fails.split(' ').chain([""]) {
                assert!(!parsed.holds(version), "{version} {comparison}");
            }
        }
    }

    #[test]
    fn a_comparison_is_an_operator_and_a_version() {
        assert_eq!(Comparison::parse("<  2.0").unwrap().to_string(), "< 2.0");
        assert_eq!(
            Comparison::parse("12").unwrap_err(),
            "write `\">= 12\"` for 12 or newer, `\"= 12\"` for no other"
        );
        for bad in [
            "",
            ">=",
            "~ 12",
            "== 12",
            ">= 12-rc",
            ">= v12",
            ">= 1.2.",
            "=> 1",
            ">= 1 2",
            ">= 1.2.3.4.5.6.7.8.9",
            ">= 4294967296",
            ">= +1",
        ] {
            assert!(Comparison::parse(bad).is_err(), "{bad}");
        }
    }
}
