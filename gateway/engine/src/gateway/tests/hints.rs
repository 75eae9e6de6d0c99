//! What closing records say of a flow's protocol.

use super::*;
use crate::record::Closed;

const CURL: &[u8] = include_bytes!("../../hint/heard/curl.hello");
const PSH: u8 = 24;

fn data(from: (&str, u16), to: (&str, u16), seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = tcp(PSH, from, to, seq, 1);
    packet.extend(payload);
    let len = u16::try_from(packet.len()).expect("short");
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

fn closed(world: &mut World) -> Closed {
    let closing = world.records().pop().expect("a record");
    match closing.detail {
        Detail::Closed(closed) => closed,
        Detail::Open(_) | Detail::Denied(_) => panic!("{closing:?}"),
    }
}

fn end(world: &mut World) -> Closed {
    let (mut outs, now) = (Outs::default(), world.now);
    world.gateway.kill(now.mono, &mut outs, now, |_, _| true);
    closed(world)
}

#[test]
fn a_closing_record_names_the_host_of_a_hello_in_two_segments() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.target.clear();
    let (first, second) = CURL.split_at(200);
    world.send(0, &data(LAPTOP, KUBE, 301, second));
    assert_eq!(world.gateway.hints().len(), 1);
    world.send(0, &data(LAPTOP, KUBE, 101, first));
    assert_eq!(world.target.len(), 2, "nothing waits for anything");
    assert!(world.gateway.hints().is_empty());
    let line = serde_json::to_value(end(&mut world)).expect("JSON");
    assert_eq!(
        (&line["app"], &line["tls_sni"]),
        (&"tls".into(), &"kube.example.com".into())
    );
    assert!(line.get("ssh_client").is_none() && line.get("hints").is_none());
}

#[test]
fn both_ends_of_ssh_are_named() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let (ours, theirs) = ("SSH-2.0-OpenSSH_9.2p1", "SSH-2.0-dropbear_2022.83");
    world.reply(&data(KUBE, LAPTOP, 901, format!("{theirs}\r\n").as_bytes()));
    world.send(
        0,
        &data(LAPTOP, KUBE, 101, format!("{ours}\r\n").as_bytes()),
    );
    let line = serde_json::to_value(end(&mut world)).expect("JSON");
    assert_eq!(line["app"], "ssh");
    assert_eq!(
        (line["ssh_client"].as_str(), line["ssh_server"].as_str()),
        (Some(ours), Some(theirs))
    );
}

#[test]
fn a_flow_taken_up_in_the_middle_has_no_hint() {
    let mut world = World::new(&["platform"]);
    world.send(0, &data(LAPTOP, KUBE, 101, CURL));
    let closed = end(&mut world);
    assert!(closed.resumed && closed.hints.is_none());
}

#[test]
fn a_watch_ends_with_its_flow() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.send(0, &data(LAPTOP, KUBE, 101, &CURL[..90]));
    assert_eq!(world.gateway.hints().len(), 1);
    let hints = end(&mut world).hints.expect("it began as a ClientHello");
    assert_eq!(hints.tls_sni, None);
    assert!(world.gateway.hints().is_empty());
}
