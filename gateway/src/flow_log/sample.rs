//! Records of every kind, made by a real engine: what tests and the documentation look at. The
//! same each time.

mod world;

use super::event::{
    AuditCounts, AuditLost, ClockStepped, CrashedRun, Damaged, Event, LogEvent, Lost, Previous,
    Removal, Removed, Repaired, Started, Stopped, Unwritable, WorkerCounts,
};
use super::history::closing;
use crate::audit::{Action, Actor, AuditEvent, AuditLine, Object, Outcome};
use postern_engine::gateway::Gateway;
use postern_engine::identity::Device;
use postern_engine::policy::Policy;
use postern_engine::record::{App, Decision, Detail, Egress, Granted, Hints, Record, Shadow};
use postern_engine::settings::{Limits, OnLogFailure, Settings, Shard};
use postern_engine::standing::{Reported, Session, Standing};
use postern_proto::ecn::Ecn;
use postern_proto::facts::Facts;
use postern_proto::keys::PrivateKey;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::peers::{PeerId, Peers};
use postern_proto::{mtu, reply};
use serde::Serialize;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use world::{Outs, World};

/// Everything personal in the sample: no line may have any of it when nothing is to be kept.
pub(super) const PERSONAL: [&str; 6] = [
    "ana",
    "bob",
    "example.com",
    "ci-runner",
    "vault-1",
    "198.51.100.",
];

const POLICY: &str = "
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
  nodes: { addresses: [192.0.2.32/28], ports: [22/tcp] }
  backups: { addresses: [192.0.2.50], ports: [443/tcp] }
  deploy: { addresses: [192.0.2.60], ports: [443/tcp] }
posture:
  disk-encrypted: { disk_encryption: on }
rules:
  - name: kubectl
    action: allow
    from: { groups: [platform], posture: [disk-encrypted] }
    to: [kube-api]
  - name: ssh to the nodes
    action: allow
    from: { users: [bob@example.com] }
    to: [nodes]
  - name: read backups
    action: allow
    from: { devices: [vault-1] }
    to: [backups]
  - name: deploy
    action: allow
    from: { groups: [sre] }
    to: [deploy]
";

const START: Wall = Wall(1_795_323_643_120_000_000);
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const KUBE: (&str, u16) = ("192.0.2.10", 6443);
const GATEWAY: &str = "203.0.113.1:51820";

/// Records of every state, in the order in which they were made.
pub(super) fn records() -> Vec<Record> {
    let mut world = World::new();
    let ana = ("100.96.0.2", 40_312);
    // Taken up in the middle, as after a restart.
    world.send(0, ana, KUBE, ACK, 500, 900);
    world.reply(KUBE, ana, ACK | FIN, 900, 501);
    world.send(0, ana, KUBE, ACK | FIN, 501, 901);
    // One that opens and closes as it should.
    let ana = ("100.96.0.2", 40_313);
    world.send(0, ana, KUBE, SYN, 100, 0);
    world.reply(KUBE, ana, SYN | ACK, 900, 101);
    world.send(0, ana, KUBE, ACK, 101, 901);
    world.wait(Duration::from_millis(1500));
    world.reply(KUBE, ana, ACK | FIN, 901, 101);
    world.send(0, ana, KUBE, ACK | FIN, 101, 902);
    world.wait(Duration::from_secs(3));
    // Refusals: for a user, a device, a group; and by a machine.
    for to in ["192.0.2.33", "192.0.2.50", "192.0.2.60", "192.0.2.99"] {
        let port = if to == "192.0.2.33" { 22 } else { 443 };
        world.send(0, ana, (to, port), SYN, 100, 0);
        world.send(1, ("100.96.0.3", 5000), (to, port), SYN, 100, 0);
    }
    for port in 1..=4 {
        world.send(0, ana, ("192.0.2.60", port), SYN, 100, 0);
    }
    world.send(0, ("100.96.0.3", 5000), KUBE, SYN, 100, 0);
    for host in 0..=255 {
        world.send(0, ana, (&format!("192.0.3.{host}"), 22), SYN, 100, 0);
    }
    // A live flow whose rule goes, and one that lasts until the end.
    world.send(0, ana, KUBE, SYN, 100, 0);
    world.wait(Duration::from_secs(11));
    let nobody = POLICY.replace("groups: [platform]", "users: [bob@example.com]");
    world.gateway.set_policy(policy(&nobody), world.now.mono);
    world.wait(Duration::from_millis(3));
    world.gateway.set_policy(policy(POLICY), world.now.mono);
    world.wait(Duration::from_secs(600));
    world.handshake(0);
    world.send(0, ("100.96.0.2", 40_314), KUBE, SYN, 100, 0);
    world.gateway.shut_down(&mut Outs::default(), world.now);

    let mut records = world.gateway.take_records();
    let mut hints = hints().into_iter();
    for record in &mut records {
        decorate(record);
        if let Detail::Closed(closed) = &mut record.detail {
            closed.hints = hints.next().map(Box::new);
        }
        // What the engine leaves to the log's thread.
        if !matches!(record.detail, Detail::Denied(_)) {
            record.egress = Some(Egress {
                address: ip("192.0.2.1"),
                port: record.src_port,
            });
        }
    }
    records
}

