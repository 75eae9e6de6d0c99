use super::*;
use crate::api::{HistogramView, QueueView, ShadowCount, VerdictCount, WorkerView};
use crate::fake_worker::{self, FakeWorker, door, door_of};
use crate::front_door::{DoorCounts, DoorSockets, FrontDoor};
use crate::init::FIRST_POLICY;
use crate::pool::Pool;
use crate::store::Noted;
use postern_proto::fate::DropReason;
use postern_proto::keys::{PrivateKey, PublicKey};
use postern_proto::peers::MAX_PEERS;

/// Two workers and a door.
fn two() -> (Workers, [FakeWorker; 2]) {
    let ((one, first), (other, second)) = (FakeWorker::worker(), FakeWorker::worker());
    (Workers::new(vec![one, other], door()), [first, second])
}

fn device(name: &str, last: u8) -> DeviceRecord {
    DeviceRecord {
        name: name.to_owned(),
        user: None,
        groups: Vec::new(),
        key: PrivateKey::from_random([last; 32]).public(),
        preshared_key: None,
        v4: [100, 96, 0, last].into(),
        v6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        created: 1,
        last_endpoint: None,
        standing: Default::default(),
    }
}

#[test]
fn both_addresses_of_a_device_name_the_same_worker() {
    let pools = [
        ("100.96.0.0/16", "fd00:1::/64"),
        ("10.0.0.8/29", "fd00::/96"),
    ];
    for (v4, v6) in pools {
        let pool = Pool {
            v4: v4.parse().expect("net"),
            v6: v6.parse().expect("net"),
        };
        for host in 2..=pool.last_device().min(600) {
            let (v4, v6) = pool.device(host).expect("in the pool");
            for workers in [1, 2, 4, 8] {
                let place = owner(v4, workers);
                assert_eq!(place, host as usize % workers);
                assert_eq!(place, usize::from(v6.octets()[15]) % workers);
            }
        }
    }
}

#[tokio::test]
async fn a_device_is_with_one_worker_alone() {
    let (workers, fakes) = two();
    for (name, last) in [("even", 4), ("odd", 5), ("odd2", 7)] {
        let added = workers.add_device(Noted::unkept(device(name, last))).await;
        assert_eq!(added, Ok(Ok(())), "{name}");
    }
    assert_eq!(fakes[0].asked().devices, ["even"]);
    assert_eq!(fakes[1].asked().devices, ["odd", "odd2"]);
    let odd = device("odd", 5);
    let cut = workers.remove_device(&odd, RemoveReason::Revoked).await;
    assert_eq!(cut, Ok(Cut { flows: 7 }));
    assert_eq!((fakes[0].asked().removed, fakes[1].asked().removed), (0, 1));
}

#[tokio::test]
async fn a_device_that_the_door_cannot_take_is_taken_back() {
    let mut full = FrontDoor::new(&PrivateKey::from_random([1; 32]), 1, 7);
    for n in 0..MAX_PEERS {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        full.enrol(PublicKey(key), 0).expect("room");
    }
    let (worker, fake) = FakeWorker::worker();
    let workers = Workers::new(vec![worker], door_of(full));
    let refused = workers.add_device(Noted::unkept(device("late", 4))).await;
    assert!(refused.expect("answers").is_err());
    let asked = fake.asked();
    assert_eq!((asked.devices.len(), asked.removed), (1, 1));
}

#[tokio::test]
async fn a_next_key_that_the_door_cannot_take_is_taken_back() {
    let mut full = FrontDoor::new(&PrivateKey::from_random([1; 32]), 1, 7);
    for n in 0..MAX_PEERS {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        full.enrol(PublicKey(key), 0).expect("room");
    }
    let (worker, fake) = FakeWorker::worker();
    let workers = Workers::new(vec![worker], door_of(full));
    let (device, next) = (device("d", 4), PrivateKey::from_random([60; 32]).public());
    let refused = workers.rotate_device(&device, next, None).await;
    assert!(refused.expect("answers").is_err());
    assert_eq!(fake.asked().rotated, [next, device.key]);
}

#[tokio::test]
async fn a_change_reaches_every_worker_and_cuts_add_up() {
    let (workers, fakes) = two();
    let policy = Arc::new(Policy::parse(FIRST_POLICY).expect("good"));
    let cut = workers.set_policy(policy).await.expect("answers");
    assert_eq!(cut.flows, 14);
    let cut = workers.kill_flows(FlowFilter::default()).await;
    assert_eq!(cut, Ok(Cut { flows: 14 }));
    for fake in &fakes {
        let asked = fake.asked();
        assert_eq!((asked.policies.len(), asked.killed), (1, 1));
    }
}

