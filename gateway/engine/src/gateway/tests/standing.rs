use super::*;
use crate::record::Denied;
use crate::standing::{Held, Reported, Session, Standing};
use postern_proto::device_api;
use postern_proto::facts::Facts;

const SECOND: u64 = 1_000_000_000;

fn held(held: Held) -> Standing {
    Standing {
        held: Some(held),
        ..Standing::default()
    }
}

/// A login of a minute ago that ends in an hour.
pub(super) fn login(world: &World) -> Session {
    Session {
        id: "s1".into(),
        method: "oidc".into(),
        issuer: Some("https://idp.example.com".into()),
        amr: Vec::new(),
        acr: None,
        since: Wall(world.now.wall.0 - 60 * SECOND),
        until: Some(Wall(world.now.wall.0 + 3600 * SECOND)),
    }
}

/// A laptop of `platform` with a login, which it needs.
fn with_login(change: impl FnOnce(&mut Session)) -> World {
    let mut world = World::new(&[]);
    let mut session = login(&world);
    change(&mut session);
    world.enrol(|device| {
        device.groups = vec!["platform".to_owned()];
        device.standing.session_required = true;
        device.standing.session = Some(session);
    });
    world
}

/// Other facts about a device; what each side hears of it at once.
pub(super) fn update(
    world: &mut World,
    laptop: usize,
    change: impl FnOnce(&mut Device),
) -> (u64, Vec<Vec<u8>>) {
    let key = *world.laptops[laptop].peers.our_key();
    let peer = world.gateway.find_device(&key).expect("known");
    let state = world.gateway.devices().get(peer).expect("known");
    let mut device = state.device.clone();
    device.key = key;
    change(&mut device);
    let (mut outs, now) = (Outs::default(), world.now);
    world.target.clear();
    let cut = world
        .gateway
        .update_device(device, now.mono, &mut outs, now);
    world.target.append(&mut outs.packets);
    (cut.flows, world.laptops_take(outs, &mut Outs::default()))
}

pub(super) fn last_closed(world: &mut World) -> (Record, CloseReason, Option<String>) {
    let record = world.records().pop().expect("a record");
    let Detail::Closed(closed) = &record.detail else {
        panic!("{record:?}")
    };
    let words = closed.failed_condition.as_ref().map(ToString::to_string);
    (record.clone(), closed.close_reason, words)
}

fn last_denied(world: &mut World) -> (Record, Denied) {
    let record = world.records().pop().expect("a record");
    let Detail::Denied(denied) = &record.detail else {
        panic!("{record:?}")
    };
    (record.clone(), denied.clone())
}

#[test]
fn a_held_device_reaches_no_target_whatever_the_policy_says_and_is_told_why() {
    for (standing, reason, words) in [
        (
            held(Held::Approval),
            DropReason::NotApproved,
            "postern-gateway device approve laptop0",
        ),
        (
            held(Held::Login),
            DropReason::LoginRequired,
            "postern login",
        ),
        (
            held(Held::UserDisabled),
            DropReason::UserDisabled,
            "postern-gateway user enable user0",
        ),
        (
            Standing {
                session_required: true,
                ..Standing::default()
            },
            DropReason::LoginRequired,
            "postern login",
        ),
    ] {
        let mut world = World::new(&["platform"]);
        update(&mut world, 0, |device| device.standing = standing);
        for flags_of_segment in [SYN, ACK] {
            let answers = world.send(0, &tcp(flags_of_segment, LAPTOP, KUBE, 100, 0));
            assert!(flags(&answers[0]).has(TcpFlags::RST));
        }
        world.reply(&tcp(ACK, KUBE, LAPTOP, 1, 1));
        world.send(0, &udp(LAPTOP, ("192.0.2.53", 53)));
        assert!(
            world
                .target
                .iter()
                .all(|packet| flags(packet).has(TcpFlags::RST)),
            "{reason:?}"
        );
        assert!(world.gateway.flows().is_empty());
        assert_eq!(world.drops(reason), 3);
        let first = world.records().remove(0);
        let Detail::Denied(denied) = &first.detail else {
            panic!("{first:?}")
        };
        assert_eq!(denied.deny_reason, reason.as_str());
        assert_eq!(
            (first.rule.as_str(), &denied.nearest_rule),
            ("default", &None)
        );
        assert_eq!(first.target.as_deref(), Some("kube-api"));
        let said = denied.failed_condition.as_ref().expect("words");
        assert!(said.as_str().contains(words), "{said}");
        let nameless = said.with_names(|_, _| "".into());
        for name in ["user0", "laptop0"] {
            assert!(!nameless.as_str().contains(name), "{nameless}");
        }
        // How else would it log in?
        let api = ("100.96.0.1", device_api::PORT);
        world.send(0, &tcp(SYN, LAPTOP, api, 1, 0));
        assert_eq!(world.gateway.take_control().count(), 1);
    }
}