/// What a policy with grants and rules in `mode: shadow` would add.
fn decorate(record: &mut Record) {
    let flow = match &record.detail {
        Detail::Open(open) => open.flow,
        Detail::Closed(closed) => closed.flow,
        Detail::Denied(denied) => {
            if denied.nearest_rule.as_deref() == Some("deploy") {
                record.shadow = Some(would(Decision::Allow, "everybody deploys"));
            }
            return;
        }
    };
    if flow == 1 {
        record.rule = "nodes in an emergency".to_owned();
        record.grant = Some(Arc::new(Granted {
            id: "g4t7m2qx".into(),
            reason: Some("INC-42: ana restarts the API server".into()),
            break_glass: true,
            target: "nodes".into(),
            until: Wall::NEVER,
        }));
        record.shadow = Some(would(Decision::Deny, "no more kubectl"));
    }
}

fn would(verdict: Decision, rule: &str) -> Shadow {
    Shadow {
        verdict,
        rule: rule.to_owned(),
    }
}

fn hints() -> [Hints; 2] {
    let said = |text: &str| Some(text.into());
    let tls = Hints {
        app: App::Tls,
        ssh_client: None,
        ssh_server: None,
        tls_sni: said("kubernetes.internal"),
    };
    let ssh = Hints {
        app: App::Ssh,
        ssh_client: said("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7"),
        ssh_server: said("SSH-2.0-OpenSSH_9.6"),
        tls_sni: None,
    };
    [tls, ssh]
}

/// A log with a line of every kind, each without `n`, `prev` and `crc`: what a run wrote after
/// another had crashed, which lost some records, until it stopped. It tells one story, so that
/// its losses are those that it states.
pub(super) fn log() -> Vec<String> {
    let records = records();
    let end = records.last().expect("some").time;
    let lost: Vec<&Record> = records.iter().filter(|record| is_lost(record)).collect();
    let count = |records: usize| u64::try_from(records).expect("few");
    let flows =
        |records: &mut dyn Iterator<Item = &Record>| -> u64 { records.map(Record::attempts).sum() };
    let (made, missing) = (count(records.len()), count(lost.len()));
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    let loss = Event::Lost(Lost {
        worker: 0,
        count: missing,
        flows: flows(&mut lost.iter().copied()),
        first_seq: Some(first.seq),
        last_seq: Some(last.seq),
        from: first.time,
        to: last.time,
    });
    let stopped = Event::Stopped(Stopped {
        workers: vec![WorkerCounts {
            worker: 0,
            made: Some(made),
            written: made - missing,
            lost: missing,
        }],
        flows_seen: flows(&mut records.iter()),
        flows_written: flows(&mut records.iter().filter(|record| !is_lost(record))),
        flows_lost: flows(&mut lost.iter().copied()),
        audit: AuditCounts {
            made: Some(AUDIT_MADE),
            written: AUDIT_MADE - 1,
            lost: 1,
        },
    });

    let mut lines: Vec<String> = beginning().iter().map(line).collect();
    lines.insert(4, crashed(&records[0]));
    lines.extend(audit().iter().map(line));
    for record in &records {
        if record.seq == first.seq {
            lines.extend(troubles(loss.clone(), last.time).iter().map(line));
        }
        if !is_lost(record) {
            lines.push(line(record));
        }
    }
    lines.push(line(&event(end, stopped)));
    lines
}

/// Most of what the scan caused.
fn is_lost(record: &Record) -> bool {
    let Some(IpAddr::V4(to)) = record.dst_address else {
        return false;
    };
    to.octets()[2] == 3 && to.octets()[3] > 0
}

fn beginning() -> [LogEvent; 5] {
    let events = [
        Event::Started(Started {
            version: "0.1.0".into(),
            previous: Previous::Crashed,
            previous_boot: Some("3".into()),
            workers: 1,
        }),
        Event::Repaired(Repaired {
            segment: 70_001,
            cut_bytes: 212,
        }),
        Event::Damaged(Damaged {
            segment: 60_001,
            offset: 4096,
            bytes: 512,
        }),
        Event::Removed(Removed {
            from_n: 1,
            to_n: 70_012,
            why: Removal::Size,
            unacknowledged: 40,
        }),
        Event::CrashedRun(CrashedRun {
            crashed_boot: "3".into(),
            workers: vec![WorkerCounts {
                worker: 0,
                made: Some(42),
                written: 40,
                lost: 2,
            }],
            flows_closed: 1,
            audit: AuditCounts {
                made: Some(7),
                written: 7,
                lost: 0,
            },
        }),
    ];
    events.map(|what| event(START, what))
}

