use super::*;
use crate::config::Config;
use crate::fake_worker::FakeWorker;
use crate::init::{FIRST_POLICY, init};
use crate::scratch::Scratch;
use crate::store::Pending;
use std::os::unix::fs::PermissionsExt;

/// A gateway's folder with the first policy, and a keeper with a fake data plane.
struct World {
    folder: Scratch,
    config: Config,
    store: Store,
    keeper: PolicyKeeper,
    fake: FakeWorker,
}

impl World {
    async fn start() -> World {
        let folder = Scratch::new();
        let config = init(&folder.path("gw"), None).expect("made");
        World::again(folder, config).await
    }

    /// The gateway starts again.
    async fn restart(self) -> World {
        self.store.close().await;
        World::again(self.folder, self.config).await
    }

    async fn again(folder: Scratch, config: Config) -> World {
        let store = Store::open(&config.store_path(), config.pool).await;
        let store = store.expect("opens");
        let (workers, fake) = FakeWorker::start();
        let begun = begin(&config, &store, Clock::now().wall).await;
        let live = LiveConfig::new(config.clone());
        let begun = begun.expect("a policy to start with");
        World {
            folder,
            config,
            keeper: PolicyKeeper::new(begun, live, store.clone(), workers),
            store,
            fake,
        }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.config.policy, text).expect("written");
    }

    fn file(&self) -> String {
        std::fs::read_to_string(&self.config.policy).expect("there")
    }

    async fn apply(&self, text: &str, within: Option<u64>) -> Result<Changed, ChangeError> {
        let change = Change {
            policy: self.keeper.prepare(text).await.expect("a good policy"),
            source: text.to_owned(),
            how: How::Apply,
            made_by: "ana".to_owned(),
            reason: None,
            confirm_within: within.map(Duration::from_secs),
        };
        self.keeper.change(change).await
    }

    async fn history(&self) -> Vec<(How, String)> {
        let changes = self.store.policy_changes().await.expect("read");
        let changes = changes.into_iter().map(|one| one.change);
        changes.map(|one| (one.how, one.hash)).collect()
    }

    fn in_force(&self) -> String {
        let hash = self.keeper.status().hash.clone();
        assert_eq!(hash, self.keeper.current().hash().full());
        assert_eq!(hash, file::hash(&self.keeper.source()));
        hash
    }
}

/// Another good policy.
fn other(word: &str) -> String {
    format!("{FIRST_POLICY}\n# {word}\n")
}

#[tokio::test]
async fn a_good_change_is_put_in_force_once() {
    let world = World::start().await;
    let before = world.keeper.status();
    assert!(before.file_in_force);
    assert!(!world.keeper.reload().await.changed, "nothing new");
    world.write(&other("a word"));
    let after = world.keeper.reload().await;
    assert!(after.changed && after.policy.ok && after.policy.file_in_force);
    assert_eq!(after.cut, 7, "as the worker says");
    assert_eq!((before.generation, after.policy.generation), (1, 2));
    assert_ne!(before.hash, after.policy.hash);
    assert_eq!(world.fake.policies(), [world.in_force()]);
    let history = [
        (How::File, after.policy.hash.clone()),
        (How::Start, before.hash.clone()),
    ];
    assert_eq!(world.history().await, history);
    let world = world.restart().await;
    assert_eq!(world.history().await, history, "a start is no change");
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_policy_and_says_why() {
    let world = World::start().await;
    let before = world.keeper.status();
    let failing = "tests:\n  - { user: x, to: \"192.0.2.99:1/tcp\", expect: allow }\n";
    let kept: String = FIRST_POLICY
        .lines()
        .take_while(|line| !line.starts_with("tests:"))
        .fold(String::new(), |text, line| text + line + "\n");
    for bad in [
        "rules: [",
        "version: 1\nruels: []\n",
        &format!("{kept}{failing}"),
    ] {
        world.write(bad);
        let after = world.keeper.reload().await;
        assert!(
            !after.changed && !after.policy.ok && !after.policy.errors.is_empty(),
            "{bad}"
        );
        assert!(!after.policy.file_in_force);
        assert_eq!(after.policy.hash, before.hash, "{bad}");
    }
    std::fs::remove_file(&world.config.policy).expect("removed");
    let after = world.keeper.reload().await;
    assert!(after.policy.errors[0].contains("cannot be read"));
    assert!(world.fake.policies().is_empty(), "the worker never saw one");
    assert_eq!(world.keeper.status().reloads_failed, 4);

    world.write(FIRST_POLICY);
    let after = world.keeper.reload().await;
    assert!(after.policy.ok, "and it ends when the file is good again");
}

#[tokio::test]
async fn a_broken_file_at_the_start_falls_back_on_the_last_good_one() {
    let world = World::start().await;
    let good = world.in_force();
    world.write("rules: [");
    let world = world.restart().await;
    assert_eq!(world.in_force(), good);
    assert!(!world.keeper.reload().await.policy.ok, "and it is loud");

    let folder = Scratch::new();
    let config = init(&folder.path("gw"), None).expect("made");
    std::fs::write(&config.policy, "rules: [").expect("written");
    let store = Store::open(&config.store_path(), config.pool).await;
    let begun = begin(&config, &store.expect("opens"), Clock::now().wall).await;
    assert!(begun.is_err(), "there is no last one yet");
}

#[tokio::test]
async fn the_watch_sees_a_change_by_itself() {
    let world = World::start().await;
    let changed = async {
        let fresh = world.folder.path("new.yaml");
        std::fs::write(&fresh, other("a word")).expect("written");
        std::fs::rename(&fresh, &world.config.policy).expect("renamed");
        while world.fake.policies().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = world.keeper.watch() => unreachable!("never returns"),
        () = changed => {}
    }
}

#[tokio::test]
async fn an_applied_policy_is_in_the_file_as_well() {
    let world = World::start().await;
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&world.config.policy, mode).expect("chmod");
    let before = world.in_force();
    let done = world.apply(&other("new"), None).await.expect("applied");
    assert!(done.changed && done.token.is_none());
    assert_eq!((done.previous, done.cut), (before, 7));
    assert_eq!(world.file(), other("new"));
    let file = std::fs::metadata(&world.config.policy).expect("there");
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
    assert!(!world.keeper.reload().await.changed, "they agree");
    let again = world.apply(&other("new"), Some(60)).await.expect("no news");
    assert!(
        !again.changed && again.token.is_none(),
        "nothing to confirm"
    );
    assert_eq!(world.history().await[0], (How::Apply, world.in_force()));
}