#[test]
fn approval_lets_in_and_its_end_cuts_both_sides_before_the_command_returns() {
    let mut world = World::new(&["platform"]);
    update(&mut world, 0, |device| {
        device.standing = held(Held::Approval);
    });
    update(&mut world, 0, |device| device.standing.held = None);
    open(&mut world);
    let before = world.gateway.counters().change_to_cut.count();
    let (cut, heard) = update(&mut world, 0, |device| {
        device.standing = held(Held::Approval);
    });
    assert_eq!(cut, 1);
    assert!(flags(&heard[0]).has(TcpFlags::RST));
    assert!(flags(&world.target[0]).has(TcpFlags::RST));
    assert_eq!(world.gateway.counters().change_to_cut.count(), before + 1);
    let (record, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Revoked);
    assert_eq!(record.rule, "kubectl", "the rule that had allowed it");
    assert!(words.expect("words").contains("not approved"));
    world.target.clear();
    let again = world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert!(flags(&again[0]).has(TcpFlags::RST));
    assert!(world.target.is_empty());
}

#[test]
fn each_change_cuts_for_its_own_reason_and_only_what_needed_it() {
    let disable = |device: &mut Device| device.standing.held = Some(Held::UserDisabled);
    let log_out = |device: &mut Device| device.standing.session = None;
    // The groups came from the login.
    let lose_both = |device: &mut Device| {
        device.standing.session = None;
        device.standing.session_required = false;
        device.groups.clear();
    };
    let lose_group = |device: &mut Device| device.groups.clear();
    let rename = |device: &mut Device| device.groups.push("more".to_owned());
    type Change<'a> = &'a dyn Fn(&mut Device);
    let changes: [(Change<'_>, Option<CloseReason>); 5] = [
        (&disable, Some(CloseReason::Revoked)),
        (&log_out, Some(CloseReason::Session)),
        (&lose_both, Some(CloseReason::Session)),
        (&lose_group, Some(CloseReason::Policy)),
        (&rename, None),
    ];
    for (change, expected) in changes {
        let mut world = with_login(|_| {});
        let other = world.enrol(|device| device.groups = vec!["platform".to_owned()]);
        open(&mut world);
        let theirs = ("100.96.0.3", 4000);
        world.send(other, &tcp(SYN, theirs, KUBE, 1, 0));
        let (cut, _) = update(&mut world, 0, change);
        assert_eq!(cut, u64::from(expected.is_some()));
        if let Some(expected) = expected {
            assert_eq!(last_closed(&mut world).1, expected);
        }
        assert_eq!(world.reply(&tcp(SYN | ACK, KUBE, theirs, 9, 2)).len(), 1);
    }
}

#[test]
fn a_login_that_ends_cuts_at_that_moment_and_a_renewed_one_cuts_nothing() {
    let mut world = with_login(|_| {});
    open(&mut world);
    let end = world.now.after(Duration::from_secs(3600));
    // Renewed in time: nothing happens at the old end.
    update(&mut world, 0, |device| {
        let session = device.standing.session.as_mut().expect("logged in");
        session.id = "s2".into();
        session.since = Wall(end.wall.0 - 600 * SECOND);
        session.until = Some(Wall(end.wall.0 + 600 * SECOND));
    });
    world.now = end.after(Duration::from_secs(599));
    world.connect(0);
    world.tick(Duration::ZERO);
    world.target.clear();
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1, "it lives");
    let due = world.now.mono + Duration::from_secs(1);
    assert!(world.gateway.next_deadline() <= due);
    world.target.clear();
    let heard = world.tick(Duration::from_secs(1));
    assert!(flags(&heard[0]).has(TcpFlags::RST));
    assert!(flags(&world.target[0]).has(TcpFlags::RST));
    let (record, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Session);
    assert!(words.expect("words").contains("the login ended at 20"));
    assert_eq!(
        (record.who.session.as_deref(), record.session_age_s),
        (Some("s2"), Some(1200)),
        "the login that it was allowed to"
    );
    world.send(0, &tcp(SYN, ("100.96.0.2", 5000), KUBE, 1, 0));
    let (record, denied) = last_denied(&mut world);
    assert_eq!(denied.deny_reason, "login-required");
    assert_eq!((&record.who.session, record.session_age_s), (&None, None));
}

