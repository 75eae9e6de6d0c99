//! Invitations, joining, approval, users, sessions, attributes: over the admin socket, with a
//! worker that only remembers.

use super::*;
use crate::api::{
    ChangeLabels, InvitationView, Invite, Invited, LoginView, SetAttribute, UserView,
};
use crate::device_api::DeviceProblem;
use crate::store::{InvitationState, Kind, MAX_LABELS, Require};
use postern_engine::standing::Held;
use postern_proto::device_api::{
    ErrorCode, JoinAnswer, JoinRequest, RotateRequest, State as Stands,
};
use postern_proto::invitation::Invitation;
use postern_proto::kem::KemSecret;
use postern_proto::keys::PublicKey;

fn personal() -> Invite {
    Invite {
        kind: Kind::Personal,
        user: Some("ana@example.com".into()),
        groups: vec!["sre".into()],
        labels: Vec::new(),
        name: None,
        require: Require::Nothing,
        keys: None,
        uses: None,
        expires_in: 3600,
    }
}

fn open_for(require: Require) -> Invite {
    Invite {
        kind: Kind::Open,
        user: None,
        require,
        keys: Some(2),
        ..personal()
    }
}

fn key(seed: u8) -> PublicKey {
    PrivateKey::from_random([seed; 32]).public()
}

fn wish(seed: u8) -> JoinRequest {
    JoinRequest {
        public_key: key(seed),
        kem_key: None,
        name: Some(format!("laptop-{seed}")),
        facts: Default::default(),
    }
}

impl World {
    async fn invite(&self, invite: &Invite) -> Invited {
        let made = self.client.post("/v1/invitations", invite).await;
        made.expect("made")
    }

    async fn join(
        &self,
        invited: &Invited,
        wish: &JoinRequest,
    ) -> Result<JoinAnswer, DeviceProblem> {
        let told: Invitation = invited.text.parse().expect("own text form");
        let guest = told.secret.key(0).public();
        self.control.join(&guest, None, wish).await
    }

    async fn post(&self, path: &str) -> Result<CutView, ClientError> {
        self.client.post(path, &()).await
    }

    async fn show(&self, name: &str) -> DeviceView {
        let path = format!("/v1/devices/{name}");
        self.client.get(&path).await.expect("there")
    }

    fn last_update(&self) -> crate::worker_api::DeviceRecord {
        self.fake.asked().updated.last().cloned().expect("updated")
    }
}

#[tokio::test]
async fn one_string_makes_one_device() {
    let world = World::start().await;
    let invited = world.invite(&personal()).await;
    let guest = format!("invitation:{}", invited.invitation.id);
    let known = world.fake.asked().devices.clone();
    assert_eq!(known.join(","), guest, "the key is known at once");

    let secret = KemSecret::from_random([5; 64]);
    let request = JoinRequest {
        kem_key: Some(secret.encapsulation_key()),
        ..wish(1)
    };
    let joined = world.join(&invited, &request).await.expect("joined");
    assert_eq!(
        (joined.name.as_str(), joined.state),
        ("laptop-1", Stands::Active)
    );
    assert_eq!(world.fake.asked().devices, [guest, "laptop-1".into()]);
    let agreed = secret.open(joined.kem_ciphertext.as_deref().expect("asked for"));
    let stored = world
        .control
        .store
        .device("laptop-1")
        .await
        .expect("stored");
    let stored = stored.record.preshared_key.expect("stored");
    assert_eq!(
        agreed.expect("a key").0,
        stored.0,
        "both ends have the same"
    );

    let again = world
        .join(&invited, &request)
        .await
        .expect("the answer was lost");
    assert_eq!(again, joined);
    let other = world
        .join(&invited, &wish(2))
        .await
        .expect_err("another key");
    assert_eq!(other.code, ErrorCode::InvitationUsed);
    assert_eq!(world.control.devices().await.expect("list").len(), 1);
    let shown = world.show("laptop-1").await;
    assert_eq!(shown.session.expect("it is a login").method, "invitation");
    assert_eq!(shown.invitation, Some(invited.invitation.id));
}

