//! What speaks against a change of the policy: whom it would cut, and what it would deny.

use super::super::Control;
use crate::api::{FlowFilter, FlowView, Force, MAX_FLOWS_LISTED};
use crate::plan::{self, Question};
use crate::problem::Problem;
use crate::store::StoreError;
use postern_engine::policy::{Policy, Subject};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// How much of the past `max_newly_denied` looks at.
const LOOKED_BACK: Duration = Duration::from_secs(7 * 86_400);

/// Flows that a refusal lists.
const LISTED: usize = 10;

/// Whose flows must live.
pub(super) enum Who {
    User(String),
    Device(String),
}

/// What was found before a change.
#[derive(Default)]
pub(super) struct Guarded {
    pub(super) checked: Option<String>,
    pub(super) own_flows: Vec<FlowView>,
    pub(super) lost: Option<Lost>,
}

/// What was allowed in the last week and would not be any more, for all that is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Lost {
    /// It would be denied.
    pub(super) denied: u64,
    /// Of these, flows that began before and are open.
    open: u64,
    /// Too little is known of who it was.
    unknown: u64,
    /// Lines of the log that do not read: each may be one.
    damaged: u64,
    /// More flows are open than were looked at.
    more: bool,
}

impl Lost {
    /// What nobody can say anything of.
    pub(super) fn not_judged(&self) -> u64 {
        self.unknown.saturating_add(self.damaged)
    }

    /// Nothing passes because nobody could say.
    fn is_over(&self, most: u64) -> bool {
        self.more || self.denied.saturating_add(self.not_judged()) > most
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the policy would deny {} recorded attempts of the last week that were allowed",
            self.denied
        )?;
        if self.open > 0 {
            write!(
                f,
                " ({} of them flows that began before and are open)",
                self.open
            )?;
        }
        if self.unknown > 0 {
            write!(
                f,
                "; {} more that were allowed cannot be judged, for too little is known of who made them",
                self.unknown
            )?;
        }
        if self.damaged > 0 {
            write!(f, "; {} lines of the log are damaged", self.damaged)?;
        }
        if self.more {
            write!(
                f,
                "; of the flows that began before and are open only the oldest {MAX_FLOWS_LISTED} were judged"
            )?;
        }
        Ok(())
    }
}

impl Control {
    /// Whether a policy cuts who applies it, or denies more than it may.
    pub(super) async fn guard(
        &self,
        policy: &Arc<Policy>,
        source: &str,
        who: Option<&Who>,
        with: &Force,
    ) -> Result<Guarded, Problem> {
        let mut guarded = Guarded::default();
        let forced = with.reason.is_some();
        if let Some(who) = who {
            let (name, select) = match who {
                Who::User(user) => (
                    user,
                    FlowFilter {
                        user: Some(user.clone()),
                        ..FlowFilter::default()
                    },
                ),
                Who::Device(device) => (
                    device,
                    FlowFilter {
                        device: Some(device.clone()),
                        ..FlowFilter::default()
                    },
                ),
            };
            guarded.own_flows = self.cut_by(policy, select).await?;
            guarded.checked = Some(name.clone());
            if !forced && !guarded.own_flows.is_empty() {
                return Err(Problem::refused(
                    lockout(name, &guarded.own_flows),
                    "allow them, or repeat it with --force --reason TEXT",
                ));
            }
        }
        if let Some(most) = self.config.get().policy_change.max_newly_denied {
            let lost = self.lost(source).await?;
            guarded.lost = Some(lost);
            if !forced && lost.is_over(most) {
                return Err(Problem::refused(
                    format!(
                        "{lost}; gateway.yaml takes {most} in all (policy_change.max_newly_denied)"
                    ),
                    "`postern-gateway policy plan` shows them, and with a shorter --since how old \
                     they are; allow them, or repeat it with --force --reason TEXT",
                ));
            }
        }
        Ok(guarded)
    }

    /// The live flows that a policy would cut.
    async fn cut_by(&self, policy: &Policy, select: FlowFilter) -> Result<Vec<FlowView>, Problem> {
        let flows = self.workers.list_flows(select, MAX_FLOWS_LISTED).await?;
        let now = Clock::now().wall;
        let last = self.last.load();
        let mut indexes = HashMap::new();
        let mut cut = Vec::new();
        for flow in flows {
            if !indexes.contains_key(&flow.device) {
                let record = match self.as_it_stands(&flow.device).await {
                    Ok(record) => record,
                    // It is gone, and so is its flow in a moment.
                    Err(StoreError::NoDevice { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                let peer = last.peers.iter().find(|peer| peer.device == flow.device);
                let mut standing = record.standing;
                standing.outer = peer.and_then(|peer| peer.endpoint).map(|at| at.ip());
                let index = policy.index(&Subject {
                    user: record.user,
                    groups: record.groups,
                    device: record.name,
                    standing,
                });
                indexes.insert(flow.device.clone(), index);
            }
            let allowed = indexes
                .get(&flow.device)
                .is_some_and(|who| policy.judge(who, &flow.to(), now).allows());
            if !allowed {
                cut.push(flow);
            }
        }
        Ok(cut)
    }

    async fn lost(&self, source: &str) -> Result<Lost, Problem> {
        let now = Clock::now().wall;
        let since = Wall(now.0.saturating_sub((Wall(0) + LOOKED_BACK).0));
        let failed = |why: String| Problem::unable(why, "try again, or --force --reason TEXT");
        // Names meant what they meant then.
        let answers = plan::answers(&self.store, since, now).await?;
        let (source, in_force) = (source.to_owned(), self.policy.source());
        let compiled = tokio::task::spawn_blocking(move || {
            let in_force = Policy::compile_for_the_past(&in_force, &answers).ok();
            Policy::compile_for_the_past(&source, &answers).map(|policy| (policy, in_force))
        });
        let compiled = compiled.await.map_err(|error| failed(error.to_string()))?;
        let (policy, in_force) = compiled.map_err(|errors| failed(errors.to_string()))?;
        // Before the log: what closes meanwhile is in both, and counts once.
        let flows = self
            .workers
            .list_flows(plan::before(since), MAX_FLOWS_LISTED)
            .await?;
        let question = Question {
            policy,
            in_force,
            since,
            live: Some(plan::live(flows, now)),
        };
        let folder = &self.config.get().flow_log.dir;
        let (plan, read) = plan::run(&self.store, folder, question, |_, _| {})
            .await
            .map_err(|error| failed(error.to_string()))?;
        let open = plan.open_flows.unwrap_or_default();
        Ok(Lost {
            denied: plan.newly_denied.attempts,
            open: open.newly_denied,
            unknown: plan.not_judged.allowed,
            damaged: read.damaged,
            more: open.more,
        })
    }
}

fn lockout(who: &str, flows: &[FlowView]) -> String {
    let mut text = format!("it would cut {} live flows of {who}:", flows.len());
    for flow in flows.iter().take(LISTED) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {} {} -> {}/{}, allowed by {}",
            flow.device, flow.source, flow.destination, flow.protocol, flow.rule
        );
    }
    if flows.len() > LISTED {
        let _ = write!(text, "\n  and {} more", flows.len() - LISTED);
    }
    text
}
