//! What the first bytes of a flow show, found as naively as possible: everything that passed is
//! kept, put together from the start each time, and compared with what programs say here.

use crate::packet::{self, Packet, SYN};
use crate::speech::{self, Speech, TLS_SHOWN};
use postern_engine::record::{App, Hints};

/// Segments with payload that the gateway looks at.
const SEGMENTS: usize = 64;
/// Segments ahead of a gap that it keeps for each direction.
const EARLY: usize = 8;

/// What passed, as far as the gateway looks at it.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// None for a flow that was taken up in the middle: nobody knows where it began.
    ends: Option<(End, End)>,
    segments: usize,
}

#[derive(Clone, Debug)]
struct End {
    first: Option<u32>,
    /// Bytes looked at.
    most: usize,
    kept: Vec<(usize, Vec<u8>)>,
}

impl Said {
    /// Nothing yet, by a flow that a SYN opens.
    pub(super) fn nothing() -> Said {
        let end = |most| End {
            first: None,
            most,
            kept: Vec::new(),
        };
        Said {
            ends: Some((end(4096), end(512))),
            segments: 0,
        }
    }

    /// A packet passed.
    pub(super) fn hear(&mut self, packet: &Packet, out: bool) {
        let (Some((device, target)), Some(segment)) = (&mut self.ends, packet.segment()) else {
            return;
        };
        if out && segment.opens() && target.first.is_none() && device.kept.is_empty() {
            device.first = Some(segment.seq.wrapping_add(1));
        }
        if !out && segment.has(SYN) && target.kept.is_empty() {
            target.first = Some(segment.seq.wrapping_add(1));
        }
        let payload = packet::payload(packet);
        if payload.is_empty() || self.segments >= SEGMENTS {
            return;
        }
        self.segments += 1;
        let end = if out { device } else { target };
        end.keep(segment.seq, payload);
    }

    /// What all that shows.
    pub(super) fn shows(&self) -> Option<Hints> {
        let (device, target) = self.ends.as_ref()?;
        let client = device.shows(device.first.map(speech::client));
        let server = target.shows(target.first.map(speech::server));
        match (client, server) {
            (Some(client), Some(server)) if client.app == App::Ssh => Some(Hints {
                ssh_server: server.ssh_server,
                ..client
            }),
            (client, server) => client.or(server),
        }
    }
}

impl End {
    fn keep(&mut self, seq: u32, payload: &[u8]) {
        let Some(first) = self.first else { return };
        let at = seq.wrapping_sub(first) as usize;
        if at >= self.most {
            return;
        }
        let payload = &payload[..payload.len().min(self.most - at)];
        let together = self.together().len();
        let early: Vec<usize> = self
            .kept
            .iter()
            .filter(|(at, _)| *at > together)
            .map(|(_, early)| early.len())
            .collect();
        let room = early.len() < EARLY && early.iter().sum::<usize>() + payload.len() <= self.most;
        if at <= together || room {
            self.kept.push((at, payload.to_vec()));
        }
    }

    /// Everything up to the first gap.
    fn together(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((at, bytes)) = self
            .kept
            .iter()
            .find(|(at, bytes)| *at <= all.len() && at + bytes.len() > all.len())
        {
            all.extend(&bytes[all.len() - at..]);
        }
        all
    }

    fn shows(&self, speech: Option<&Speech>) -> Option<Hints> {
        let (speech, heard) = (speech?, self.together());
        let shows = speech.shows.clone()?;
        if heard.starts_with(&speech.bytes[..speech.shown_after]) {
            return Some(shows);
        }
        let begun = heard.starts_with(&speech.bytes[..TLS_SHOWN]);
        (shows.app == App::Tls && begun).then(|| speech::shown(App::Tls, None))
    }
}
