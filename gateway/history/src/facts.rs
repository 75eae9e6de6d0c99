//! How a device stood, as text that names itself by its hash: a record carries the name, the store
//! keeps the text. What passes by itself is in it with its end, so one text serves for as long as
//! nothing but time changes; how long a report stayed fresh stands beside it.

use postern_engine::policy::Subject;
use postern_engine::standing::{Attribute, Grant, Held, Reported, Session, Standing};
use postern_proto::facts::Facts;
use postern_proto::now::Wall;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The text and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsText {
    /// The first 16 hex digits of the text's SHA-256.
    pub id: Arc<str>,
    /// JSON.
    pub text: String,
}

/// A text that does not say how a device stood.
#[derive(Debug, thiserror::Error)]
#[error("facts that cannot be read: {0}")]
pub struct BadFacts(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    device: String,
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HeldBy>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    session_required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Login>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<Facts>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, Said>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<Given>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HeldBy {
    Approval,
    Login,
    UserDisabled,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    id: Arc<str>,
    method: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    amr: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<String>,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    id: Arc<str>,
    entry: Arc<str>,
    target: Arc<str>,
    reason: Arc<str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    break_glass: bool,
    since: u64,
    until: u64,
}

impl FactsText {
    /// Of a device as it stands. Where it is on the Internet is not in it, since a record says
    /// that itself, nor when it reported last.
    #[must_use]
    pub fn of(who: &Subject) -> FactsText {
        FactsText::with(who, None)
    }

    /// The same with a secret of the store in the text: whoever has the records alone cannot guess
    /// from the name who somebody is.
    #[must_use]
    pub fn salted(who: &Subject, salt: &str) -> FactsText {
        FactsText::with(who, Some(salt.to_owned()))
    }

    fn with(who: &Subject, salt: Option<String>) -> FactsText {
        let standing = &who.standing;
        let content = Content {
            salt,
            user: who.user.clone(),
            device: who.device.clone(),
            groups: who.groups.clone(),
            labels: standing.labels.clone(),
            held: standing.held.map(|held| match held {
                Held::Approval => HeldBy::Approval,
                Held::Login => HeldBy::Login,
                Held::UserDisabled => HeldBy::UserDisabled,
            }),
            session_required: standing.session_required,
            session: standing.session.as_ref().map(|session| Login {
                id: session.id.clone(),
                method: session.method.clone(),
                issuer: session.issuer.clone(),
                amr: session.amr.clone(),
                acr: session.acr.clone(),
                since: session.since.0,
                until: session.until.map(|until| until.0),
            }),
            reported: standing
                .reported
                .as_ref()
                .map(|reported| Facts::clone(&reported.facts)),
            attributes: standing
                .attributes
                .iter()
                .map(|(name, one)| {
                    let said = Said {
                        value: one.value.clone(),
                        until: one.until.map(|until| until.0),
                    };
                    (name.clone(), said)
                })
                .collect(),
            grants: standing
                .grants
                .iter()
                .map(|grant| Given {
                    id: grant.id.clone(),
                    entry: grant.entry.clone(),
                    target: grant.target.clone(),
                    reason: grant.reason.clone(),
                    break_glass: grant.break_glass,
                    since: grant.since.0,
                    until: grant.until.0,
                })
                .collect(),
        };
        // Maps with names for keys: nothing here that JSON cannot hold.
        let text = serde_json::to_string(&content).unwrap_or_default();
        FactsText {
            id: name(&text),
            text,
        }
    }

    /// The device as it stood. A report counts from `reported_at` until `fresh_until`; where these
    /// are not known, for ever.
    ///
    /// # Errors
    /// The text is none that [`FactsText::of`] wrote.
    pub fn read(text: &str, reported: Option<(Wall, Wall)>) -> Result<Subject, BadFacts> {
        let content: Content = serde_json::from_str(text)?;
        let (at, fresh_until) = reported.unwrap_or((Wall(0), Wall::NEVER));
        Ok(Subject {
            user: content.user,
            groups: content.groups,
            device: content.device,
            standing: Standing {
                guest: false,
                held: content.held.map(|held| match held {
                    HeldBy::Approval => Held::Approval,
                    HeldBy::Login => Held::Login,
                    HeldBy::UserDisabled => Held::UserDisabled,
                }),
                session_required: content.session_required,
                session: content.session.map(|session| Session {
                    id: session.id,
                    method: session.method,
                    issuer: session.issuer,
                    amr: session.amr,
                    acr: session.acr,
                    since: Wall(session.since),
                    until: session.until.map(Wall),
                }),
                reported: content.reported.map(|facts| Reported {
                    facts: Arc::new(facts),
                    at,
                    fresh_until,
                }),
                attributes: content
                    .attributes
                    .into_iter()
                    .map(|(name, said)| {
                        let attribute = Attribute {
                            value: said.value,
                            until: said.until.map(Wall),
                        };
                        (name, attribute)
                    })
                    .collect(),
                labels: content.labels,
                grants: content
                    .grants
                    .into_iter()
                    .map(|given| Grant {
                        id: given.id,
                        entry: given.entry,
                        target: given.target,
                        reason: given.reason,
                        break_glass: given.break_glass,
                        since: Wall(given.since),
                        until: Wall(given.until),
                    })
                    .collect(),
                outer: None,
                facts: Some(name(text)),
            },
        })
    }
}

fn name(text: &str) -> Arc<str> {
    let hash = Sha256::digest(text.as_bytes());
    let mut name = String::new();
    for byte in &hash[..8] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let who = Subject {
            user: Some("ana@example.com".to_owned()),
            groups: vec!["sre".to_owned()],
            device: "ana-laptop".to_owned(),
            standing: Standing {
                held: Some(Held::Approval),
                session_required: true,
                session: Some(Session {
                    id: "s1".into(),
                    method: "oidc".into(),
                    issuer: Some("https://idp.example.com".into()),
                    amr: vec!["mfa".to_owned()],
                    acr: Some("2".to_owned()),
                    since: Wall(5),
                    until: Some(Wall(9)),
                }),
                reported: Some(Reported {
                    facts: Arc::new(Facts {
                        os: Some("debian".to_owned()),
                        ..Facts::default()
                    }),
                    at: Wall(1),
                    fresh_until: Wall(2),
                }),
                attributes: BTreeMap::from([(
                    "managed".to_owned(),
                    Attribute {
                        value: "yes".to_owned(),
                        until: None,
                    },
                )]),
                labels: vec!["env=prod".to_owned()],
                grants: vec![Grant {
                    id: "g1".into(),
                    entry: "nodes in an emergency".into(),
                    target: "nodes".into(),
                    reason: "INC-42".into(),
                    break_glass: true,
                    since: Wall(3),
                    until: Wall(4),
                }],
                ..Standing::default()
            },
        };
        let written = FactsText::of(&who);
        let mut read = FactsText::read(&written.text, Some((Wall(1), Wall(2)))).expect("readable");
        assert_eq!(read.standing.facts.take(), Some(written.id));
        assert_eq!(read, who);
        let salted = FactsText::salted(&who, "a secret");
        assert_ne!(salted.id, FactsText::of(&who).id);
        let mut read = FactsText::read(&salted.text, Some((Wall(1), Wall(2)))).expect("readable");
        assert_eq!(read.standing.facts.take(), Some(salted.id));
        assert_eq!(read, who);
    }
}