#[tokio::test]
async fn a_worker_that_has_stopped_keeps_no_change_from_the_others() {
    let (alive, fake) = FakeWorker::worker();
    let (commands, gone) = std::sync::mpsc::sync_channel(1);
    drop(gone);
    let gone = crate::worker_api::Caller::new(commands, || {});
    let workers = Workers::new(vec![gone, alive], door());
    let policy = Arc::new(Policy::parse(FIRST_POLICY).expect("good"));
    assert_eq!(workers.set_policy(policy).await, Err(WorkerError::Gone));
    // The channel is in order: this answer comes after the policy.
    let _ = workers.kill_flows(FlowFilter::default()).await;
    while fake.asked().killed == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.asked().policies.len(), 1);
}

#[tokio::test]
async fn flows_of_all_workers_are_listed_oldest_first() {
    let (workers, fakes) = two();
    let flow = |id, opened_ms| FlowView {
        id,
        opened_ms,
        ..fake_worker::flow()
    };
    fakes[0].asked().flows = vec![flow(1, 10), flow(3, 30), flow(5, 50)];
    fakes[1].asked().flows = vec![flow(2, 20), flow(4, 30)];
    let listed = workers.list_flows(FlowFilter::default(), 4).await;
    let ids: Vec<u64> = listed.expect("answers").iter().map(|f| f.id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn a_snapshot_is_the_sum_of_all_threads() {
    let verdict = |verdict: &str, rule: &str, flows| VerdictCount {
        verdict: verdict.into(),
        rule: rule.into(),
        flows,
    };
    let one = |worker, flows, verdicts| {
        let mut seconds = HistogramView::with_bounds(&[0.1]);
        seconds.observe(0.05);
        WorkerSnapshot {
            generation: 3 + u64::from(worker),
            open_flows: flows,
            verdicts,
            shadows: vec![ShadowCount {
                rule: "tighter".into(),
                verdict: "deny".into(),
                live: "allow".into(),
                attempts: flows,
            }],
            break_glass_flows: flows,
            drops: [("policy".to_owned(), flows)].into(),
            queues: vec![QueueView {
                queue: "flows".into(),
                depth: flows,
                capacity: 100,
            }],
            hints_displaced: 10 + flows,
            verdict_seconds: seconds,
            workers: vec![WorkerView {
                worker,
                devices: 1,
                flows,
                packets: 5,
                turns: 6,
            }],
            ..WorkerSnapshot::default()
        }
    };
    let mut door = DoorCounts {
        cookies: 9,
        handed: 8,
        ..DoorCounts::default()
    };
    door.drops.add(DropReason::BadMac, 4);
    door.sockets = DoorSockets {
        waiting: 11,
        shed: 12,
        refused: 13,
    };
    let all = merge::merge(
        vec![
            one(
                0,
                2,
                vec![verdict("allow", "b", 1), verdict("deny", "c", 2)],
            ),
            one(
                1,
                5,
                vec![verdict("deny", "a", 4), verdict("allow", "b", 3)],
            ),
        ],
        &door,
    );
    assert_eq!((all.generation, all.open_flows), (3, 7));
    assert_eq!(
        all.verdicts,
        [
            verdict("deny", "a", 4),
            verdict("allow", "b", 4),
            verdict("deny", "c", 2)
        ]
    );
    let shadows: Vec<u64> = all.shadows.iter().map(|one| one.attempts).collect();
    assert_eq!((shadows, all.break_glass_flows), (vec![7], 7));
    let drops: Vec<_> = all.drops.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(
        drops,
        [
            ("bad-mac", 4),
            ("kernel-refused", 13),
            ("policy", 7),
            ("queue-stands", 12)
        ]
    );
    assert_eq!((all.handshakes["cookie"], all.handshakes["handed"]), (9, 8));
    let queues: Vec<_> = all
        .queues
        .iter()
        .map(|q| (q.queue.as_str(), q.depth))
        .collect();
    assert_eq!(queues, [("flows", 7), ("door-bytes", 11)]);
    assert_eq!((all.queues[0].capacity, all.hints_displaced), (200, 27));
    assert_eq!(all.verdict_seconds.counts, [2, 0]);
    assert_eq!(all.workers.len(), 2);
}