#[test]
fn a_cut_by_time_is_measured_from_its_moment() {
    let mut world = with_login(|_| {});
    open(&mut world);
    world.now = world.now.after(Duration::from_secs(3600));
    world.connect(0);
    // The shell comes late.
    world.tick(Duration::from_millis(7));
    let measured = world.gateway.counters().change_to_cut;
    assert_eq!((measured.count(), measured.sum), (1, 7000));
}

#[test]
fn nothing_new_passes_after_the_end_even_before_any_timer() {
    let mut world = with_login(|_| {});
    world.now = world.now.after(Duration::from_secs(3600));
    world.connect(0);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 1, 0));
    assert!(world.target.is_empty());
    assert_eq!(last_denied(&mut world).1.deny_reason, "login-required");
}

#[test]
fn records_say_which_login() {
    let mut world = with_login(|_| {});
    open(&mut world);
    let opened = serde_json::to_value(&world.records()[0]).expect("encodes");
    assert_eq!(opened["session"], "s1");
    assert_eq!(opened["issuer"], "https://idp.example.com");
    assert_eq!(opened["session_age_s"], 60);
    assert_eq!(opened["schema"], 4);
    assert!(opened.get("session_since").is_none());
}

#[test]
fn what_is_watched_goes_with_its_device() {
    let mut world = with_login(|_| {});
    let key = *world.laptops[0].peers.our_key();
    let (mut outs, now) = (Outs::default(), world.now);
    let gone = world
        .gateway
        .remove_device(&key, CloseReason::Revoked, now.mono, &mut outs, now);
    assert!(gone.is_some());
    assert!(world.gateway.due.is_empty());
    let unknown = Device {
        name: "laptop0".to_owned(),
        user: None,
        groups: Vec::new(),
        key,
        addresses: Vec::new(),
        standing: Standing::default(),
    };
    let cut = world
        .gateway
        .update_device(unknown, now.mono, &mut outs, now);
    assert_eq!(cut.flows, 0, "a device that is gone is no error");
    assert_eq!(world.gateway.devices().len(), 0);
}

const BY_STATE: &str = "
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
posture:
  disk: { disk_encryption: on }
rules:
  - name: kubectl
    action: allow
    from: { groups: [platform], posture: [disk], session_age: 30m }
    to: [kube-api]
";

fn report(world: &World, disk: bool) -> Reported {
    Reported {
        facts: Arc::new(Facts {
            disk_encryption: Some(disk),
            ..Facts::default()
        }),
        at: world.now.wall,
        fresh_until: Wall(world.now.wall.0 + 180 * SECOND),
    }
}

fn under_state() -> World {
    let mut world = with_login(|_| {});
    world.gateway.set_policy(policy(BY_STATE), world.now.mono);
    world.tick(Duration::ZERO);
    let good = report(&world, true);
    update(&mut world, 0, |device| {
        device.standing.reported = Some(good)
    });
    open(&mut world);
    world
}

#[test]
fn a_check_that_fails_cuts_at_once_and_one_that_goes_stale_at_its_moment() {
    let mut world = under_state();
    let opened = serde_json::to_value(&world.records()[0]).expect("encodes");
    assert_eq!(opened["posture"], serde_json::json!({ "disk": "pass" }));
    let bad = report(&world, false);
    let (cut, heard) = update(&mut world, 0, |device| device.standing.reported = Some(bad));
    assert_eq!(cut, 1);
    assert!(flags(&heard[0]).has(TcpFlags::RST));
    let (record, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Posture);
    assert!(words.expect("words").contains("disk"));
    let failed = serde_json::to_value(&record).expect("encodes");
    assert_eq!(failed["posture"], serde_json::json!({ "disk": "fail" }));

    let mut world = under_state();
    world.tick(Duration::from_millis(179_999));
    assert_eq!(world.gateway.closed(CloseReason::Posture), 0);
    assert!(world.gateway.next_deadline() <= world.now.mono + Duration::from_millis(1));
    world.tick(Duration::from_millis(1));
    assert_eq!(last_closed(&mut world).1, CloseReason::Posture);
}

#[test]
fn a_fresh_report_of_the_same_cuts_nothing_and_moves_the_moment() {
    let mut world = under_state();
    world.tick(Duration::from_secs(60));
    let again = report(&world, true);
    let (cut, heard) = update(&mut world, 0, |device| {
        device.standing.reported = Some(again)
    });
    assert_eq!((cut, heard.len()), (0, 0));
    world.tick(Duration::from_secs(179));
    assert_eq!(world.gateway.closed(CloseReason::Posture), 0);
    assert_eq!(world.gateway.due.len(), 1, "one moment for each device");
}

