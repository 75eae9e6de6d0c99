//! What a fuzzer may throw at Postern. Each function takes bytes and panics if something is
//! wrong; the corpus in `corpus/` is played again by `cargo test`, `scripts/fuzz` looks for more.
//!
//! | target | bytes are | what must hold |
//! |---|---|---|
//! | [`packet`] | one inner packet | what is accepted reads as a kernel would read it; answers are valid |
//! | [`wireguard`] | datagrams, true and forged, and inner packets | nothing passes that no rule allows |
//! | [`policy`] | a policy file | refused with words, or judged the same by `judge` and `explain` |
//! | [`control()`] | a control message | refused, or read back as it was written |
//! | [`control_api()`] | the body of a request to the control API | refused with words, or within its bounds and the same when read again |
//! | [`spool_line`] | a segment of the flow log, true and bent | it is judged as by reading it slowly; a writer goes on after it |
//! | [`hints()`] | what both ends of a connection say first, and how it is cut | any cut gives the same hint, short and printable |
//! | [`world`] | steps of the simulated world | the gateway agrees with the oracle |
#![forbid(unsafe_code)]

mod control_api;
mod hints;
mod spool;
mod wireguard;

pub use control_api::control_api;
pub use hints::hints;
pub use spool::spool_line;
pub use wireguard::wireguard;

use postern_engine::policy::{Policy, Subject, Tuple};
use postern_engine::standing::{Attribute, Reported, Session, Standing};
use postern_proto::control::{self, MAX_MESSAGE, Message};
use postern_proto::facts::Facts;
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use postern_proto::packet::{PacketView, Transport};
use postern_proto::reply;
use postern_sim::dice::{Bytes, Dice};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Steps of a world that a fuzzer may ask for.
const STEPS: usize = 60;

/// One inner packet.
pub fn packet(data: &[u8]) {
    let Ok(view) = PacketView::parse(data) else {
        return;
    };
    assert_eq!(view.bytes(), data);
    let v6 = data[0] >> 4 == 6;
    let header = if v6 { 40 } else { 20 };
    let length = u16::from_be_bytes(if v6 {
        [data[4], data[5]]
    } else {
        [data[2], data[3]]
    });
    assert_eq!(
        usize::from(length) + if v6 { 40 } else { 0 },
        data.len(),
        "a kernel would see another length"
    );
    assert_eq!(view.transport_bytes(), &data[header..]);
    let proto = if v6 { data[6] } else { data[9] };
    let agrees = match view.transport {
        Transport::Tcp(_) => proto == 6,
        Transport::Udp { .. } => proto == 17,
        Transport::Echo { .. } | Transport::Error { .. } => proto == if v6 { 58 } else { 1 },
    };
    assert!(
        agrees,
        "read as {:?}, and is protocol {proto}",
        view.transport
    );
    if let (Some(there), Some(back)) = (view.key_from_device(), view.key_from_target())
        && there.protocol != Protocol::Icmp
    {
        assert_eq!(
            (there.client(), there.client_port),
            (back.target(), back.target_port)
        );
    }
    let mut room = [0; reply::REPLY_ROOM];
    if let Some(len) = reply::refuse(&view, &mut room) {
        let answer = postern_sim::packet::read(&room[..len]).expect("an answer of ours is valid");
        assert_eq!((answer.from, answer.to), (view.destination, view.source));
        let answer = PacketView::parse(&room[..len]).expect("read above");
        assert!(
            reply::refuse(&answer, &mut [0; reply::REPLY_ROOM]).is_none(),
            "an error for an error"
        );
    }
    for mtu in [1280, 1420, 9000] {
        let mut clamped = data.to_vec();
        reply::clamp_mss(&mut clamped, mtu);
        let after = PacketView::parse(&clamped).expect("clamping breaks nothing");
        assert_eq!(after.transport, view.transport);
        let changed = clamped.iter().zip(data).filter(|(a, b)| a != b).count();
        assert!(changed <= 4, "clamping changes an MSS and a checksum");
    }
}

