//! `policy explain`: for any device or person, by an admin.

use crate::api::{ExplainRequest, Explained};
use crate::problem::Problem;
use crate::store::{Store, Terms};
use postern_engine::policy::{Policy, Subject, Tuple, TupleError};
use postern_history::reach::reaches_nothing;
use postern_io::clock::Clock;
use postern_proto::now::Wall;

/// Why `policy` says what it says. A named device brings its user and groups from the store, if
/// there is one; what the request says comes before them.
///
/// # Errors
/// The request names no destination or an unknown device.
pub async fn explain(
    policy: &Policy,
    known: Option<(&Store, &Terms)>,
    request: &ExplainRequest,
) -> Result<Explained, Problem> {
    let to: Tuple = request
        .to
        .parse()
        .map_err(|error: TupleError| Problem::refused(error.what, error.help))?;
    let mut who = Subject {
        user: request.user.clone(),
        groups: request.groups.clone(),
        device: request.device.clone().unwrap_or_default(),
        standing: Default::default(),
    };
    let now = Clock::now().wall;
    if let (Some(name), Some((store, terms))) = (&request.device, known) {
        let device = store.device(name).await?;
        if device.revoked.is_some() {
            return Err(Problem::refused(
                format!("device '{name}' is revoked and reaches nothing"),
                "name another device, or ask with --user and --group",
            ));
        }
        let record = store.record(name, now.seconds(), terms).await?;
        who.user = who.user.or(record.user);
        if who.groups.is_empty() {
            who.groups = record.groups;
        }
        who.standing = record.standing;
        who.standing.outer = record.last_endpoint.map(|endpoint| endpoint.ip());
    }
    answer(policy, who, &to, now)
}

/// Why `policy` says what it says of somebody whose facts are known.
///
/// # Errors
/// The answer cannot be written.
pub fn answer(
    policy: &Policy,
    mut who: Subject,
    to: &Tuple,
    now: Wall,
) -> Result<Explained, Problem> {
    who.groups.sort();
    who.groups.dedup();
    let explanation = policy.explain(&who, to, now);
    let mut value = serde_json::to_value(&explanation)
        .map_err(|error| Problem::unable(error.to_string(), "this is a fault of the program"))?;
    if let Some(sentence) = reaches_nothing(&who.standing, now) {
        // The policy is not asked at all.
        value["allow"] = false.into();
        value["held"] = sentence.into();
        return Ok(Explained {
            allow: false,
            text: format!("deny: {who} to {to}\n  {sentence}"),
            explanation: value,
        });
    }
    Ok(Explained {
        allow: explanation.allow,
        text: explanation.to_string(),
        explanation: value,
    })
}