#[tokio::test]
async fn who_cannot_join_hears_why() {
    let world = World::start().await;
    let invited = world.invite(&personal()).await;
    let path = format!("/v1/invitations/{}/revoke", invited.invitation.id);
    let revoked: InvitationView = world.client.post(&path, &()).await.expect("revoked");
    assert_eq!(revoked.state, InvitationState::Revoked);
    let error = world
        .join(&invited, &wish(1))
        .await
        .expect_err("taken back");
    assert_eq!(error.code, ErrorCode::InvitationRevoked);
    let stranger = world.control.join(&key(77), None, &wish(1)).await;
    assert_eq!(stranger.expect_err("no guest").code, ErrorCode::Forbidden);

    let second = world.invite(&personal()).await;
    world.add("laptop-1", 9).await.expect("added");
    let taken = world.join(&second, &wish(1)).await.expect_err("the name");
    assert_eq!(taken.code, ErrorCode::Taken);
    let taken = world.join(&second, &wish(9)).await.expect_err("the key");
    assert_eq!(taken.code, ErrorCode::Taken);
    assert!(
        !taken.to_string().contains("laptop-1"),
        "whose it is, is not told: {taken}"
    );
    let own = world
        .join(&second, &wish(99))
        .await
        .expect_err("the gateway's");
    assert_eq!(own.code, ErrorCode::Taken);
    let odd = JoinRequest {
        kem_key: Some("AAAA".into()),
        ..wish(2)
    };
    let bad = world.join(&second, &odd).await.expect_err("no ML-KEM key");
    assert_eq!(bad.code, ErrorCode::BadRequest);

    world.fake.asked().refuse = true;
    let full = world.join(&second, &wish(2)).await.expect_err("no room");
    assert_eq!(full.code, ErrorCode::Unavailable);
    world
        .join(&second, &wish(2))
        .await
        .expect("the invitation was not spent");
}

#[tokio::test]
async fn an_approval_is_given_and_withdrawn() {
    let world = World::start().await;
    let invited = world.invite(&open_for(Require::Approval)).await;
    let joined = world.join(&invited, &wish(1)).await.expect("joined");
    assert_eq!(joined.state, Stands::WaitsForApproval);
    world
        .post("/v1/devices/laptop-1/approve")
        .await
        .expect("approved");
    assert_eq!(world.last_update().standing.held, None);
    assert_eq!(world.fake.asked().told, 1, "its client need not wait");
    let cut = world
        .post("/v1/devices/laptop-1/deny")
        .await
        .expect("denied");
    assert_eq!(
        (cut.flows, world.last_update().standing.held),
        (7, Some(Held::Approval))
    );
    assert_eq!(world.show("laptop-1").await.state, DeviceState::Denied);
    assert!(
        refused(world.post("/v1/devices/eve/approve").await)
            .error
            .contains("eve")
    );
}

#[tokio::test]
async fn require_approval_holds_every_device_that_joins() {
    let world = World::start().await;
    let mut text = std::fs::read_to_string(&world.config.path).expect("there");
    text.push_str("\nrequire_approval: true\n");
    std::fs::write(&world.config.path, text).expect("written");
    world.control.config.reload();
    let invited = world.invite(&personal()).await;
    let joined = world.join(&invited, &wish(1)).await.expect("joined");
    assert_eq!(joined.state, Stands::WaitsForApproval);
}

#[tokio::test]
async fn a_disabled_user_loses_every_device_at_once() {
    let world = World::start().await;
    for (name, seed) in [("one", 1), ("two", 2)] {
        world.add(name, seed).await.expect("added");
    }
    let cut = world.post("/v1/users/ana@example.com/disable").await;
    assert_eq!(cut.expect("disabled").flows, 14);
    for record in &world.fake.asked().updated {
        assert_eq!(record.standing.held, Some(Held::UserDisabled));
    }
    let users: Vec<UserView> = world.client.get("/v1/users").await.expect("list");
    assert!(
        users[0].disabled.is_some() && users[0].devices == 2,
        "{users:?}"
    );
    world
        .post("/v1/users/ana@example.com/enable")
        .await
        .expect("enabled");
    assert_eq!(world.last_update().standing.held, None);
    let nobody = refused(world.post("/v1/users/eve/disable").await);
    assert!(nobody.help.contains("user list"), "{nobody:?}");
}

