//! Targets: just enough of TCP, UDP and ping to answer, and to notice what should not come.

use crate::model::key_of;
use crate::packet::{self, ACK, FIN, Key, PSH, Packet, RST, SYN, Segment, What};
use crate::speech;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where targets live. The last of the first family never answers.
pub const HOSTS: [&str; 6] = [
    "192.0.2.10",
    "192.0.2.11",
    "192.0.2.53",
    "192.0.2.66",
    "2001:db8::10",
    "100.96.0.1",
];
const SILENT: &str = "192.0.2.66";

/// All targets.
#[derive(Debug, Default)]
pub struct Targets {
    conns: BTreeMap<Key, Conn>,
    /// The newest stamp seen, by flow.
    stamps: BTreeMap<Key, u64>,
    /// Packets received.
    pub received: u64,
}

#[derive(Clone, Copy, Debug)]
struct Conn {
    next_out: u32,
    next_in: u32,
    fin: bool,
    /// Sequence number of the first byte.
    first: u32,
    /// Bytes of its speech that were said.
    said: usize,
}

impl Targets {
    /// A packet arrives; what the target answers. Stamps above `ordered_from` must be in order.
    pub fn receive(&mut self, packet: &Packet, ordered_from: u64) -> Result<Vec<Packet>, String> {
        self.received += 1;
        let Some(key) = key_of(packet, true) else {
            return Ok(Vec::new());
        };
        if let Some(stamp) = read_stamp(packet) {
            let last = self.stamps.insert(key, stamp);
            if last.is_some_and(|last| stamp <= last && stamp > ordered_from) {
                return Err(format!(
                    "order: {key:?} got stamp {stamp} at the target after {last:?}"
                ));
            }
        }
        if silent(packet.to) {
            return Ok(Vec::new());
        }
        Ok(match packet.what {
            What::Tcp(segment) => self.segment(key, &segment),
            What::Udp { to: 53, from } => vec![packet::udp(
                (packet.to, 53),
                (packet.from, from),
                packet::payload(packet),
            )],
            What::Udp { .. } => packet::unreachable(packet).into_iter().collect(),
            What::Echo { request: true, id } => vec![packet::echo(
                packet.to,
                packet.from,
                false,
                id,
                packet::payload(packet),
            )],
            What::Echo { .. }
            | What::Error { .. }
            | What::Control(_)
            | What::Probe(_)
            | What::Broken(_) => Vec::new(),
        })
    }

    fn segment(&mut self, key: Key, segment: &Segment) -> Vec<Packet> {
        if segment.has(RST) {
            // RFC 5961: only the exact number resets; near misses are challenged.
            return match self.conns.get(&key) {
                Some(conn) if conn.next_in == segment.seq => {
                    self.conns.remove(&key);
                    Vec::new()
                }
                Some(conn) => vec![answer(&key, ACK, conn.next_out, conn.next_in, &[])],
                None => Vec::new(),
            };
        }
        if segment.opens() {
            if !matches!(key.target.1, 22 | 6443) {
                return vec![answer(&key, RST | ACK, 0, segment.next(), &[])];
            }
            let start = segment.seq.wrapping_mul(2_654_435_761);
            self.conns.insert(
                key,
                Conn {
                    next_out: start.wrapping_add(1),
                    next_in: segment.next(),
                    fin: false,
                    first: start.wrapping_add(1),
                    said: 0,
                },
            );
            let reply = Segment {
                from: key.target.1,
                to: key.client.1,
                flags: SYN | ACK,
                seq: start,
                ack: segment.next(),
                payload: 0,
            };
            return vec![packet::tcp(
                key.target.0,
                key.client.0,
                reply,
                &[],
                Some(8960),
            )];
        }
        let Some(conn) = self.conns.get_mut(&key) else {
            return vec![answer(&key, RST, segment.ack, 0, &[])];
        };
        if segment.next().wrapping_sub(conn.next_in) < 1 << 31 {
            conn.next_in = segment.next();
        }
        if segment.has(FIN) {
            let flags = if std::mem::replace(&mut conn.fin, true) {
                ACK
            } else {
                FIN | ACK
            };
            let reply = answer(&key, flags, conn.next_out, conn.next_in, &[]);
            conn.next_out = conn.next_out.wrapping_add(u32::from(flags != ACK));
            return vec![reply];
        }
        let mut words = Vec::new();
        let speech = &speech::server(conn.first).bytes;
        while let Some(payload) = speech::piece(speech, conn.said, conn.first) {
            words.push(answer(
                &key,
                PSH | ACK,
                conn.next_out,
                conn.next_in,
                payload,
            ));
            conn.said += payload.len();
            let len = u32::try_from(payload.len()).unwrap_or(0);
            conn.next_out = conn.next_out.wrapping_add(len);
        }
        words
    }

    /// The target has data for the laptop: one segment each. It begins with what targets say
    /// first, in pieces of the same lengths.
    pub fn push(&mut self, key: &Key, payloads: &[Vec<u8>]) -> Vec<Packet> {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| !conn.fin) else {
            return Vec::new();
        };
        payloads
            .iter()
            .map(|payload| {
                let rest = &speech::server(conn.first).bytes[conn.said..];
                let payload = if rest.is_empty() {
                    payload
                } else {
                    let piece = &rest[..rest.len().min(payload.len())];
                    conn.said += piece.len();
                    piece
                };
                let segment = answer(key, PSH | ACK, conn.next_out, conn.next_in, payload);
                conn.next_out = conn
                    .next_out
                    .wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
                segment
            })
            .collect()
    }

    /// The target closes or aborts.
    pub fn close(&mut self, key: &Key, abort: bool) -> Option<Packet> {
        let conn = self.conns.get_mut(key).filter(|conn| !conn.fin)?;
        conn.fin = true;
        let packet = answer(
            key,
            if abort { RST } else { FIN | ACK },
            conn.next_out,
            conn.next_in,
            &[],
        );
        conn.next_out = conn.next_out.wrapping_add(u32::from(!abort));
        if abort {
            self.conns.remove(key);
        }
        Some(packet)
    }

    /// Connections that the targets hold.
    #[must_use]
    pub fn open(&self) -> Vec<Key> {
        self.conns.keys().copied().collect()
    }

    /// Whether the target still holds this connection.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.conns.contains_key(key)
    }
}

fn silent(host: IpAddr) -> bool {
    SILENT.parse() == Ok(host)
}

fn answer(key: &Key, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Packet {
    let segment = Segment {
        from: key.target.1,
        to: key.client.1,
        flags,
        seq,
        ack,
        payload: 0,
    };
    packet::tcp(key.target.0, key.client.0, segment, payload, None)
}

/// A payload that begins with a stamp.
#[must_use]
pub fn stamped(stamp: u64, len: usize) -> Vec<u8> {
    let mut payload = b"stmp".to_vec();
    payload.extend(stamp.to_be_bytes());
    payload.resize(len.max(12), b'.');
    payload
}

/// The stamp, if the payload begins with one.
#[must_use]
pub fn read_stamp(packet: &Packet) -> Option<u64> {
    let stamp = packet::payload(packet).strip_prefix(b"stmp")?;
    Some(u64::from_be_bytes(*stamp.first_chunk()?))
}