/// A laptop is invited, joins, and somebody else tries to log in on it. One more was lost.
const AUDIT_MADE: u64 = 5;

pub(super) fn audit() -> Vec<AuditLine> {
    let outer: SocketAddr = "198.51.100.7:51820".parse().expect("literal");
    let ana = || Actor::Device {
        name: "ana-laptop".into(),
        user: Some("ana@example.com".into()),
        from: Some(outer),
    };
    let of = |kind, name: &str| Object {
        kind,
        name: name.into(),
    };
    let invitation =
        json!({ "kind": "personal", "user": "ana@example.com", "groups": ["platform"] });
    let device =
        json!({ "user": "ana@example.com", "groups": ["platform"], "addresses": ["100.96.0.2"] });
    let event = |action, outcome, actor, object| AuditEvent {
        action,
        outcome,
        actor,
        object,
        reason: None,
        before: None,
        after: None,
    };
    let events = [
        AuditEvent {
            after: Some(invitation),
            ..event(
                Action::Invite,
                Outcome::Done,
                Actor::Admin { uid: Some(0) },
                of("invitation", "k7q2m4xd"),
            )
        },
        AuditEvent {
            after: Some(device),
            ..event(
                Action::Join,
                Outcome::Done,
                Actor::Guest {
                    invitation: "k7q2m4xd".into(),
                    from: Some(outer),
                },
                of("device", "ana-laptop"),
            )
        },
        AuditEvent {
            reason: Some("the device belongs to ana@example.com, not to bob@example.com".into()),
            ..event(
                Action::Login,
                Outcome::Refused,
                ana(),
                of("device", "ana-laptop"),
            )
        },
        AuditEvent {
            before: Some(json!({ "groups": ["platform"] })),
            ..event(
                Action::SessionEnd,
                Outcome::Done,
                Actor::Gateway,
                of("session", "5f0c2a91"),
            )
        },
    ];
    let lines = (1..).zip(events);
    let line = |(n, event)| AuditLine::new(&"gw".into(), &"4".into(), n, START, event);
    lines.map(line).collect()
}

fn troubles(lost: Event, now: Wall) -> [LogEvent; 4] {
    let later = Wall(now.0 + 1_880_000_000);
    let unwritable = Event::Unwritable(Unwritable {
        from: now,
        to: later,
        error: "No space left on device (os error 28)".into(),
    });
    let stepped = Event::ClockStepped(ClockStepped {
        from: later,
        to: now,
    });
    let audit_lost = Event::AuditLost(AuditLost {
        count: 1,
        first_audit: AUDIT_MADE,
        last_audit: AUDIT_MADE,
        from: now,
        to: now,
    });
    [
        event(later, unwritable),
        event(later, audit_lost),
        event(later, lost),
        event(now, stepped),
    ]
}

/// The closing record of a flow of the run before, whose end nobody saw.
fn crashed(open: &Record) -> String {
    let mut open = serde_json::to_value(open).expect("encodes");
    open["boot"] = "3".into();
    open["start"] = "2026-11-22T04:58:00.112Z".into();
    let closed = closing(
        line(&open).as_bytes(),
        "2026-11-22T04:59:12.800Z",
        "4",
        START,
    );
    String::from_utf8(closed.expect("a record")).expect("UTF-8")
}

fn event(time: Wall, event: Event) -> LogEvent {
    LogEvent::new(&"gw".into(), &"4".into(), time, event)
}

fn line(what: &impl Serialize) -> String {
    serde_json::to_string(what).expect("encodes")
}

fn report() -> Reported {
    Reported {
        facts: Arc::new(Facts {
            disk_encryption: Some(true),
            ..Facts::default()
        }),
        at: START,
        fresh_until: Wall::NEVER,
    }
}

fn login() -> Session {
    Session {
        id: "k7r2q9xw".into(),
        method: "oidc".into(),
        issuer: Some("https://login.example.net".into()),
        amr: vec!["mfa".to_owned(), "pwd".to_owned()],
        acr: None,
        since: Wall(START.0 - 1_800_000_000_000),
        until: None,
    }
}

fn tcp(from: (&str, u16), to: (&str, u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut packet = vec![0; 64];
    let (from, to) = ((ip(from.0), from.1), (ip(to.0), to.1));
    let len = reply::tcp_reset(from, to, seq, Some(ack), &mut packet).expect("room");
    packet.truncate(len);
    packet[33] = flags;
    packet
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal address")
}

fn policy(text: &str) -> Arc<Policy> {
    Arc::new(Policy::parse(text).unwrap_or_else(|errors| panic!("{errors}")))
}