#[tokio::test]
async fn a_session_ends_when_an_admin_says_so() {
    let world = World::start().await;
    let invited = world.invite(&personal()).await;
    world.join(&invited, &wish(1)).await.expect("joined");
    let sessions: Vec<LoginView> = world.client.get("/v1/sessions").await.expect("list");
    let [session] = &sessions[..] else {
        panic!("{sessions:?}")
    };
    let path = format!("/v1/sessions/{}/revoke", session.id);
    assert_eq!(world.post(&path).await.expect("ended").flows, 7);
    assert_eq!(world.last_update().standing.session, None);
    let now: Vec<LoginView> = world.client.get("/v1/sessions").await.expect("list");
    let all: Vec<LoginView> = world
        .client
        .get("/v1/sessions?all=true")
        .await
        .expect("list");
    assert_eq!((now.len(), all.len()), (0, 1));
    assert_eq!(all[0].end_reason.as_deref(), Some("admin"));
}

#[tokio::test]
async fn an_attribute_reaches_the_data_plane_and_leaves_it() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    let set = SetAttribute {
        value: "yes".into(),
        expires_in: Some(60),
    };
    let path = "/v1/devices/ana/attributes/managed";
    let _: CutView = world.client.post(path, &set).await.expect("set");
    assert_eq!(
        world.last_update().standing.attributes["managed"].value,
        "yes"
    );
    assert_eq!(world.show("ana").await.attributes[0].value, "yes");
    world.post(&format!("{path}/unset")).await.expect("unset");
    assert!(world.last_update().standing.attributes.is_empty());
    assert!(
        refused(world.post(&format!("{path}/unset")).await)
            .error
            .contains("managed")
    );
}

#[tokio::test]
async fn labels_reach_the_data_plane_and_change_as_one() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    let change = |set: &[&str], unset: &[&str]| {
        let words = |from: &[&str]| from.iter().map(|&word| word.to_owned()).collect();
        let wanted = ChangeLabels {
            set: words(set),
            unset: words(unset),
        };
        let client = &world.client;
        async move {
            let path = "/v1/devices/ana/labels";
            client.post::<CutView>(path, &wanted).await
        }
    };
    change(&["team=infra", "env=dev"], &[]).await.expect("set");
    change(&["env=prod"], &[]).await.expect("another value");
    let labels = world.last_update().standing.labels;
    assert_eq!(labels, ["env=prod", "team=infra"]);
    assert_eq!(world.show("ana").await.labels, labels);

    for (set, unset) in [
        (&["env"] as &[&str], &[] as &[&str]),
        (&["env="], &[]),
        (&["two words=x"], &[]),
        (&["a=1", "a=2"], &[]),
        (&["a=1"], &["nothing"]),
        (&["a=1"], &["env=dev"]),
        (&[], &[]),
    ] {
        change(set, unset).await.expect_err("refused");
        assert_eq!(world.show("ana").await.labels, labels, "{set:?} {unset:?}");
    }
    let many: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k{n}=v")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    change(&many, &[]).await.expect_err("too many");

    change(&[], &["env", "team=infra"]).await.expect("unset");
    assert!(world.last_update().standing.labels.is_empty());
}

#[tokio::test]
async fn who_joins_by_an_invitation_has_its_labels() {
    let world = World::start().await;
    let invited = world
        .invite(&Invite {
            labels: vec!["env=prod".into()],
            ..personal()
        })
        .await;
    assert_eq!(invited.invitation.labels, ["env=prod"]);
    world.join(&invited, &wish(1)).await.expect("joined");
    assert_eq!(world.show("laptop-1").await.labels, ["env=prod"]);
}

