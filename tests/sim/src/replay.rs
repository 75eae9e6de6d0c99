//! The records of a world, judged again as `policy plan` does: under the policy that was in force,
//! by the facts that each record names, nothing changes, not even the rule.

use crate::world::Check;
use postern_engine::identity::Device;
use postern_engine::policy::{Policy, Subject};
use postern_history::past::{Past, Row};
use postern_history::plan::{Plan, Replay};
use postern_history::{Attempt, FactsText};
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a store would keep of a world.
#[derive(Debug, Default)]
pub struct Kept {
    rows: Vec<Row>,
    /// By hash.
    policies: BTreeMap<String, Arc<Policy>>,
}

impl Kept {
    /// A device stands so from now on; its records say so.
    pub fn note(&mut self, device: &mut Device, now: Wall) {
        let facts = FactsText::of(&Subject {
            user: device.user.clone(),
            groups: device.groups.clone(),
            device: device.name.clone(),
            standing: device.standing.clone(),
        });
        let reported = device.standing.reported.as_ref();
        self.rows.push(Row {
            id: facts.id.clone(),
            text: facts.text.into(),
            since: now,
            reported: reported.map(|reported| (reported.at, reported.fresh_until)),
        });
        device.standing.facts = Some(facts.id);
    }

    /// A policy is in force from now on.
    pub fn keep(&mut self, policy: &Arc<Policy>) {
        self.policies
            .insert(policy.hash().full(), Arc::clone(policy));
    }

    /// Judges every line again.
    ///
    /// # Errors
    /// The verdict of one is another than the recorded one.
    pub fn replay(&self, lines: &[u8]) -> Check {
        let mut replays: BTreeMap<&str, Replay<'_>> = BTreeMap::new();
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let shown = || String::from_utf8_lossy(line);
            let mut attempt =
                Attempt::read(line).ok_or_else(|| format!("replay: no {}", shown()))?;
            let (hash, policy) = self
                .policies
                .get_key_value(&attempt.policy)
                .ok_or_else(|| format!("replay: no such policy in {}", shown()))?;
            let fresh = || Replay::new(policy, Past::new(self.rows.iter().cloned()), Wall(0));
            // Of several attempts it says the policy and the facts of the first; the policy may
            // have changed before the others.
            attempt.ports.clear();
            let replay = replays.entry(hash).or_insert_with(fresh);
            let judged = replay.attempt(&attempt);
            judged.map_err(|error| format!("replay: {error}"))?;
        }
        for (_, replay) in replays {
            let plan = replay.finish();
            let Plan {
                attempts,
                unchanged,
                by_another_rule: 0,
                approximate: 0,
                ..
            } = plan
            else {
                return Err(format!("replay: not as it was recorded: {plan:?}"));
            };
            if unchanged != attempts || plan.not_judged.unknown > 0 {
                return Err(format!("replay: another verdict: {plan:?}"));
            }
        }
        Ok(())
    }
}
