//! Live flows in the words of the past.

use crate::api::{FlowFilter, FlowView, MAX_FLOWS_LISTED};
use postern_history::attempt::State;
use postern_history::{Attempt, Live, LiveFlow};
use postern_proto::now::Wall;

/// What to ask the gateway for: the flows that began before `since`.
#[must_use]
pub fn before(since: Wall) -> FlowFilter {
    FlowFilter {
        // Rounded up: whoever judges them looks closer.
        opened_before: Some(since.millis().saturating_add(1)),
        ..FlowFilter::default()
    }
}

/// Its answer, each flow as one attempt of `now`.
#[must_use]
pub fn live(flows: Vec<FlowView>, now: Wall) -> Live {
    Live {
        more: flows.len() >= MAX_FLOWS_LISTED,
        flows: flows.into_iter().map(|flow| of(flow, now)).collect(),
    }
}

fn of(flow: FlowView, now: Wall) -> LiveFlow {
    let to = flow.to();
    LiveFlow {
        opened: Wall(flow.opened_ms.saturating_mul(1_000_000)),
        attempt: Attempt {
            start: now,
            state: State::Live,
            allow: true,
            rule: flow.rule,
            policy: String::new(),
            user: flow.user,
            groups: Vec::new(),
            device: Some(flow.device),
            facts: flow.facts,
            issuer: None,
            session_age: None,
            outer: flow.outer,
            to: Some(to),
            ports: Vec::new(),
            count: 1,
            deny_reason: None,
            flow: Some(flow.id),
            resumed: false,
            boot: String::new(),
            seq: (0, 0),
        },
    }
}