/// A policy file.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.to_string().is_empty(), "refused without a word");
            return;
        }
    };
    for prefix in policy.addresses() {
        assert!(
            prefix.prefix_len() > 0,
            "a default route in the include list"
        );
    }
    let _ = policy.run_tests();
    let now = Wall(1_800_000_000_000_000_000);
    for (user, group, standing) in [
        (Some("ana@example.com"), "platform", in_order(now)),
        (Some("ana"), "sre", in_order(Wall(0))),
        (None, "guests", Standing::default()),
    ] {
        let known = standing != Standing::default();
        let checks = policy.checks(&standing, now);
        assert!(
            known || checks.iter().all(|check| !check.holds),
            "a check holds for a device of which nothing is known"
        );
        let who = Subject {
            user: user.map(str::to_owned),
            groups: vec![group.to_owned()],
            device: "laptop0".to_owned(),
            standing,
        };
        assert!(policy.next_change(&who, now).is_none_or(|next| next > now));
        let index = policy.index(&who);
        for (address, port, protocol) in [
            (IpAddr::from([192, 0, 2, 10]), 6443, Protocol::Tcp),
            (IpAddr::from([192, 0, 2, 10]), 22, Protocol::Tcp),
            (IpAddr::from([192, 0, 2, 53]), 53, Protocol::Udp),
            (
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
                0,
                Protocol::Icmp,
            ),
        ] {
            let to = Tuple {
                address,
                port,
                protocol,
            };
            let verdict = policy.judge(&index, &to, now);
            let explained = policy.explain(&who, &to, now);
            assert_eq!(verdict, explained.verdict);
            assert_eq!(policy.rule_name(verdict.rule()), explained.rule);
            assert!(
                !verdict.allows() || explained.rule != "default",
                "a permit names its rule"
            );
            assert_eq!(verdict, policy.judge(&policy.index(&who), &to, now));
        }
    }
}

/// A device that logged in and reported a minute before `now`, good for two more.
fn in_order(now: Wall) -> Standing {
    let minute = Duration::from_secs(60);
    let facts = Facts {
        os: Some("debian".to_owned()),
        os_version: Some("12".to_owned()),
        kernel: Some("6.1.0-18-amd64".to_owned()),
        client_version: Some("0.1.0".to_owned()),
        disk_encryption: Some(true),
        firewall: Some(true),
        processes: [("falcon-sensor".to_owned(), true)].into(),
        files: [("/etc/corp.pem".to_owned(), Some("00".repeat(32)))].into(),
        ..Facts::default()
    };
    let value = "yes".to_owned();
    Standing {
        session: Some(Session {
            id: "s".into(),
            method: "oidc".into(),
            issuer: None,
            amr: Vec::new(),
            acr: None,
            since: Wall(now.0.saturating_sub(60_000_000_000)),
            until: Some(now + minute),
        }),
        reported: Some(Reported {
            facts: Arc::new(facts),
            at: Wall(now.0.saturating_sub(60_000_000_000)),
            fresh_until: now + minute,
        }),
        attributes: [("managed".to_owned(), Attribute { value, until: None })].into(),
        ..Standing::default()
    }
}

/// A control message.
pub fn control(data: &[u8]) {
    let (device, gateway): (IpAddr, IpAddr) = ([100, 96, 0, 2].into(), [100, 96, 0, 1].into());
    let mut room = [0; 2048];
    if let Some(len) = reply::udp(
        (device, control::PORT),
        (gateway, control::PORT),
        data,
        &mut room,
    ) {
        let view = PacketView::parse(&room[..len]).expect("our own packet");
        assert_eq!(control::payload(&view, gateway), Some(data));
    }
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let probe = matches!(message, Message::Probe { .. } | Message::ProbeAnswer { .. });
    assert!(data.len() <= MAX_MESSAGE || probe && data.ends_with(&[0]));
    let wanted = 28 + data.len();
    let Some(len) = message.write_padded(gateway, device, wanted, &mut room) else {
        return;
    };
    assert!(
        len <= 28 + MAX_MESSAGE || len == wanted,
        "{len} of {wanted}"
    );
    let view = PacketView::parse(&room[..len]).expect("our own packet");
    let payload = control::payload(&view, device).expect("a control datagram");
    assert_eq!(Message::parse(payload), Ok(message));
}

/// Steps of the simulated world: the first bytes choose the world, the rest what happens.
pub fn world(data: &[u8]) {
    let mut dice = Bytes(data);
    let seed = dice.roll(65_536);
    let count = (data.len() / 3).min(STEPS);
    let steps = postern_sim::steps::draw(count, &mut dice);
    if let Err(what) = postern_sim::run(seed, &steps) {
        panic!("world {seed}, {steps:?}: {what}");
    }
}