#[tokio::test]
async fn a_change_waits_for_its_token_and_keeps_others_out() {
    let world = World::start().await;
    let done = world.apply(&other("new"), Some(60)).await.expect("applied");
    let token = done.token.expect("printed once");
    assert!(world.keeper.status().pending.is_some());
    let second = world.apply(&other("newer"), None).await;
    assert!(matches!(second, Err(ChangeError::Waits(_))));

    world.write(&other("edited"));
    let edit = world.keeper.reload().await;
    assert!(!edit.changed && !edit.policy.ok && !edit.policy.file_in_force);
    assert!(edit.policy.errors[0].contains("waits for its confirmation"));

    for _ in 0..CONFIRM_TRIES {
        let wrong = world.keeper.confirm(Some("xxxx"), Some("eve")).await;
        assert!(matches!(wrong, Err(ChangeError::WrongToken)));
    }
    let wrong = world.keeper.confirm(Some(&token), Some("eve")).await;
    assert!(
        matches!(wrong, Err(ChangeError::TooManyTries)),
        "even the right one"
    );
    let typed = token.to_uppercase().replace('-', "");
    let right = world.keeper.confirm(Some(&typed), Some("ana")).await;
    assert_eq!(right.expect("confirmed").previous, done.previous);
    let edited = file::hash(&other("edited"));
    assert_eq!(world.in_force(), edited, "the edit counts now");
    let again = world.keeper.confirm(Some(&token), Some("ana")).await;
    assert!(matches!(again, Err(ChangeError::NothingWaits)));
    assert!(world.keeper.status().pending.is_none());
    let world = world.restart().await;
    assert_eq!(world.in_force(), edited);
}

#[tokio::test]
async fn what_nobody_confirms_comes_back_by_itself_and_an_edit_is_set_aside() {
    let world = World::start().await;
    let before = world.in_force();
    world.apply(&other("new"), Some(0)).await.expect("applied");
    world.write(&other("edited"));
    world.keeper.tick().await;
    assert_eq!(world.in_force(), before);
    assert_eq!(world.file(), FIRST_POLICY);
    let status = world.keeper.status();
    assert!(status.file_in_force && status.ok && status.pending.is_none());
    let aside = world.config.policy.with_file_name("policy.yaml.edited");
    assert_eq!(
        std::fs::read_to_string(aside).expect("kept"),
        other("edited")
    );
    assert_eq!(world.history().await[0], (How::Revert, before));
    assert_eq!(world.store.pending().await.expect("read"), None);
}