#[test]
fn a_login_that_grows_too_old_for_a_rule_cuts_what_the_rule_allowed() {
    let mut world = under_state();
    update(&mut world, 0, |device| {
        let report = device.standing.reported.as_mut().expect("reported");
        report.fresh_until = Wall::NEVER;
    });
    // All but a minute of what is left of the half hour.
    world.tick(Duration::from_secs(28 * 60));
    world.connect(0);
    world.tick(Duration::from_millis(59_999));
    assert_eq!(world.gateway.closed(CloseReason::Session), 0);
    world.tick(Duration::from_millis(1));
    let (_, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Session);
    assert!(words.expect("words").contains("kubectl"));
    let denied = {
        world.send(0, &tcp(SYN, ("100.96.0.2", 5000), KUBE, 1, 0));
        last_denied(&mut world)
    };
    assert_eq!(denied.1.deny_reason, "policy");
    let denied = serde_json::to_value(&denied.0).expect("encodes");
    assert_eq!(denied["posture"], serde_json::json!({ "disk": "pass" }));
}

#[test]
fn the_client_of_a_held_device_is_told_what_to_do() {
    let mut world = World::new(&["platform"]);
    update(&mut world, 0, |device| {
        device.standing = held(Held::Approval);
    });
    let hello = Message::Hello {
        version: 1,
        client: "0.1.0".into(),
    };
    let mut packet = [0; 256];
    let len = hello
        .write(ip(LAPTOP.0), ip("100.96.0.1"), &mut packet)
        .expect("room");
    world.send(0, &packet[..len]);
    let answers = world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    let notice = |packet: &[u8]| {
        let view = PacketView::parse(packet).expect("valid");
        Message::parse(control::payload(&view, ip(LAPTOP.0)).expect("control")).expect("known")
    };
    let Message::Refused {
        reason, condition, ..
    } = notice(&answers[1])
    else {
        panic!("{answers:?}")
    };
    assert_eq!(reason, "not-approved");
    assert!(condition.contains("device approve laptop0"), "{condition}");
    // What the control plane has to say comes the same way.
    let key = *world.laptops[0].peers.our_key();
    let (mut outs, now) = (Outs::default(), world.now);
    world.gateway.tell(&key, &Message::Changed, &mut outs, now);
    let heard = world.laptops_take(outs, &mut Outs::default());
    assert_eq!(notice(&heard[0]), Message::Changed);
}

#[test]
fn a_change_of_one_device_judges_no_flow_of_another() {
    let mut world = World::new(&["platform", "platform"]);
    world.send(1, &tcp(SYN, ("100.96.0.3", 1), KUBE, 1, 0));
    open(&mut world);
    let theirs = world.laptops[1].peers.our_key();
    let theirs = world.gateway.find_device(theirs).expect("known");
    let slot = world.gateway.flows.of(theirs)[0];
    let who = |world: &World| {
        let flow = world.gateway.flows.get(slot).expect("lives");
        Arc::as_ptr(&flow.who)
    };
    let before = who(&world);
    update(&mut world, 0, |device| device.groups.clear());
    assert_eq!(who(&world), before);
    assert_eq!(world.gateway.flows.of(theirs), [slot]);
}

#[test]
fn a_wall_clock_that_steps_ahead_is_noticed_within_half_a_second() {
    let mut world = with_login(|_| {});
    open(&mut world);
    world.tick(Duration::from_secs(1));
    // The host slept, or somebody set its clock.
    world.now.wall = world.now.wall + Duration::from_secs(7200);
    let soon = world.now.mono + Duration::from_millis(500);
    assert!(world.gateway.next_deadline() <= soon);
    world.tick(Duration::from_millis(500));
    assert_eq!(last_closed(&mut world).1, CloseReason::Session);
}

#[test]
fn a_login_that_lives_again_because_the_clock_stepped_back_ends_again() {
    let mut world = with_login(|_| {});
    open(&mut world);
    world.now = world.now.after(Duration::from_secs(3599));
    world.connect(0);
    world.tick(Duration::from_secs(1));
    assert_eq!(world.gateway.closed(CloseReason::Session), 1);
    world.now.wall = Wall(world.now.wall.0 - 60 * SECOND);
    let from = ("100.96.0.2", 5000);
    world.target.clear();
    world.send(0, &tcp(SYN, from, KUBE, 1, 0));
    assert_eq!(world.target.len(), 1, "it lives by this clock");
    world.reply(&tcp(SYN | ACK, KUBE, from, 900, 2));
    world.tick(Duration::from_secs(60));
    assert_eq!(world.gateway.closed(CloseReason::Session), 2);
}
