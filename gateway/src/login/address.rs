//! E-mail addresses that may name a user: the plain form of RFC 5321, in lower case.

use std::fmt;

/// The longest address, bytes (RFC 5321, section 4.5.3.1.3, without the brackets).
const LONGEST: usize = 254;
/// The longest part before the `@`, bytes.
const LONGEST_LOCAL: usize = 64;

/// `ana@example.com`: dot-atom, `@`, a domain of letters, digits, dots and dashes. Quoted names,
/// comments, address literals and letters beyond ASCII are refused: two ways to write one mailbox,
/// or two mailboxes that look alike, would be two users, or one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// Who may log in: `ana@example.com` or `*@example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This address.
    One(Address),
    /// Every address of the domain. Not those with a `+`: they are further names of a mailbox that
    /// has one, and somebody who was disabled would come back under a new one.
    Domain(String),
}

impl Address {
    /// None if it is no such address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Address> {
        let (local, domain) = text.split_once('@')?;
        let fits = text.len() <= LONGEST
            && (1..=LONGEST_LOCAL).contains(&local.len())
            && local.split('.').all(|atom| {
                !atom.is_empty()
                    && atom
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
            })
            && is_domain(domain);
        fits.then(|| Address(text.to_ascii_lowercase()))
    }

    /// In lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// None if it is no such pattern.
    #[must_use]
    pub fn parse(text: &str) -> Option<Pattern> {
        match text.strip_prefix("*@") {
            Some(domain) => is_domain(domain).then(|| Pattern::Domain(domain.to_ascii_lowercase())),
            None => Address::parse(text).map(Pattern::One),
        }
    }

    /// Whether the address may log in by it.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        match self {
            Pattern::One(one) => one == address,
            Pattern::Domain(domain) => address
                .0
                .split_once('@')
                .is_some_and(|(local, of)| of == domain && !local.contains('+')),
        }
    }
}

fn is_domain(text: &str) -> bool {
    text.contains('.')
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_addresses_only() {
        for good in [
            "ana@example.com",
            "Ana.Lima+ops@Mail.Example.com",
            "o'brien@example.com",
        ] {
            let address = Address::parse(good).expect(good);
            assert_eq!(address.as_str(), good.to_ascii_lowercase());
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in [
            "",
            "ana",
            "ana@",
            "@example.com",
            "ana@localhost",
            "ana@example..com",
            "a..b@example.com",
            ".a@example.com",
            "ana@-example.com",
            "ana@example.com\r\nBcc: eve@example.org",
            "ana@example.com,eve@example.org",
            "\"ana\"@example.com",
            "\"a@example.org\"@example.com",
            "ana (comment)@example.com",
            "<ana@example.com>",
            "ana@[192.0.2.1]",
            "an\u{430}@example.com",
            "ana@ex\u{430}mple.com",
            "ana@example.com\0",
            &long,
        ] {
            assert_eq!(Address::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_domain_allows_its_addresses_and_nothing_that_ends_like_it() {
        let allow = Pattern::parse("*@Example.com").expect("good");
        let may = |text| allow.matches(&Address::parse(text).expect("address"));
        assert!(may("ana@example.com"));
        assert!(may("ANA@EXAMPLE.COM"));
        assert!(!may("ana@evil-example.com"));
        assert!(!may("ana@sub.example.com"));
        assert!(!may("ana+2@example.com"));
        let one = Pattern::parse("ana+2@example.com").expect("good");
        assert!(one.matches(&Address::parse("ana+2@example.com").expect("address")));
        for bad in [
            "*",
            "*@",
            "*@*",
            "a*@example.com@",
            "*@example",
            "@example.com",
        ] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
}
