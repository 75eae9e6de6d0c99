//! How devices stand, as the oracle understands it, and what changes it.

use crate::dice::{Dice, Seeded};
use crate::steps::Change;
use postern_engine::policy::Subject;
use postern_engine::record::CloseReason;
use postern_engine::standing::{Attribute, Grant, Held, Reported, Session, Standing};
use postern_proto::facts::Facts;
use postern_proto::fate::DropReason;
use postern_proto::now::Wall;
use std::sync::Arc;
use std::time::Duration;

/// The checks of every policy.
pub const CHECKS: [(&str, &str); 4] = [
    ("disk", "{ disk_encryption: on }"),
    ("edr", "{ process: edr }"),
    ("new", "{ client_version: \">= 1.10\" }"),
    (
        "managed",
        "{ attribute: { name: managed, value: \"yes\" } }",
    ),
];

/// Grants of one device at once.
const GRANTS: usize = 4;
/// Entries of `grants:`, of which a policy has none, one or both.
const ENTRIES: [&str; 4] = ["grant 0", "grant 0", "grant 1", "grant 2"];
/// What is asked for; the names mean something else in each policy.
const ASKED: [&str; 10] = [
    "given00",
    "given00",
    "given01",
    "given10",
    "given10",
    "given11",
    "192.0.2.10:6443/tcp",
    "192.0.2.11:22/tcp",
    "192.0.2.53:53/udp",
    "[2001:db8::10]:22/tcp",
];

/// Does a check hold?
#[must_use]
pub fn shows(check: &str, standing: &Standing, now: Wall) -> bool {
    if check == "managed" {
        return standing
            .attributes
            .get("managed")
            .is_some_and(|set| set.value == "yes" && set.until.is_none_or(|until| now < until));
    }
    let Some(reported) = &standing.reported else {
        return false;
    };
    let facts = &reported.facts;
    now < reported.fresh_until
        && match check {
            "disk" => facts.disk_encryption == Some(true),
            "edr" => facts.processes.get("edr") == Some(&true),
            _ => facts.client_version.as_deref() == Some("1.10.2"),
        }
}

/// When the login that lives was.
#[must_use]
pub fn login(standing: &Standing, now: Wall) -> Option<Wall> {
    let session = standing.session.as_ref()?;
    let lives = session.until.is_none_or(|until| now < until);
    lives.then_some(session.since)
}

/// Why a device reaches nothing, and as what its flows end for that.
#[must_use]
pub fn held(standing: &Standing, now: Wall) -> Option<(DropReason, CloseReason)> {
    if standing.guest {
        return Some((DropReason::NotEnrolled, CloseReason::Revoked));
    }
    match standing.held {
        Some(Held::Approval) => Some((DropReason::NotApproved, CloseReason::Revoked)),
        Some(Held::UserDisabled) => Some((DropReason::UserDisabled, CloseReason::Revoked)),
        Some(Held::Login) => Some((DropReason::LoginRequired, CloseReason::Session)),
        None if standing.session_required && login(standing, now).is_none() => {
            Some((DropReason::LoginRequired, CloseReason::Session))
        }
        None => None,
    }
}

/// How a laptop stands at first: most are in order, some have a throw-away key.
#[must_use]
pub fn first(seed: u64, now: Wall) -> Standing {
    let mut dice = Seeded::new(seed);
    let mut subject = Subject::default();
    for change in [Change::Login, Change::Report, Change::Attribute] {
        if !dice.one_in(4) {
            let pick = dice.byte();
            change.apply(&mut subject, pick, now);
        }
    }
    subject.standing.guest = dice.one_in(10);
    subject.standing
}

impl Change {
    /// Changes how a device stands, and whom it belongs to.
    pub fn apply(self, who: &mut Subject, pick: u8, now: Wall) {
        let standing = &mut who.standing;
        let mut dice = Seeded::new(u64::from(pick));
        match self {
            Change::Hold => {
                let all = [Held::Approval, Held::Login, Held::UserDisabled];
                standing.held = Some(all[dice.index(3)]);
            }
            Change::Release => standing.held = None,
            Change::Login => {
                let id = format!("s{pick}-{}", now.0);
                standing.session = Some(Session {
                    id: id.into(),
                    method: "oidc".into(),
                    issuer: dice.one_in(2).then(|| "https://idp.example".into()),
                    amr: Vec::new(),
                    acr: None,
                    // Joining by invitation may have been long ago.
                    since: Wall(
                        now.0
                            - if dice.one_in(4) {
                                some_time(&mut dice)
                            } else {
                                0
                            },
                    ),
                    until: (!dice.one_in(3)).then(|| Wall(now.0 + some_time(&mut dice))),
                });
            }
            Change::Logout => standing.session = None,
            Change::Require => standing.session_required = !standing.session_required,
            Change::Report => {
                let good = !dice.one_in(3);
                let facts = Facts {
                    disk_encryption: if good {
                        Some(true)
                    } else {
                        [None, Some(false)][dice.index(2)]
                    },
                    client_version: Some(["1.10.2", "1.9"][usize::from(dice.one_in(4))].to_owned()),
                    processes: [("edr".to_owned(), !dice.one_in(4))].into(),
                    ..Facts::default()
                };
                standing.reported = Some(Reported {
                    facts: Arc::new(facts),
                    at: now,
                    fresh_until: Wall(now.0 + some_time(&mut dice)),
                });
            }
            Change::Attribute => {
                let value = if dice.one_in(4) { "no" } else { "yes" };
                let attribute = Attribute {
                    value: value.to_owned(),
                    until: dice.one_in(2).then(|| Wall(now.0 + some_time(&mut dice))),
                };
                match dice.roll(4) {
                    0 => standing.attributes.remove("managed"),
                    _ => standing.attributes.insert("managed".to_owned(), attribute),
                };
            }
            Change::Groups => {
                let all = &crate::policy::GROUPS[..3];
                let some = all.iter().filter(|_| dice.one_in(2));
                who.groups = some.map(|group| (*group).to_owned()).collect();
                who.groups.sort();
            }
            Change::Grant => {
                standing.grants.truncate(GRANTS - 1);
                let since = if dice.one_in(4) {
                    some_time(&mut dice)
                } else {
                    0
                };
                let since = Wall(now.0 + since);
                standing.grants.push(Grant {
                    id: format!("g{pick}-{}", now.0).into(),
                    entry: ENTRIES[dice.index(ENTRIES.len())].into(),
                    target: ASKED[dice.index(ASKED.len())].into(),
                    reason: format!("reason {pick}").into(),
                    break_glass: dice.one_in(3),
                    since,
                    until: Wall(since.0 + some_time(&mut dice)),
                });
            }
            Change::Revoke => {
                let place = dice.index(standing.grants.len());
                if place < standing.grants.len() {
                    standing.grants.remove(place);
                }
            }
        }
    }
}

/// Half a second to an hour, in nanoseconds: long enough to matter, short enough to end.
fn some_time(dice: &mut Seeded) -> u64 {
    let most = [5_000, 60_000, 600_000, 3_600_000][dice.index(4)];
    let time = Duration::from_millis(dice.between(500, most));
    u64::try_from(time.as_nanos()).unwrap_or(0)
}
