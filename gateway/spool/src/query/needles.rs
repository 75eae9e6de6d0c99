//! Finds lines by their bytes, before any of them is read as JSON.
//!
//! `"user":"ana"` with its quotes stands in a line only where that field has that value: within a
//! text of JSON a quote is escaped, and a text is never followed by a colon unless it is a name.

use super::fields::Fields;
use super::filter::{Filter, To};
use super::words::{Kind, State, Verdict};
use crate::line::is_sound;
use crate::time::rfc3339;
use memchr::memmem::{Finder, find};
use memchr::{memchr, memrchr};
use std::ops::ControlFlow;

/// A filter, made ready to look at many lines.
#[derive(Debug)]
pub(super) struct Matcher {
    /// What a line must contain, the rarest first.
    needles: Vec<Finder<'static>>,
    since: Option<String>,
    until: Option<String>,
    /// All but the times.
    rest: Filter,
}

/// The bytes of a line could match, and it cannot be read.
#[derive(Debug)]
pub(super) struct Damaged;

impl Matcher {
    pub(super) fn new(filter: &Filter) -> Matcher {
        Matcher {
            needles: needles(filter),
            since: filter.since.map(rfc3339),
            until: filter.until.map(rfc3339),
            rest: Filter {
                since: None,
                until: None,
                ..filter.clone()
            },
        }
    }

    /// Calls `each` for every line of `block`, which holds whole lines, that can match: only by
    /// the first needle. Without a needle that is every line.
    pub(super) fn candidates<'b>(
        &self,
        block: &'b [u8],
        mut each: impl FnMut(&'b [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut at = 0;
        while at < block.len() {
            let rest = &block[at..];
            let hit = match self.needles.first() {
                None => 0,
                Some(needle) => match needle.find(rest) {
                    Some(hit) => hit,
                    None => break,
                },
            };
            let start = memrchr(b'\n', &rest[..hit]).map_or(0, |end| end + 1);
            let end = memchr(b'\n', &rest[hit..]).map_or(rest.len(), |end| hit + end);
            each(&rest[start..end])?;
            at += end + 1;
        }
        ControlFlow::Continue(())
    }

    /// The fields of a line, given without its line end, if it is selected.
    pub(super) fn look<'a>(&self, line: &'a [u8]) -> Result<Option<Fields<'a>>, Damaged> {
        let mut others = self.needles.iter().skip(1);
        if !others.all(|needle| needle.find(line).is_some()) || !self.in_time(line) {
            return Ok(None);
        }
        let fields = is_sound(line).then(|| Fields::read(line)).flatten();
        let fields = fields.ok_or(Damaged)?;
        Ok(self.rest.matches(&fields).then_some(fields))
    }

    fn in_time(&self, line: &[u8]) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        const FIELD: &[u8] = b"\"time\":\"";
        let time = find(line, FIELD).and_then(|at| line.get(at + FIELD.len()..)?.get(..24));
        let Some(time) = time else { return false };
        self.since
            .as_deref()
            .is_none_or(|since| time >= since.as_bytes())
            && self
                .until
                .as_deref()
                .is_none_or(|until| time < until.as_bytes())
    }
}

fn needles(filter: &Filter) -> Vec<Finder<'static>> {
    let (mut protocol, mut address, mut target) = (None, None, None);
    match &filter.to {
        Some(To::Target(name)) => target = Some(name.clone()),
        Some(To::Net {
            net, protocol: p, ..
        }) => {
            protocol.clone_from(p);
            if net.prefix_len() == net.max_prefix_len() {
                address = Some(net.addr().to_string());
            }
        }
        None => {}
    }
    let word = |text: &str| Some(text.to_owned());
    [
        ("user", filter.user.clone()),
        ("device", filter.device.clone()),
        ("dst_address", address),
        ("target", target),
        ("close_reason", filter.close_reason.clone()),
        ("rule", filter.rule.clone()),
        (
            "verdict",
            filter.verdict.map(Verdict::as_str).and_then(word),
        ),
        ("state", filter.state.map(State::as_str).and_then(word)),
        ("kind", filter.kind.map(Kind::as_str).and_then(word)),
        ("protocol", protocol),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let value = serde_json::to_string(&value?).ok()?;
        let needle = format!("\"{name}\":{value}");
        Some(Finder::new(&needle).into_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Hash, seal};

    fn found(filter: &Filter, block: &[u8]) -> Vec<u64> {
        let matcher = Matcher::new(filter);
        let mut found = Vec::new();
        let _ = matcher.candidates(block, |line| {
            if let Ok(Some(fields)) = matcher.look(line) {
                found.push(fields.n);
            }
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn a_value_that_looks_like_a_field_is_no_match() {
        let bodies = [
            r#"{"user":"eve","rule":"\"user\":\"ana\""}"#,
            r#"{"groups":["user","ana"],"user":"bob"}"#,
            r#"{"user":"ana"}"#,
            r#"{"device":"ana"}"#,
        ];
        let mut block = Vec::new();
        for (n, body) in (1..).zip(bodies) {
            seal(body.as_bytes(), n, Hash::ZERO, &mut block);
        }
        let ana = Filter {
            user: Some("ana".into()),
            ..Filter::default()
        };
        assert_eq!(found(&ana, &block), [3]);
        let quoted = Filter {
            rule: Some("\"user\":\"ana\"".into()),
            ..Filter::default()
        };
        assert_eq!(found(&quoted, &block), [1]);
        assert_eq!(found(&Filter::default(), &block), [1, 2, 3, 4]);
    }
}
