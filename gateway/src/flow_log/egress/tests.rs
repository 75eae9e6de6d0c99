use super::*;
use postern_engine::identity::Who;
use postern_engine::record::{CloseReason, Closed, Decision, Denied, Kind, Opened, SCHEMA, State};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use std::sync::{Arc, Mutex};

const FLOWS: usize = 8;

fn record(port: u16, state: State, detail: Detail) -> Record {
    Record {
        schema: SCHEMA,
        kind: Kind::Flow,
        gateway: "gw".into(),
        boot: "1".into(),
        worker: 0,
        seq: 1,
        time: Wall(0),
        state,
        verdict: Decision::Allow,
        rule: "ssh".to_owned(),
        policy: "0".into(),
        shadow: None,
        grant: None,
        who: Arc::new(Who {
            user: None,
            groups: Vec::new(),
            device: Some("laptop".to_owned()),
            device_key: None,
            ..Who::default()
        }),
        session_age_s: None,
        posture: None,
        client_outer: None,
        protocol: Protocol::Tcp,
        src_address: "100.96.0.2".parse().expect("an address"),
        src_port: port,
        dst_address: Some("192.0.2.10".parse().expect("an address")),
        dst_port: 22,
        target: None,
        egress: None,
        detail,
    }
}

fn open(flow: u64, port: u16) -> Record {
    let detail = Detail::Open(Opened {
        flow,
        start: Wall(0),
        resumed: false,
    });
    record(port, State::Open, detail)
}

fn closed(flow: u64, port: u16) -> Record {
    let detail = Detail::Closed(Closed {
        flow,
        start: Wall(0),
        end: Wall(0),
        duration_ms: 0,
        resumed: false,
        bytes_out: 0,
        bytes_in: 0,
        packets_out: 0,
        packets_in: 0,
        tcp_state: None,
        close_reason: CloseReason::Fin,
        failed_condition: None,
        hints: None,
    });
    record(port, State::Closed, detail)
}

fn denied(port: u16) -> Record {
    let detail = Detail::Denied(Denied {
        deny_reason: "policy",
        failed_condition: None,
        nearest_rule: None,
        count: 1,
        start: Wall(0),
        end: Wall(0),
        dst_ports: Vec::new(),
        scan: false,
    });
    record(port, State::Denied, detail)
}

/// A kernel that translates ports from 1000 on by adding 30 000 and knows no others; it remembers
/// how many flows it was asked for at a time, and can be made to refuse.
#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<(Vec<usize>, bool)>>);

impl Kernel {
    fn egresses(&self) -> Egresses {
        let kernel = self.clone();
        let ask = move |flows: &[FlowKey]| {
            let mut state = kernel.0.lock().expect("one thread");
            state.0.push(flows.len());
            if state.1 {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied));
            }
            let found = |flow: &FlowKey| {
                (flow.client_port >= 1000).then(|| gateway(flow.client_port + 30_000).into())
            };
            Ok(flows.iter().map(found).collect())
        };
        Egresses::new(Source::Kernel(Box::new(ask)), FLOWS)
    }

    fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().expect("one thread").0)
    }

    fn refuse(&self, refuse: bool) {
        self.0.lock().expect("one thread").1 = refuse;
    }
}

fn gateway(port: u16) -> (std::net::IpAddr, u16) {
    ("10.77.0.1".parse().expect("an address"), port)
}

fn seen(records: &[Record]) -> Vec<Option<(std::net::IpAddr, u16)>> {
    let pair = |egress: Egress| (egress.address, egress.port);
    records
        .iter()
        .map(|record| record.egress.map(pair))
        .collect()
}

#[test]
fn one_question_for_all_that_open_and_none_when_they_close() {
    let kernel = Kernel::default();
    let mut egresses = kernel.egresses();
    let mut opening = [open(1, 1000), denied(1001), open(2, 1002)];
    egresses.fill(&mut opening);
    let expected = [Some(gateway(31_000)), None, Some(gateway(31_002))];
    assert_eq!(seen(&opening), expected);
    assert_eq!(kernel.asked(), [2]);
    assert_eq!(egresses.remembered(), 2);

    let mut closing = [closed(2, 1002), closed(1, 1000)];
    egresses.fill(&mut closing);
    assert_eq!(
        seen(&closing),
        [Some(gateway(31_002)), Some(gateway(31_000))]
    );
    assert_eq!(kernel.asked(), [0; 0]);
    assert_eq!(egresses.remembered(), 0);
    let (found, missing) = (4, 0);
    assert_eq!(egresses.counts(), EgressCounts { found, missing });
}

#[test]
fn a_flow_that_opens_and_closes_at_once_is_asked_for_once() {
    let kernel = Kernel::default();
    let mut egresses = kernel.egresses();
    let mut records = [open(7, 1000), closed(7, 1000)];
    egresses.fill(&mut records);
    assert_eq!(seen(&records), [Some(gateway(31_000)); 2]);
    assert_eq!(kernel.asked(), [1]);
    assert_eq!(egresses.remembered(), 0);
}

#[test]
fn what_was_not_found_is_asked_for_again_at_the_end() {
    let kernel = Kernel::default();
    let mut egresses = kernel.egresses();
    kernel.refuse(true);
    let mut opening = [open(1, 1000), open(2, 7)];
    egresses.fill(&mut opening);
    assert_eq!(seen(&opening), [None, None]);
    kernel.refuse(false);
    let mut closing = [closed(1, 1000), closed(2, 7)];
    egresses.fill(&mut closing);
    assert_eq!(seen(&closing), [Some(gateway(31_000)), None]);
    let (found, missing) = (1, 3);
    assert_eq!(egresses.counts(), EgressCounts { found, missing });
}

#[test]
fn a_routed_flow_leaves_as_the_device() {
    let mut egresses = Egresses::open(config::Egress::Routed, FLOWS);
    let mut records = [open(1, 5000), denied(5001), closed(1, 5000)];
    egresses.fill(&mut records);
    let device = ("100.96.0.2".parse().expect("an address"), 5000);
    assert_eq!(seen(&records), [Some(device), None, Some(device)]);
}

#[test]
fn without_a_tracker_records_have_no_egress_and_are_counted() {
    let mut egresses = Egresses::new(Source::Unknown, FLOWS);
    let mut records = [open(1, 5000), denied(5001), closed(1, 5000)];
    egresses.fill(&mut records);
    assert_eq!(seen(&records), [None; 3]);
    let (found, missing) = (0, 2);
    assert_eq!(egresses.counts(), EgressCounts { found, missing });
}

#[test]
fn lost_closing_records_cost_no_memory_and_forget_the_oldest() {
    let kernel = Kernel::default();
    let mut egresses = kernel.egresses();
    let more = FLOWS as u64 + 3;
    let mut opening: Vec<Record> = (0..more).map(|flow| open(flow, 1000)).collect();
    egresses.fill(&mut opening);
    assert_eq!(egresses.remembered(), FLOWS);
    kernel.asked();
    egresses.fill(&mut [closed(more - 1, 1000)]);
    assert_eq!(kernel.asked(), [0; 0], "the youngest is remembered");
    let mut oldest = [closed(0, 1000)];
    egresses.fill(&mut oldest);
    assert_eq!(kernel.asked(), [1], "the oldest is asked for again");
    assert_eq!(seen(&oldest), [Some(gateway(31_000))]);
}