#[tokio::test]
async fn a_change_is_taken_back_before_its_time() {
    let world = World::start().await;
    let before = world.in_force();
    let nothing = world.keeper.take_back("ana".to_owned(), None).await;
    assert!(matches!(nothing, Err(ChangeError::NothingWaits)));
    world.apply(&other("new"), Some(60)).await.expect("applied");
    let (was, cut) = world
        .keeper
        .take_back("ana".to_owned(), None)
        .await
        .expect("taken back");
    assert_eq!((was.previous, cut), (before.clone(), 7));
    assert_eq!(
        (world.in_force(), world.file()),
        (before.clone(), FIRST_POLICY.to_owned())
    );
    assert_eq!(world.history().await[0], (How::Rollback, before));
}

#[tokio::test]
async fn a_restart_goes_on_with_a_change_that_waits_and_ends_an_overdue_one() {
    let world = World::start().await;
    let before = world.in_force();
    let done = world
        .apply(&other("new"), Some(3600))
        .await
        .expect("applied");
    let new = world.in_force();
    let world = world.restart().await;
    assert_eq!(world.in_force(), new);
    assert!(world.keeper.status().pending.is_some());
    world
        .store
        .expire_pending(Clock::now().wall)
        .await
        .expect("set");

    let world = world.restart().await;
    assert_eq!(world.in_force(), before);
    assert_eq!(world.history().await[0], (How::Revert, before.clone()));
    assert!(!world.keeper.reload().await.changed, "the file is no edit");
    world.keeper.tick().await;
    assert_eq!(world.file(), FIRST_POLICY);
    assert!(world.keeper.status().file_in_force);
    let token = done.token.expect("printed");
    let late = world.keeper.confirm(Some(&token), None).await;
    assert!(matches!(late, Err(ChangeError::NothingWaits)));
    let world = world.restart().await;
    assert_eq!(world.in_force(), before);
}

/// What a crash leaves after each step of `apply --confirm-within` and of the way back.
#[tokio::test]
async fn a_crash_leaves_the_old_policy_or_the_new_one_with_its_deadline() {
    let (old, new) = (file::hash(FIRST_POLICY), file::hash(&other("new")));
    let now = Clock::now().wall;
    let pending = |deadline| Pending {
        hash: new.clone(),
        previous: old.clone(),
        deadline,
        token: String::new(),
        made_by: "ana".to_owned(),
    };
    let (late, soon) = (now, now + Duration::from_secs(3600));
    for (deadline, text, starts_with, waits) in [
        (soon, FIRST_POLICY.to_owned(), &old, false),
        (soon, other("new"), &new, true),
        (late, other("new"), &old, false),
        (late, FIRST_POLICY.to_owned(), &old, false),
        (late, other("edited"), &old, false),
    ] {
        let world = World::start().await;
        let row = pending(deadline);
        let begun = world.store.begin_pending(&row, &other("new"), now).await;
        begun.expect("begun");
        world.write(&text);
        let world = world.restart().await;
        assert_eq!(&world.in_force(), starts_with, "{text}");
        assert_eq!(world.keeper.status().pending.is_some(), waits, "{text}");
        if text == other("edited") {
            // The watch may look before the time does.
            assert!(!world.keeper.reload().await.changed);
            assert_eq!(&world.in_force(), starts_with, "an edit that was refused");
        }
        world.keeper.tick().await;
        assert_eq!(&world.in_force(), starts_with, "{text}");
        assert!(world.keeper.status().file_in_force, "{text}");
        let left = world.store.pending().await.expect("read");
        assert_eq!(left.is_some(), waits, "{text}");
    }
}

#[tokio::test]
async fn where_the_file_cannot_be_written_nothing_is_applied_and_a_way_back_is_loud() {
    let world = World::start().await;
    let before = world.in_force();
    // A folder stands where the new file would be written: nobody's rights matter.
    let blocked = world.config.policy.with_file_name("policy.yaml.new");
    std::fs::create_dir(&blocked).expect("made");
    for within in [None, Some(60)] {
        let refused = world.apply(&other("new"), within).await;
        assert!(matches!(refused, Err(ChangeError::Unwritable(_))));
        assert_eq!(
            (world.in_force(), world.file()),
            (before.clone(), FIRST_POLICY.to_owned())
        );
        assert_eq!(world.store.pending().await.expect("read"), None);
    }
    assert!(world.fake.policies().is_empty());

    std::fs::remove_dir(&blocked).expect("removed");
    world.apply(&other("new"), Some(0)).await.expect("applied");
    std::fs::create_dir(&blocked).expect("made");
    world.keeper.tick().await;
    let status = world.keeper.status();
    assert_eq!(world.in_force(), before, "access comes back first");
    assert!(
        !status.file_in_force && status.unwritten.is_some(),
        "{status:?}"
    );
    assert!(
        !world.keeper.reload().await.changed,
        "the file is not believed"
    );
    let world = world.restart().await;
    assert_eq!(world.in_force(), before, "nor by the next start");
    std::fs::remove_dir(&blocked).expect("removed");
    world.keeper.tick().await;
    let status = world.keeper.status();
    assert!(status.file_in_force && status.unwritten.is_none());
    assert_eq!(world.file(), FIRST_POLICY);
}

