//! Ways that grants open, or would.

use super::cover::Denials;
use super::{Granted, Place, Way, access, denied_first};
use postern_engine::policy::{Condition, Failed, GrantEntry, Policy, Subject, Tuple};
use postern_engine::standing::Grant;
use postern_proto::now::Wall;

/// Every destination of every entry of `grants:`: open with a grant that lives, or what it takes
/// to have one.
pub(super) fn ways(
    policy: &Policy,
    who: &Subject,
    within: Option<&Place>,
    denials: &Denials,
    now: Wall,
) -> Vec<Way> {
    let mut ways = Vec::new();
    for entry in policy.grants() {
        let missing = policy.missing(entry.id(), who, now);
        let live = policy.live_grants(entry.id(), who, now);
        for there in entry.to() {
            let (target, whole) = (there.target(), Place::from(&there));
            if within.is_some_and(|within| !within.overlaps(&whole)) {
                continue;
            }
            let whole = within.map_or_else(|| whole.clone(), |within| whole.within(within));
            let way = |to: Place, grant: Option<&Grant>| {
                let except = denials.of(&to);
                let mut conditions = missing.clone();
                if grant.is_none() {
                    conditions.push(ask(&entry, target));
                }
                if denials.cover(&to) {
                    conditions.push(denied_first(&except));
                }
                Way {
                    access: access(&conditions),
                    rule: entry.name().to_owned(),
                    line: Some(entry.line()),
                    target: target.map(str::to_owned),
                    to,
                    asks: entry.who().to_string(),
                    conditions,
                    except,
                    grant: grant.map(Granted::from),
                    held: None,
                }
            };
            let before = ways.len();
            for (grant, given) in &live {
                match given {
                    Some(given) if given.target() == target => {
                        ways.push(way(whole.clone(), Some(grant)));
                    }
                    // Of the targets in `anything`.
                    Some(given) if !entry.to().any(|one| one.target() == given.target()) => {
                        let to = Place::from(given);
                        if whole.overlaps(&to) {
                            ways.push(way(to.within(&whole), Some(grant)));
                        }
                    }
                    Some(_) => {}
                    None => {
                        if let Ok(to) = grant.target.parse::<Tuple>()
                            && whole.overlaps(&Place::from(to))
                        {
                            ways.push(way(Place::from(to), Some(grant)));
                        }
                    }
                }
            }
            if ways.len() == before {
                ways.push(way(whole, None));
            }
        }
    }
    ways
}

fn ask(entry: &GrantEntry<'_>, target: Option<&str>) -> Failed {
    let at_once = if entry.break_glass() {
        ", at once with --break-glass"
    } else {
        ""
    };
    let what = target.unwrap_or("ADDRESS:PORT/PROTOCOL");
    Failed {
        condition: Condition::Grant,
        sentence: format!("there is no grant: `postern request {what}`{at_once}").into(),
        checks: Vec::new(),
    }
}
