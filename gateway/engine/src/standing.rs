//! How a device stands: the facts about it that can change while it is connected, and that a
//! verdict depends on. The control plane sets all of it at once; time alone may make it worse.

use postern_proto::facts::Facts;
use postern_proto::fate::DropReason;
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The changing facts of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// A throw-away key: it reaches the enrolment API and nothing else, whatever the rest says.
    pub guest: bool,
    /// Why it reaches nothing at all, if so.
    pub held: Option<Held>,
    /// Without a session that lives, it reaches nothing.
    pub session_required: bool,
    /// The login in force.
    pub session: Option<Session>,
    /// What the device said of itself last.
    pub reported: Option<Reported>,
    /// What an admin said of it.
    pub attributes: BTreeMap<String, Attribute>,
    /// What an admin called it: `env=prod`. Sorted.
    pub labels: Vec<String>,
    /// Access for a while, beyond the rules.
    pub grants: Vec<Grant>,
    /// Where it was heard last. The engine knows it first.
    pub outer: Option<IpAddr>,
    /// Names these facts in records: whoever keeps the past finds them by it.
    pub facts: Option<Arc<str>>,
}

impl Standing {
    /// The grant with this id, if it is in force at `now`.
    #[must_use]
    pub fn grant_at(&self, id: &str, now: Wall) -> Option<&Grant> {
        self.grants
            .iter()
            .find(|grant| *grant.id == *id && grant.since <= now && now < grant.until)
    }

    /// Why the device reaches no target at `now`, whatever the policy says.
    #[must_use]
    pub fn obstacle(&self, now: Wall) -> Option<DropReason> {
        if self.guest {
            return Some(DropReason::NotEnrolled);
        }
        match self.held {
            Some(Held::Approval) => Some(DropReason::NotApproved),
            Some(Held::Login) => Some(DropReason::LoginRequired),
            Some(Held::UserDisabled) => Some(DropReason::UserDisabled),
            None if self.session_required && self.session_at(now).is_none() => {
                Some(DropReason::LoginRequired)
            }
            None => None,
        }
    }

    /// The login that lives at `now`.
    #[must_use]
    pub fn session_at(&self, now: Wall) -> Option<&Session> {
        self.session
            .as_ref()
            .filter(|session| session.until.is_none_or(|until| now < until))
    }
}

/// Why a device reaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It waits for an admin's approval, or was denied it.
    Approval,
    /// Its user has to log in for the first time.
    Login,
    /// Its user is disabled.
    UserDisabled,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names it in records.
    pub id: Arc<str>,
    /// `oidc`, `email`, `invitation`.
    pub method: Arc<str>,
    /// Who vouched for the user, for OIDC.
    pub issuer: Option<Arc<str>>,
    /// How the user proved who they are, as the issuer says (RFC 8176). Sorted.
    pub amr: Vec<String>,
    /// The authentication context class, as the issuer says.
    pub acr: Option<String>,
    /// When.
    pub since: Wall,
    /// When it ends by age.
    pub until: Option<Wall>,
}

/// A posture report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// What it said.
    pub facts: Arc<Facts>,
    /// When it came.
    pub at: Wall,
    /// From then on it is stale, and counts as if it had never come.
    pub fresh_until: Wall,
}

/// Something that an admin, or a program of theirs, says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its value.
    pub value: String,
    /// From then on it is as if it were not there.
    pub until: Option<Wall>,
}

/// Access for a while that somebody asked for and got. It is a rule with an end, for one device:
/// what the entry of the policy's `grants:` says must hold all the while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Names it in records and listings.
    pub id: Arc<str>,
    /// The name of the entry of `grants:` that it rests on. Without that entry it means nothing.
    pub entry: Arc<str>,
    /// What was asked for: the name of a target, or `192.0.2.10:22/tcp`.
    pub target: Arc<str>,
    /// Why, in the words of who asked.
    pub reason: Arc<str>,
    /// Nobody approved it.
    pub break_glass: bool,
    /// From when.
    pub since: Wall,
    /// Until when.
    pub until: Wall,
}
