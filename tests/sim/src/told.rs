//! What a record says of who asked and why, beside the outcome.

use postern_engine::record::{CheckResult, Decision, Outer, Record};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// As the oracle foretells it, or as a record has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The rule or the entry of `grants:` that decided.
    pub rule: String,
    /// Whether a rule in shadow would allow, and its name.
    pub shadow: Option<(bool, String)>,
    /// The grant, why it was asked for, and whether nobody approved it.
    pub grant: Option<(String, String, bool)>,
    /// The login in force.
    pub session: Option<String>,
    /// Who vouched for the user then.
    pub issuer: Option<String>,
    /// Seconds since.
    pub session_age: Option<u64>,
    /// What names the facts.
    pub facts: Option<String>,
    /// Where the device is on the Internet.
    pub outer: Option<IpAddr>,
    /// How the checks of that rule do.
    pub posture: BTreeMap<String, bool>,
}

impl Told {
    /// What `record` says.
    #[must_use]
    pub fn of(record: &Record) -> Told {
        let text = |text: &std::sync::Arc<str>| text.to_string();
        let shadow = record.shadow.as_ref();
        let grant = record.grant.as_ref().map(|grant| {
            let reason = grant.reason.as_ref().map(text);
            (
                grant.id.to_string(),
                reason.unwrap_or_default(),
                grant.break_glass,
            )
        });
        let checks = record.posture.iter().flat_map(|posture| posture.iter());
        Told {
            rule: record.rule.clone(),
            shadow: shadow.map(|one| (one.verdict == Decision::Allow, one.rule.clone())),
            grant,
            session: record.who.session.as_ref().map(text),
            issuer: record.who.issuer.as_ref().map(text),
            session_age: record.session_age_s,
            facts: record.who.facts.as_ref().map(text),
            outer: record.client_outer.as_ref().and_then(|outer| match outer {
                Outer::Address(at) => Some(at.ip()),
                Outer::Pseudonym(_) => None,
            }),
            posture: checks
                .map(|(name, result)| (name.clone(), *result == CheckResult::Pass))
                .collect(),
        }
    }
}