#[tokio::test]
async fn an_invitation_that_gives_too_much_or_nothing_is_refused() {
    let world = World::start().await;
    let nobody = Invite {
        user: None,
        ..personal()
    };
    let named = Invite {
        name: Some("x".into()),
        ..open_for(Require::Login)
    };
    let pool = Invite {
        keys: Some(257),
        ..open_for(Require::Login)
    };
    let for_ever = Invite {
        expires_in: u64::MAX,
        ..personal()
    };
    let machine = Invite {
        kind: Kind::Machine,
        ..nobody.clone()
    };
    for bad in [
        nobody,
        named,
        pool,
        for_ever,
        machine,
        open_for(Require::Nothing),
    ] {
        let error = refused(world.client.post::<Invited>("/v1/invitations", &bad).await);
        assert!(!error.help.is_empty(), "{bad:?}");
    }
    assert!(world.fake.asked().devices.is_empty());
    let list: Vec<InvitationView> = world.client.get("/v1/invitations").await.expect("list");
    assert_eq!(list, []);
}

#[tokio::test]
async fn the_same_request_twice_at_once_is_one_device() {
    let world = World::start().await;
    let invited = world.invite(&personal()).await;
    let request = wish(1);
    let (one, two) = tokio::join!(
        world.join(&invited, &request),
        world.join(&invited, &request)
    );
    assert_eq!(one.expect("joined"), two.expect("the same answer"));
    assert_eq!(world.show("laptop-1").await.state, DeviceState::Active);
    let other = world.join(&invited, &wish(2)).await;
    let other = other.expect_err("it is spent");
    assert_eq!(other.code, ErrorCode::InvitationUsed);
}

/// The request for the lost answer is under way, and waits, while the device is revoked.
#[tokio::test]
#[allow(
    clippy::await_holding_lock,
    reason = "the worker, a thread, is to stand still"
)]
async fn a_lost_answer_told_again_brings_no_revoked_device_back() {
    let world = World::start().await;
    let invited = world.invite(&personal()).await;
    let request = wish(1);
    world.join(&invited, &request).await.expect("joined");
    let busy = world.fake.asked();
    let (first, revoked, again, ()) = tokio::join!(
        world.control.approve_device("laptop-1"),
        world.control.revoke_device("laptop-1"),
        world.join(&invited, &request),
        async {
            // One connection serves all in turn, so the others have come as far as they can.
            for _ in 0..50 {
                world.control.store.count_active().await.expect("counted");
            }
            drop(busy);
        }
    );
    first.expect("approved");
    revoked.expect("revoked");
    let again = again.expect_err("it is gone");
    assert_eq!(again.code, ErrorCode::InvitationRevoked);
    let known = world.fake.asked().added.clone();
    assert!(known.iter().all(|device| device.name != "laptop-1"));
}

#[tokio::test]
async fn a_device_added_by_hand_stands_as_its_user_does() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    let disable = "/v1/users/ana@example.com/disable";
    world.post(disable).await.expect("disabled");
    world.add("ana-2", 2).await.expect("added");
    let added = world.fake.asked().added.last().cloned().expect("added");
    assert_eq!(added.standing.held, Some(Held::UserDisabled));
}

#[tokio::test]
async fn a_next_key_that_is_refused_takes_the_one_before_from_nobody() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    let request = |seed| RotateRequest {
        public_key: key(seed),
        kem_key: None,
    };
    let accepted = world.control.rotate("ana", None, &request(2)).await;
    accepted.expect("accepted");
    world.fake.asked().refuse = true;
    let refused = world.control.rotate("ana", None, &request(3)).await;
    let refused = refused.expect_err("the worker has another key in force");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    // What the worker had seen by then.
    world.control.rotated(&key(1), &key(2)).await;
    assert_eq!(world.show("ana").await.public_key, key(2));
}
