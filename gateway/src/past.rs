//! What was: which policy was in force and who stood how, at any moment that the store still
//! knows, and what the flow log has of it. Reads only, and needs no running gateway.
//!
//! | module | what it knows |
//! |---|---|
//! | `records` | single records, and where devices were on the Internet |
//! | `meant` | what names of targets meant |
//! | `judged` | a record judged again with what it rested on |
//! | `report` | who could and who did |
//! | `rule_text` | a rule as the file had it |

mod judged;
mod meant;
mod records;
mod report;
mod rule_text;

pub use judged::{Judged, judge_again};
pub use records::{Found, Key, Recorded, find, outer_at, outers_at};
pub use report::{MAX_USES, Report, Use, place_of, report};

use crate::problem::Problem;
use crate::store::{FactsRow, MAX_ANSWERS, PolicyChange, Store};
use crate::worker_api::DeviceRecord;
use postern_engine::policy::{Policy, Subject};
use postern_proto::now::Wall;

/// A policy, and when it was in force.
#[derive(Debug)]
pub struct PolicyThen {
    /// Compiled, with what the names of its targets meant.
    pub policy: Policy,
    /// Its text.
    pub source: String,
    /// In force from then on; none if nobody knows.
    pub since: Option<Wall>,
    /// Until another came; none: still.
    pub until: Option<Wall>,
    /// Names of its targets of which is not known any more what they meant: it has them mean
    /// nothing.
    pub forgotten: Vec<String>,
}

impl PolicyThen {
    /// For an answer that may be wrong without what its names meant.
    ///
    /// # Errors
    /// What one of them meant is not known any more.
    pub fn known(&self) -> Result<(), Problem> {
        if self.forgotten.is_empty() {
            return Ok(());
        }
        Err(Problem::absent(
            format!(
                "what {} meant then is not known any more",
                self.forgotten.join(", ")
            ),
            format!("the last {MAX_ANSWERS} answers of a name are kept"),
        ))
    }
}

/// Somebody, and when they stood so.
#[derive(Debug)]
pub struct SubjectThen {
    /// Who.
    pub subject: Subject,
    /// The facts that say so.
    pub row: FactsRow,
}

/// The policy that was in force at `at`.
///
/// # Errors
/// Nobody knows any more; it says from when on the store does.
pub async fn policy_at(store: &Store, at: Wall) -> Result<PolicyThen, Problem> {
    let changes = store.policy_changes().await?;
    let known = changes.iter().map(|one| one.change.at).min();
    let then = changes
        .iter()
        .filter(|one| one.change.at <= at)
        .max_by_key(|one| (one.change.at, one.id));
    let Some(then) = then else {
        let help = match known {
            Some(known) => format!("the oldest that is known is of {}", known.rfc3339()),
            None => "it is known from the first start of this gateway on".to_owned(),
        };
        return Err(Problem::absent(
            format!("nobody knows which policy was in force at {}", at.rfc3339()),
            help,
        ));
    };
    let hash = &then.change.hash;
    // The same policy may have come into force several times without another between.
    let others = || changes.iter().filter(|one| one.change.hash != *hash);
    let place = |one: &PolicyChange| (one.change.at, one.id);
    let before = others()
        .filter(|one| place(one) < place(then))
        .map(place)
        .max();
    let since = changes
        .iter()
        .filter(|one| one.change.hash == *hash && before.is_none_or(|before| place(one) > before))
        .map(|one| one.change.at)
        .min();
    let until = others()
        .filter(|one| place(one) > place(then))
        .map(|one| one.change.at)
        .min();
    Ok(PolicyThen {
        since,
        until,
        ..policy_of(store, hash, at).await?
    })
}

/// The policy of that hash, or whose hash begins so, with what its names meant at `at`.
///
/// # Errors
/// It is not kept any more.
pub async fn policy_of(store: &Store, hash: &str, at: Wall) -> Result<PolicyThen, Problem> {
    let Some((_, source)) = store.policy_source(hash).await? else {
        return Err(Problem::absent(
            format!("policy {} is not kept", hash.get(..12).unwrap_or(hash)),
            "policies are kept as long as a record rests on them",
        ));
    };
    let policy = Policy::compile(&source, &store.names_at(at).await?).map_err(|errors| {
        Problem::unable(
            format!("policy {hash} does not compile any more:\n{errors}"),
            "ask with the version of postern-gateway that it was written for",
        )
    })?;
    then_of(store, policy, source, at).await
}

/// A policy from elsewhere, with what its names meant at `at`.
///
/// # Errors
/// It has faults.
pub async fn policy_from(store: &Store, source: String, at: Wall) -> Result<PolicyThen, Problem> {
    let policy = Policy::compile(&source, &store.names_at(at).await?)
        .map_err(|errors| Problem::refused(errors.to_string(), "`policy check` says all of it"))?;
    then_of(store, policy, source, at).await
}

async fn then_of(
    store: &Store,
    policy: Policy,
    source: String,
    at: Wall,
) -> Result<PolicyThen, Problem> {
    Ok(PolicyThen {
        forgotten: meant::forgotten(store, &policy, at).await?,
        policy,
        source,
        since: None,
        until: None,
    })
}

/// How a device stood at `at`.
///
/// # Errors
/// It was not enrolled then, or nobody knows any more.
pub async fn subject_at(store: &Store, device: &str, at: Wall) -> Result<SubjectThen, Problem> {
    if let Some(row) = store.facts_at(device, at).await? {
        return then(row);
    }
    let what = format!(
        "nobody knows how device '{device}' stood at {}",
        at.rfc3339()
    );
    let help = match store.known_of(device).await? {
        Some((from, Some(to))) => format!(
            "it is known from {} to {}: before and after it was not enrolled, or its facts are \
             forgotten",
            from.rfc3339(),
            to.rfc3339()
        ),
        Some((from, None)) => format!("it is known from {} on", from.rfc3339()),
        None => "`postern-gateway device list --all` lists them".to_owned(),
    };
    Err(Problem::absent(what, help))
}

/// How every device stood at `at`; of revoked ones nothing.
///
/// # Errors
/// The store cannot be read.
pub async fn subjects_at(store: &Store, at: Wall) -> Result<Vec<SubjectThen>, Problem> {
    let rows = store.facts_between(at, at).await?;
    rows.into_iter().map(then).collect()
}

fn then(row: FactsRow) -> Result<SubjectThen, Problem> {
    let subject = row.subject().map_err(|error| {
        Problem::unable(
            format!("facts {} of device '{}': {error}", row.id, row.device),
            "ask with the version of postern-gateway that wrote them",
        )
    })?;
    Ok(SubjectThen { subject, row })
}

/// A device as it stands, and where it was heard last, as a policy sees it.
#[must_use]
pub fn subject_of(record: DeviceRecord) -> Subject {
    let mut standing = record.standing;
    standing.outer = record.last_endpoint.map(|endpoint| endpoint.ip());
    let mut groups = record.groups;
    groups.sort();
    groups.dedup();
    Subject {
        user: record.user,
        groups,
        device: record.name,
        standing,
    }
}
