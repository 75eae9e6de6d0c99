use super::*;
use crate::api::{
    ExporterStatus, FlowsWaiting, HistogramView, PeerView, QueueView, Traffic, VerdictCount,
    WorkerView,
};
use postern_io::offload::{Half, HalfState};
use postern_proto::fate::DropReason;
use postern_proto::keys::PrivateKey;
use std::io::Write;
use std::process::{Command, Stdio};

fn facts() -> Facts {
    let mut verdict_seconds = HistogramView::with_bounds(&[1e-6, 1e-3]);
    verdict_seconds.observe(5e-7);
    verdict_seconds.observe(2.0);
    let peer = PeerView {
        device: "ana-laptop".into(),
        public_key: PrivateKey::from_random([1; 32]).public(),
        endpoint: "198.51.100.7:4242".parse().ok(),
        last_handshake: Some(1),
        connected: true,
        bytes_out: 1,
        bytes_in: 1,
        flows: 1,
        mtu: None,
    };
    Facts {
        inside: inside::Facts {
            answers: vec![0, 7],
            ..inside::Facts::default()
        },
        sessions: Some(3),
        names: vec![
            NameView {
                name: "api.example.com".into(),
                addresses: vec!["192.0.2.1".parse().expect("address")],
                age: Some(70),
                failures: 2,
                ..NameView::default()
            },
            NameView {
                name: "new.example.com".into(),
                ..NameView::default()
            },
        ],
        grants: Some((2, 1)),
        asked: CountsView {
            requests: [(("/v1/device", "ok".to_owned()), 4)].into(),
            logins: [("login-refused".to_owned(), 2)].into(),
            break_glass: [("nodes".to_owned(), 1)].into(),
            ..CountsView::default()
        },
        worker: WorkerSnapshot {
            verdicts: vec![
                VerdictCount {
                    verdict: "allow".into(),
                    rule: "ssh to the \"nodes\"".into(),
                    flows: 3,
                },
                VerdictCount {
                    verdict: "deny".into(),
                    rule: "default".into(),
                    flows: 4,
                },
            ],
            traffic: Traffic {
                bytes_out: 10,
                packets_out: 1,
                bytes_in: 20,
                packets_in: 2,
            },
            drops: DropReason::ALL
                .iter()
                .map(|r| (r.as_str().to_owned(), 1))
                .collect(),
            handshakes: [("established".to_owned(), 5)].into(),
            open_flows: 9,
            peers: vec![
                peer.clone(),
                PeerView {
                    connected: false,
                    ..peer
                },
            ],
            queues: vec![QueueView {
                queue: "flows".into(),
                depth: 9,
                capacity: 100,
            }],
            hints_displaced: 6,
            offload: [
                (
                    Half::TunRead,
                    HalfState {
                        on: true,
                        detail: "tcp+udp".into(),
                        fallbacks: 0,
                    },
                ),
                (
                    Half::TunWrite,
                    HalfState {
                        on: false,
                        detail: "refused".into(),
                        fallbacks: 3,
                    },
                ),
            ]
            .into(),
            verdict_seconds,
            change_to_cut_seconds: HistogramView::with_bounds(&[0.1, 1.0]),
            workers: vec![WorkerView {
                worker: 0,
                devices: 2,
                flows: 9,
                packets: 3,
                turns: 70,
            }],
            ..WorkerSnapshot::default()
        },
        policy: PolicyStatus {
            generation: 2,
            ok: true,
            ..PolicyStatus::default()
        },
        log: FlowLogStatus {
            made: 8,
            written: 5,
            lost: 1,
            lag: 2,
            flows_seen: 40,
            flows_written: 30,
            flows_lost: 4,
            flows_waiting: FlowsWaiting {
                window: 3,
                worker: 1,
                channel: 2,
            },
            head: 91,
            synced: 90,
            oldest_ms: 1_500,
            sync_seconds: HistogramView::with_bounds(&[0.1]),
            exporters: vec![ExporterStatus {
                name: "loki".into(),
                position: 80,
                acknowledged: 8,
                lag_records: 11,
                lag_seconds: 2,
                retries: 1,
                failing: Some("refused".into()),
                ..ExporterStatus::default()
            }],
            ..FlowLogStatus::default()
        },
        log_queue: (1, 64),
        devices: 2,
    }
}

