//! Flows that are open since before the time that is looked at.

use super::*;
use crate::live::LiveFlow;

/// ana's SSH, number 7, open since a minute before.
fn ssh() -> LiveFlow {
    LiveFlow {
        opened: Wall(T - 60 * SECOND),
        attempt: Attempt {
            state: State::Live,
            flow: Some(7),
            ..record(&policy(OLD), &ana(), "192.0.2.33:22/tcp", T + 3600 * SECOND)
        },
    }
}

fn with_live(new: &Policy, live: &Live, records: &[Attempt]) -> Plan {
    let mut replay = Replay::new(new, Past::new([row(&ana(), 0)]), Wall(T));
    replay.live(live).expect("facts");
    for record in records {
        replay.attempt(record).expect("facts");
    }
    replay.finish()
}

fn live(flows: Vec<LiveFlow>) -> Live {
    Live { flows, more: false }
}

#[test]
fn an_open_flow_is_one_attempt_of_now() {
    let without = policy(&OLD.replace("[sre]", "[ops]"));
    let plan = with_live(&without, &live(vec![ssh()]), &[]);
    let open = OpenFlows {
        flows: 1,
        newly_denied: 1,
        not_judged: 0,
        more: false,
    };
    assert_eq!(plan.open_flows, Some(open));
    assert_eq!((plan.attempts, plan.newly_denied.attempts), (1, 1));
    let example = &plan.examples[0];
    assert_eq!((example.open, example.was.as_str()), (1, "ssh"));
    assert_eq!(example.time, Wall(T + 3600 * SECOND));

    let kept = with_live(&policy(OLD), &live(vec![ssh()]), &[]);
    assert_eq!((kept.unchanged, kept.breaks()), (1, false));
    assert_eq!(
        replay(&without, Vec::new(), &[]).open_flows,
        None,
        "nobody was asked"
    );
}

#[test]
fn one_that_began_since_or_closes_meanwhile_counts_once() {
    let began_since = LiveFlow {
        opened: Wall(T),
        ..ssh()
    };
    let record = |start| Attempt {
        start,
        state: State::Closed,
        ..ssh().attempt
    };
    let same_number_before = record(Wall(T - 3600 * SECOND));
    let open = Attempt {
        state: State::Open,
        ..record(Wall(T))
    };
    let records = [open, record(ssh().opened), same_number_before];
    let plan = with_live(&policy(OLD), &live(vec![ssh(), began_since]), &records);
    assert_eq!(plan.open_flows.map(|open| open.flows), Some(1));
    assert_eq!(
        plan.attempts, 3,
        "the open one, the one that began since, one of a run before"
    );
}

#[test]
fn one_of_whom_nothing_is_known_may_break() {
    let mut unknown = ssh();
    unknown.attempt.facts = None;
    let asks = policy(&asking("labels: [a=b]"));
    let plan = with_live(&asks, &live(vec![unknown]), &[]);
    assert_eq!(plan.open_flows.map(|open| open.not_judged), Some(1));
    assert_eq!((plan.newly_denied.attempts, plan.may_break()), (0, 1));
}
