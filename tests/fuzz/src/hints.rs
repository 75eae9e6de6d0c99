//! The first bytes of a TCP connection, cut and mixed up.

use postern_engine::hint::{Hint, Watches};
use postern_engine::record::Hints;
use postern_proto::packet::{Tcp, TcpFlags};
use postern_sim::dice::{Bytes, Dice};

/// Pieces of each end; more than so many ahead of a gap are not kept.
const PIECES: usize = 6;

/// The first bytes say how, the rest is what the client says, then what the server says.
pub fn hints(data: &[u8]) {
    let Some((how, said)) = data.split_at_checked(40) else {
        return;
    };
    let mut dice = Bytes(how);
    let (device, target) = said.split_at(dice.index(said.len() + 1));
    let start = u32::from_be_bytes([dice.byte(), dice.byte(), 0xff, dice.byte()]);
    let ends = [(true, device), (false, target)];
    let whole = listen(start, &ends.map(|(out, said)| (out, 0, said)));
    let mut pieces = Vec::new();
    for (out, said) in ends {
        let mut at = 0;
        for _ in 1..PIECES {
            let len = dice.index(said.len() - at + 1);
            pieces.push((out, at, &said[at..at + len]));
            at += len;
        }
        pieces.push((out, at, &said[at..]));
    }
    for last in (1..pieces.len()).rev() {
        pieces.swap(last, dice.index(last + 1));
    }
    assert_eq!(listen(start, &pieces), whole, "{pieces:?}");
    let Some(hints) = whole else { return };
    for text in [hints.ssh_client, hints.ssh_server, hints.tls_sni] {
        let text = text.unwrap_or_default();
        assert!(text.len() <= 253 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}

fn listen(start: u32, pieces: &[(bool, usize, &[u8])]) -> Option<Hints> {
    let segment = |out: bool, at: usize, flags: u8| Tcp {
        source_port: 1,
        destination_port: 2,
        sequence: start
            .wrapping_mul(if out { 1 } else { 7 })
            .wrapping_add(u32::try_from(at).unwrap_or(u32::MAX)),
        acknowledgment: 0,
        flags: TcpFlags(flags),
        payload: 0,
    };
    let mut watches = Watches::default();
    let mut hint = Hint::opened_by(&segment(true, 0, 2));
    watches.target_sent(&mut hint, &segment(false, 0, 18), &[]);
    for (out, at, payload) in pieces {
        let tcp = segment(*out, at + 1, 24);
        match out {
            true => watches.device_sent(&mut hint, &tcp, payload),
            false => watches.target_sent(&mut hint, &tcp, payload),
        }
    }
    let hints = watches.take(&mut hint);
    assert!(watches.is_empty(), "a watch outlives its flow");
    hints.map(|hints| *hints)
}