fn render(facts: Facts) -> String {
    Metrics::new()
        .expect("one name, one metric")
        .render(facts)
        .expect("well formed")
}

#[test]
fn every_fact_has_its_line() {
    let text = render(facts());
    for line in [
        r#"postern_flows_total{verdict="allow",rule="ssh to the \"nodes\""} 3"#,
        r#"postern_flows_total{verdict="deny",rule="default"} 4"#,
        r#"postern_bytes_total{direction="to-target"} 10"#,
        r#"postern_packets_total{direction="from-target"} 2"#,
        r#"postern_packets_dropped_total{reason="spoofed-source"} 1"#,
        r#"postern_handshakes_total{outcome="established"} 5"#,
        "postern_flows_open 9",
        "postern_devices 2",
        "postern_devices_connected 1",
        "postern_control_requests_total{path=\"/v1/device\",code=\"ok\"} 4",
        r#"postern_control_answers{worker="1"} 7"#,
        "postern_logins_total{outcome=\"login-refused\"} 2",
        "postern_sessions 3",
        r#"postern_target_name_age_seconds{name="api.example.com"} 70"#,
        r#"postern_target_name_failures_total{name="api.example.com"} 2"#,
        r#"postern_break_glass_total{entry="nodes"} 1"#,
        r#"postern_grants{state="waits"} 2"#,
        r#"postern_grants{state="live"} 1"#,
        "postern_policy_generation 2",
        "postern_policy_reload_success 1",
        r#"postern_queue_depth{queue="flow-log"} 1"#,
        r#"postern_queue_capacity{queue="flows"} 100"#,
        "postern_hints_displaced_total 6",
        r#"postern_offload{half="tun-read"} 1"#,
        r#"postern_offload{half="tun-write"} 0"#,
        r#"postern_offload_fallbacks_total{half="tun-write"} 3"#,
        "postern_records_written_total 5",
        "postern_records_lost_total 1",
        "postern_records_made_total 8",
        "postern_flows_seen_total 40",
        "postern_flows_written_total 30",
        "postern_flows_lost_total 4",
        r#"postern_flows_waiting{where="window"} 3"#,
        "postern_log_head 91",
        "postern_log_synced 90",
        "postern_log_writable 1",
        "postern_log_oldest_timestamp_seconds 1.5",
        r#"postern_export_up{exporter="loki"} 0"#,
        r#"postern_export_position{exporter="loki"} 80"#,
        r#"postern_export_acknowledged_total{exporter="loki"} 8"#,
        r#"postern_export_lag_records{exporter="loki"} 11"#,
        r#"postern_export_lag_seconds{exporter="loki"} 2"#,
        r#"postern_verdict_seconds_bucket{le="0.000001"} 1"#,
        r#"postern_verdict_seconds_bucket{le="0.001"} 1"#,
        r#"postern_verdict_seconds_bucket{le="+Inf"} 2"#,
        "postern_verdict_seconds_count 2",
        r#"postern_change_to_cut_seconds_bucket{le="+Inf"} 0"#,
        "postern_workers 1",
        r#"postern_worker_devices{worker="0"} 2"#,
        r#"postern_worker_packets_total{worker="0"} 3"#,
        r#"postern_worker_turns_total{worker="0"} 70"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line {line} in\n{text}"
        );
    }
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn no_label_holds_an_address_or_a_name_of_a_device() {
    let text = render(facts());
    for secret in [
        "198.51.100.7",
        "ana-laptop",
        &PrivateKey::from_random([1; 32]).public().to_string(),
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    for facts in [facts(), Facts::default()] {
        let text = render(facts);
        let tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut tool) = tool else {
            let _ = writeln!(std::io::stderr(), "skipped: promtool is not installed");
            return;
        };
        tool.stdin
            .take()
            .expect("piped")
            .write_all(text.as_bytes())
            .expect("read");
        let said = tool.wait_with_output().expect("ends");
        let said_text =
            String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        assert!(
            said.status.success() && said_text.trim().is_empty(),
            "{said_text}"
        );
    }
}
