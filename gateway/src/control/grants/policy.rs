//! What the policy says about grants.

use super::refused;
use crate::device_api::DeviceProblem;
use crate::store::StoredGrant;
use postern_engine::policy::{GrantEntry, Policy, Refusal, Subject};
use postern_proto::device_api::RequestGrant;
use postern_proto::now::Wall;

const ASK_ADMIN: &str = "the gateway's admins can be asked: what may be asked for, by whom and \
                         who approves stands in `grants:` of the policy";

/// The entry of `grants:` that lets `who` have what they ask for: the first that is long enough,
/// and lets them have it without approval where they ask for that.
pub(super) fn entry(
    policy: &Policy,
    who: &Subject,
    request: &RequestGrant,
    now: Wall,
) -> Result<String, DeviceProblem> {
    let entries = policy
        .may_request(who, &request.target, now)
        .map_err(|refusal| refused(words(&refusal), ASK_ADMIN))?;
    let seconds = u64::from(request.seconds);
    let fits = |one: &&GrantEntry<'_>| !request.break_glass || one.break_glass();
    let Some(first) = entries.iter().find(fits) else {
        let approvers = match entries.iter().any(GrantEntry::has_approvers) {
            true => "ask without --break-glass: one of its approvers, or an admin, approves",
            false => "ask without --break-glass: an admin at the gateway approves",
        };
        let entry = entries.first().map_or("", GrantEntry::name);
        let what = format!("\"{entry}\" is not without approval: it has no `break_glass: true`");
        return Err(refused(what, approvers));
    };
    let long = |one: &&GrantEntry<'_>| fits(one) && seconds <= one.max().as_secs();
    entries
        .iter()
        .find(long)
        .map(|one| one.name().to_owned())
        .ok_or_else(|| {
            let max = entries.iter().filter(fits).map(|one| one.max().as_secs());
            let max = max.max().unwrap_or(0);
            let what = format!("\"{}\" gives at most {max} s", first.name());
            refused(what, "ask for less")
        })
}

/// Whether `who` may decide about grants that rest on `entry`.
pub(super) fn may_approve(policy: &Policy, who: &Subject, entry: &str, now: Wall) -> bool {
    policy.may_approve(who, entry, now)
}

/// Whether the policy still lets a grant come to life.
pub(super) fn still(
    policy: &Policy,
    who: &Subject,
    grant: &StoredGrant,
    now: Wall,
) -> Result<(), String> {
    let asked = &grant.new;
    let entries = policy
        .may_request(who, &asked.target, now)
        .map_err(|refusal| format!("the policy does not allow it any more: {}", words(&refusal)))?;
    let entry = entries.iter().find(|one| one.name() == asked.entry);
    match entry {
        Some(entry) if asked.seconds <= entry.max().as_secs() => Ok(()),
        Some(entry) => Err(format!(
            "\"{}\" gives at most {} s by now",
            asked.entry,
            entry.max().as_secs()
        )),
        None => Err(format!(
            "the policy's \"{}\" is gone, or not for them",
            asked.entry
        )),
    }
}

fn words(refusal: &Refusal) -> String {
    refusal.to_string()
}
