//! Attempts of which too little is known.

use super::*;

#[test]
fn where_a_device_was_is_unknown_if_privacy_took_it() {
    let by_place = policy(&asking("outer: [198.51.100.0/24]"));
    let used = [record(&policy(OLD), &ana(), "192.0.2.33:22/tcp", T)];
    let rows = || vec![row(&ana(), T)];
    let plan = replay(&by_place, rows(), &used);
    assert_eq!(
        (plan.newly_denied.attempts, plan.not_judged.unknown),
        (0, 1)
    );
    // The policy in force asks the same, so that nothing changes.
    let plan = instead(&by_place, &by_place, rows(), &used);
    assert_eq!((plan.not_judged.unknown, plan.not_judged.alike), (0, 1));
    assert_eq!((plan.not_judged.allowed, plan.may_break()), (1, 1));
}

#[test]
fn only_what_was_allowed_may_break() {
    let (old, ana) = (policy(OLD), ana());
    let nobody = |to| Attempt {
        user: None,
        device: None,
        groups: Vec::new(),
        facts: None,
        count: 5,
        ..record(&old, &ana, to, T)
    };
    let used = nobody("192.0.2.33:22/tcp");
    let scan = Attempt {
        to: None,
        ..nobody("192.0.2.99:22/tcp")
    };
    let attempts = [used, nobody("192.0.2.99:22/tcp"), scan];
    let plan = replay(&old, Vec::new(), &attempts);
    let not = &plan.not_judged;
    assert_eq!((not.unknown, not.scans, not.allowed), (10, 5, 5));
    assert_eq!((plan.newly_denied.attempts, plan.may_break()), (0, 5));
}

#[test]
fn who_logged_in_is_no_machine() {
    let (old, ana) = (policy(OLD), ana());
    let machines = policy(&OLD.replace("groups: [sre]", "machines: any"));
    let denied = record(&machines, &ana, "192.0.2.33:22/tcp", T);
    let dropped = |session_age| Attempt {
        user: None,
        facts: None,
        session_age,
        ..denied.clone()
    };
    let plan = replay(
        &machines,
        Vec::new(),
        &[dropped(Some(Duration::from_secs(60)))],
    );
    assert_eq!((plan.newly_allowed.attempts, plan.unchanged), (0, 1));
    let plan = replay(&machines, Vec::new(), &[dropped(None)]);
    assert_eq!(plan.newly_allowed.attempts, 1);
    // Which user it was is not known.
    let by_user = policy(&OLD.replace("groups: [sre]", "users: [ana]"));
    let used = Attempt {
        user: None,
        facts: None,
        issuer: Some("https://login.example.net".to_owned()),
        ..record(&old, &ana, "192.0.2.33:22/tcp", T)
    };
    assert_eq!(replay(&by_user, Vec::new(), &[used]).not_judged.unknown, 1);
}

#[test]
fn what_the_same_rule_asks_may_have_held() {
    let (old, ana) = (policy(OLD), ana());
    let bare = Attempt {
        facts: None,
        ..record(&old, &ana, "192.0.2.33:22/tcp", T)
    };
    // The nearest rule lacks a group alone, which is known.
    let nearer = "  - { name: nearer, action: allow, from: { groups: [ops] }, to: { addresses: [192.0.2.33], ports: [22/tcp] } }\n";
    let asks = |from: &str| {
        let text = OLD.replace("from: { groups: [sre] }", from);
        let text = text.replacen("rules:\n", &format!("rules:\n{nearer}"), 1);
        replay(&policy(&text), Vec::new(), std::slice::from_ref(&bare))
    };
    let plan = asks("from: { groups: [sre], labels: [team=infra], amr: [mfa] }");
    assert_eq!(
        (plan.not_judged.unknown, plan.newly_denied.attempts),
        (1, 0)
    );
    let plan = asks("from: { groups: [leads], labels: [team=infra], amr: [mfa] }");
    assert_eq!(
        (plan.not_judged.unknown, plan.newly_denied.attempts),
        (0, 1)
    );
}
