//! What gateway.yaml asks of a change before it is in force.

use super::*;

/// The first policy, without ssh and without its tests.
fn narrow() -> String {
    let (rules, _) = FIRST_POLICY.split_once("\ntests:").expect("it has tests");
    let (narrow, _) = rules.split_once("  - name: ssh").expect("it has ssh");
    narrow.to_owned()
}

impl World {
    /// Three of ana's ssh flows are in the log.
    async fn ssh_was_used(&self) {
        let offered = self.records.offer(flow_log::tests::opens(0..3));
        assert_eq!(offered, Ok(()));
        // Its audit line comes after them, and is on disk when this returns.
        self.add("ana", 1).await.expect("added");
    }

    async fn apply(&self, source: &str, reason: Option<&str>) -> Result<Applied, ClientError> {
        let ask = ApplyPolicy {
            source: source.to_owned(),
            confirm_within: reason.is_none().then_some(60),
            with: Force {
                reason: reason.map(str::to_owned),
                ..Force::default()
            },
        };
        self.client.post("/v1/policy/apply", &ask).await
    }
}

#[tokio::test]
async fn a_change_that_denies_more_of_the_past_than_it_may_is_refused() {
    let world = World::with(|config| config.policy_change.max_newly_denied = Some(2)).await;
    world.ssh_was_used().await;
    let before = world.control.policy.status();
    let problem = refused(world.apply(&narrow(), None).await);
    assert!(
        problem.error.contains("deny 3 recorded attempts"),
        "{problem:?}"
    );
    assert!(problem.help.contains("policy plan"), "{problem:?}");
    assert_eq!(world.control.policy.status(), before);
    assert!(world.fake.policies().is_empty(), "no worker heard of it");

    let forced = world.apply(&narrow(), Some("INC-42")).await.expect("done");
    assert_eq!((forced.changed, forced.newly_denied), (true, Some(3)));
    assert_ne!(world.control.policy.status().hash, before.hash);
}

#[tokio::test]
async fn a_change_that_denies_as_much_of_the_past_as_it_may_is_put_in_force() {
    let world = World::with(|config| config.policy_change.max_newly_denied = Some(3)).await;
    world.ssh_was_used().await;
    let applied = world.apply(&narrow(), None).await.expect("done");
    assert_eq!((applied.changed, applied.newly_denied), (true, Some(3)));
    assert_eq!(world.control.policy.status().hash, applied.policy.hash);
}

#[tokio::test]
async fn what_cannot_be_judged_counts_as_denied() {
    let world = World::with(|config| config.policy_change.max_newly_denied = Some(2)).await;
    world.ssh_was_used().await;
    // The records name no facts, so whether this holds nobody can say.
    let (rules, _) = FIRST_POLICY.split_once("\ntests:").expect("it has tests");
    let asks = rules.replace("groups: [sre]", "groups: [sre], labels: [team=infra]");
    let problem = refused(world.apply(&asks, None).await);
    let says = |text: &str| assert!(problem.error.contains(text), "{text}: {problem:?}");
    says("deny 0 recorded attempts");
    says("3 more that were allowed cannot be judged");
    says("takes 2 in all");
    let helps = |text: &str| assert!(problem.help.contains(text), "{text}: {problem:?}");
    helps("shorter --since");
    helps("--force --reason");
    let forced = world.apply(&asks, Some("INC-42")).await.expect("done");
    assert_eq!((forced.newly_denied, forced.not_judged), (Some(0), Some(3)));
}

#[tokio::test]
async fn damaged_lines_count_as_denied() {
    let world = World::with(|config| config.policy_change.max_newly_denied = Some(0)).await;
    world.ssh_was_used().await;
    let files = std::fs::read_dir(&world.config.flow_log.dir).expect("there");
    let mut files = files.map(|file| file.expect("readable").path());
    let log = files.find(|file| file.extension().is_some_and(|end| end == "jsonl"));
    let log = log.expect("a log");
    let text = std::fs::read_to_string(&log).expect("readable");
    // Of one of three; what holds the three together is another matter.
    std::fs::write(&log, text.replacen("\"verdict\"", "\"vordict\"", 1)).expect("written");
    let more = format!("{FIRST_POLICY}# more\n");
    let problem = refused(world.apply(&more, None).await);
    let damaged = "1 lines of the log are damaged";
    assert!(problem.error.contains(damaged), "{problem:?}");
}

#[tokio::test]
async fn open_flows_of_before_count() {
    let world = World::with(|config| config.policy_change.max_newly_denied = Some(0)).await;
    world.add("ana", 1).await.expect("added");
    let noted = world.control.store.facts_at("ana", Clock::now().wall).await;
    let noted = noted.expect("read").expect("noted");
    let flow = FlowView {
        facts: Some(noted.id.to_string()),
        ..flow()
    };
    world.fake.asked().flows = vec![flow];
    let problem = refused(world.apply(&narrow(), None).await);
    let said = "deny 1 recorded attempts of the last week that were allowed (1 of them flows that \
                began before and are open)";
    assert!(problem.error.contains(said), "{problem:?}");
    let more = format!("{FIRST_POLICY}# more\n");
    let applied = world.apply(&more, None).await.expect("done");
    assert_eq!(
        (applied.newly_denied, applied.not_judged),
        (Some(0), Some(0))
    );
}

#[tokio::test]
async fn a_change_without_tests_is_refused_where_tests_are_wanted() {
    let world = World::with(|config| config.policy_change.require_tests = true).await;
    let before = world.control.policy.status().hash.clone();
    let problem = refused(world.apply(&narrow(), Some("INC-42")).await);
    assert!(problem.error.contains("require_tests"), "{problem:?}");
    assert_eq!(world.control.policy.status().hash, before);
    let tested = format!("{FIRST_POLICY}# more\n");
    assert!(world.apply(&tested, None).await.expect("done").changed);
}

#[tokio::test]
async fn nobody_applies_for_good_without_a_name() {
    let world = World::start().await;
    let ask = ApplyPolicy {
        source: format!("{FIRST_POLICY}# more\n"),
        ..ApplyPolicy::default()
    };
    let applied: Result<Applied, ClientError> = world.client.post("/v1/policy/apply", &ask).await;
    let problem = refused(applied);
    assert!(problem.help.contains("--as USER"), "{problem:?}");
    assert!(world.fake.policies().is_empty(), "no worker heard of it");
}

#[tokio::test]
async fn a_rollback_never_goes_to_what_was_taken_back() {
    let world = World::start().await;
    let before = world.control.policy.status().hash.clone();
    let more = format!("{FIRST_POLICY}# more\n");
    assert!(world.apply(&more, None).await.expect("waits").changed);
    let ask = RollBack::default();
    let back: Applied = world
        .client
        .post("/v1/policy/rollback", &ask)
        .await
        .expect("taken back");
    assert_eq!(back.policy.hash, before);
    let again: Result<Applied, ClientError> = world.client.post("/v1/policy/rollback", &ask).await;
    assert!(refused(again).error.contains("no earlier policy"));
    assert_eq!(world.control.policy.status().hash, before);
}