#[tokio::test]
async fn without_a_watch_an_edit_only_differs() {
    let mut world = World::start().await;
    world.config.policy_change.watch = false;
    let before = world.in_force();
    let world = world.restart().await;
    world.write(&other("edited"));
    let looked = world.keeper.reload().await;
    assert!(!looked.changed && looked.policy.ok && !looked.policy.file_in_force);
    let world = world.restart().await;
    assert_eq!(world.in_force(), before, "a restart smuggles nothing in");
    world.apply(&other("edited"), None).await.expect("applied");
    assert!(world.keeper.status().file_in_force);
    let world = world.restart().await;
    assert_ne!(world.in_force(), before);
}

#[tokio::test]
async fn a_policy_without_tests_is_refused_where_tests_are_wanted() {
    let mut world = World::start().await;
    world.config.policy_change.require_tests = true;
    let world = world.restart().await;
    let (untested, _) = FIRST_POLICY.split_once("\ntests:").expect("it has tests");
    world.write(untested);
    let refused = world.keeper.reload().await;
    assert!(
        refused.policy.errors[0].contains("require_tests"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_worker_that_gives_no_answer_is_asked_until_it_does() {
    let world = World::start().await;
    let before = world.in_force();
    // Neither to the new policy nor to the old one.
    world.fake.asked().mute = 2;
    let refused = world.apply(&other("new"), None).await;
    assert!(matches!(refused, Err(ChangeError::NotInForce(_))));
    assert_eq!(world.in_force(), before);
    assert_eq!(world.file(), FIRST_POLICY);
    let new = file::hash(&other("new"));
    assert_eq!(world.fake.policies(), [new.clone(), before.clone()]);
    world.keeper.tick().await;
    world.keeper.tick().await;
    let asked = [new, before.clone(), before];
    assert_eq!(world.fake.policies(), asked, "once more, and no more");
}

#[tokio::test]
async fn the_way_back_waits_for_no_worker() {
    let world = World::start().await;
    let before = world.in_force();
    world.apply(&other("new"), Some(0)).await.expect("applied");
    world.fake.asked().mute = 1;
    world.keeper.tick().await;
    assert_eq!(world.in_force(), before);
    let pushed = world.fake.policies();
    assert_eq!(pushed[1..], [before.clone(), before]);
}

#[tokio::test]
async fn a_change_that_cannot_come_back_can_be_kept_or_replaced() {
    for kept in [true, false] {
        let world = World::start().await;
        // What it would come back to is not kept.
        let row = Pending {
            hash: file::hash(&other("new")),
            previous: "0".repeat(64),
            deadline: Clock::now().wall + Duration::from_secs(3600),
            token: String::new(),
            made_by: "ana".to_owned(),
        };
        let now = Clock::now().wall;
        let begun = world.store.begin_pending(&row, &other("new"), now).await;
        begun.expect("begun");
        world.write(&other("new"));
        let world = world.restart().await;
        let new = world.in_force();
        assert_eq!(new, row.hash);
        let refused = world.keeper.take_back("ana".to_owned(), None).await;
        assert!(matches!(refused, Err(ChangeError::Unknown(_))));
        assert!(world.keeper.is_stuck().await);
        if kept {
            world.keeper.confirm(None, None).await.expect("kept");
            assert_eq!(world.in_force(), new);
        } else {
            let done = world.apply(&other("newer"), None).await.expect("applied");
            assert_eq!(done.previous, new);
        }
        assert!(world.keeper.status().pending.is_none());
        assert_eq!(world.store.pending().await.expect("read"), None);
    }
}

#[tokio::test]
async fn an_edit_that_is_overwritten_is_set_aside_and_so_is_the_next() {
    let world = World::start().await;
    for (edit, new) in [("one", "a"), ("two", "b"), ("two", "c")] {
        world.write(&other(edit));
        world.apply(&other(new), None).await.expect("applied");
    }
    let aside = |ending: &str| {
        let path = world
            .config
            .policy
            .with_file_name(format!("policy.yaml.{ending}"));
        std::fs::read_to_string(path).ok()
    };
    assert_eq!(aside("edited"), Some(other("one")));
    assert_eq!(aside("edited.2"), Some(other("two")));
    assert_eq!(aside("edited.3"), None, "it is kept already");
}

#[tokio::test]
async fn no_token_is_in_a_log() {
    let world = World::start().await;
    let done = world.apply(&other("new"), Some(60)).await.expect("applied");
    let token = done.token.clone().expect("printed once");
    assert!(!format!("{done:?}").contains(&token));
}
