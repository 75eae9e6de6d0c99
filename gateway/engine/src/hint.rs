//! Hints: what the first bytes of a TCP flow say in clear about its protocol.
//!
//! They are read from packets that pass, never held back: a hint describes a flow in its closing
//! record and decides nothing. Only names are kept (an identification string, a host name), never
//! payload.
//!
//! | file | what it does |
//! |---|---|
//! | `hint.rs` | which flows are watched, and until when |
//! | `hint/stream.rs` | the first bytes of one direction, in order |
//! | `hint/read.rs` | SSH and HTTP; `hint/tls.rs` TLS |
//!
//! A flow whose first segment says everything (most of HTTP and of TLS) needs no memory. Any other
//! one takes a place among [`WATCHES`]; when all are taken, the flow watched for longest loses its
//! place and its hint, so that flows that never say anything cannot keep others from being read.

mod read;
mod stream;
mod tls;

use crate::record::{App, Hints};
use postern_proto::packet::{PacketView, Tcp, TcpFlags};
use read::Told;
use stream::Stream;

/// Flows of a shard that may be watched at once. Each holds at most twice [`FROM_DEVICE`] and twice
/// [`FROM_TARGET`] (in order, and ahead of a gap): 4.8 MiB in all at worst.
pub const WATCHES: usize = 512;
/// Bytes looked at from a device: a post-quantum ClientHello has 1500 to 2000.
pub const FROM_DEVICE: usize = 4096;
/// Bytes looked at from a target.
pub const FROM_TARGET: usize = 512;
/// Segments with payload looked at, of both directions together.
pub const SEGMENTS: u8 = 64;

/// What is known of a flow's protocol. Lives in the flow, as small as it can be.
#[derive(Debug, Default)]
pub enum Hint {
    /// Nothing is known, and nobody looks.
    #[default]
    Nothing,
    /// Neither end has said anything yet: the sequence numbers of their first bytes.
    Fresh {
        /// Of the device.
        out: u32,
        /// Of the target, once it has answered.
        back: Option<u32>,
    },
    /// It is being watched, unless a newer flow took its place.
    Watched(u64),
    /// Known.
    Found(Box<Hints>),
}

impl Hint {
    /// Of a flow that this SYN opens.
    #[must_use]
    pub fn opened_by(syn: &Tcp) -> Hint {
        Hint::Fresh {
            out: syn.sequence.wrapping_add(1),
            back: None,
        }
    }

    /// Its packets are still looked at.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Hint::Fresh { .. } | Hint::Watched(_))
    }
}

/// The flows of a shard that have said something, but not enough.
#[derive(Debug, Default)]
pub struct Watches {
    /// Place `n % WATCHES` holds watch `n`; no place is made before it is needed.
    ring: Vec<Option<Watch>>,
    begun: u64,
    live: usize,
    displaced: u64,
}

impl Watches {
    /// The hint of a flow that the device opens with this packet.
    #[cold] // It happens once in a flow, and the code of every packet stays small without it.
    #[must_use]
    pub fn opened_by(&mut self, view: &PacketView<'_>) -> Hint {
        let Some(syn) = view.tcp() else {
            return Hint::Nothing;
        };
        let mut hint = Hint::opened_by(syn);
        self.device_sent(&mut hint, syn, view.tcp_payload());
        hint
    }

    /// A packet of the device passes in a flow that is still looked at.
    #[cold]
    pub fn passes_out(&mut self, hint: &mut Hint, view: &PacketView<'_>) {
        if let Some(tcp) = view.tcp() {
            self.device_sent(hint, tcp, view.tcp_payload());
        }
    }

    /// A packet of the target passes in a flow that is still looked at.
    #[cold]
    pub fn passes_back(&mut self, hint: &mut Hint, view: &PacketView<'_>) {
        if let Some(tcp) = view.tcp() {
            self.target_sent(hint, tcp, view.tcp_payload());
        }
    }

    /// The device sent a segment of a flow.
    pub fn device_sent(&mut self, hint: &mut Hint, tcp: &Tcp, payload: &[u8]) {
        match hint {
            // A SYN sent again may begin elsewhere while nobody has answered it.
            Hint::Fresh { out, back: None } if tcp.flags.opens() => {
                *out = tcp.sequence.wrapping_add(1);
            }
            Hint::Fresh { .. } | Hint::Watched(_) => {}
            Hint::Nothing | Hint::Found(_) => return,
        }
        if payload.is_empty() {
            return;
        }
        if let Hint::Fresh { out, .. } = hint
            && *out == first_byte(tcp)
            && let Some(hints) = read::client(clip(payload, FROM_DEVICE)).alone()
        {
            *hint = Hint::Found(hints);
            return;
        }
        self.hear(hint, End::Device, tcp, payload);
    }

    /// The target sent a segment of a flow.
    pub fn target_sent(&mut self, hint: &mut Hint, tcp: &Tcp, payload: &[u8]) {
        let start = tcp.sequence.wrapping_add(1);
        match hint {
            Hint::Fresh { back, .. } if tcp.flags.has(TcpFlags::SYN) => *back = Some(start),
            // The device's SYN carried data.
            Hint::Watched(n) if tcp.flags.has(TcpFlags::SYN) => {
                if let Some(watch) = self.find(*n) {
                    watch.back.begins(start);
                }
            }
            Hint::Fresh { .. } | Hint::Watched(_) => {}
            Hint::Nothing | Hint::Found(_) => return,
        }
        if !payload.is_empty() {
            self.hear(hint, End::Target, tcp, payload);
        }
    }

    /// The flow is over: what is known of it, as far as it came.
    pub fn take(&mut self, hint: &mut Hint) -> Option<Box<Hints>> {
        match std::mem::take(hint) {
            Hint::Found(hints) => Some(hints),
            Hint::Watched(n) => self.end(n),
            Hint::Nothing | Hint::Fresh { .. } => None,
        }
    }

    /// Flows watched now: at most [`WATCHES`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// None is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Flows whose place was taken by a newer one before they had said enough: they have no hint.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    fn hear(&mut self, hint: &mut Hint, end: End, tcp: &Tcp, payload: &[u8]) {
        if let Hint::Fresh { out, back } = *hint {
            *hint = Hint::Watched(self.begin(Watch::new(out, back)));
        }
        let Hint::Watched(n) = *hint else { return };
        let Some(watch) = self.find(n) else {
            *hint = Hint::Nothing;
            return;
        };
        watch.hear(end, first_byte(tcp), payload);
        if watch.is_over() {
            *hint = self.end(n).map_or(Hint::Nothing, Hint::Found);
        }
    }

    fn begin(&mut self, watch: Watch) -> u64 {
        let n = self.begun;
        self.begun += 1;
        let watch = Some(Watch { n, ..watch });
        match self.ring.get_mut(place(n)) {
            Some(place) => match std::mem::replace(place, watch) {
                Some(_) => self.displaced += 1,
                None => self.live += 1,
            },
            None => {
                self.ring.push(watch);
                self.live += 1;
            }
        }
        n
    }

    fn find(&mut self, n: u64) -> Option<&mut Watch> {
        self.ring
            .get_mut(place(n))?
            .as_mut()
            .filter(|watch| watch.n == n)
    }

    fn end(&mut self, n: u64) -> Option<Box<Hints>> {
        self.find(n)?;
        let watch = self.ring.get_mut(place(n))?.take()?;
        self.live -= 1;
        watch.hints()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Device,
    Target,
}

/// One flow, while it is read.
#[derive(Debug)]
struct Watch {
    n: u64,
    out: Stream<FROM_DEVICE>,
    back: Stream<FROM_TARGET>,
    client: Told,
    server: Told,
    segments: u8,
}

impl Watch {
    fn new(out: u32, back: Option<u32>) -> Watch {
        Watch {
            n: 0,
            out: Stream::new(Some(out)),
            back: Stream::new(back),
            client: Told::Unsure,
            server: Told::Unsure,
            segments: 0,
        }
    }

    fn hear(&mut self, end: End, sequence: u32, payload: &[u8]) {
        self.segments = self.segments.saturating_add(1);
        match end {
            End::Device if self.client == Told::Unsure => {
                self.out.take_in(sequence, payload);
                self.client = read::client(self.out.heard());
                if !self.out.takes_more() {
                    self.client = self.client_at_last();
                }
            }
            End::Target if self.server == Told::Unsure => {
                self.back.take_in(sequence, payload);
                self.server = read::server(self.back.heard());
                if self.server == Told::Unsure && !self.back.takes_more() {
                    self.server = Told::Other;
                }
            }
            End::Device | End::Target => {}
        }
    }

    /// Nothing more is to be learned, or it is not worth more.
    fn is_over(&self) -> bool {
        let decided = |told: &Told| *told != Told::Unsure;
        self.segments >= SEGMENTS
            || matches!(self.client, Told::Http | Told::Tls(_))
            || decided(&self.client) && decided(&self.server)
    }

    /// What the client said, if there is no more to come.
    fn client_at_last(&mut self) -> Told {
        let told = std::mem::take(&mut self.client);
        match told {
            Told::Unsure if tls::begins(self.out.heard()) => Told::Tls(None),
            Told::Unsure => Told::Other,
            Told::Other | Told::Http | Told::Ssh(_) | Told::Tls(_) => told,
        }
    }

    fn hints(mut self) -> Option<Box<Hints>> {
        match (self.client_at_last(), self.server) {
            (Told::Ssh(client), Told::Ssh(server)) => Some(ssh(Some(client), Some(server))),
            (Told::Ssh(client), _) => Some(ssh(Some(client), None)),
            (Told::Other, Told::Ssh(server)) => Some(ssh(None, Some(server))),
            (client, _) => client.alone(),
        }
    }
}

impl Told {
    /// What this says without the other end.
    fn alone(self) -> Option<Box<Hints>> {
        let (app, tls_sni) = match self {
            Told::Tls(name) => (App::Tls, name),
            Told::Http => (App::Http, None),
            Told::Unsure | Told::Other | Told::Ssh(_) => return None,
        };
        Some(Box::new(Hints {
            app,
            ssh_client: None,
            ssh_server: None,
            tls_sni,
        }))
    }
}

fn ssh(ssh_client: Option<Box<str>>, ssh_server: Option<Box<str>>) -> Box<Hints> {
    Box::new(Hints {
        app: App::Ssh,
        ssh_client,
        ssh_server,
        tls_sni: None,
    })
}

fn place(n: u64) -> usize {
    usize::try_from(n % WATCHES as u64).unwrap_or(0)
}

/// The sequence number of the first byte of payload: a SYN counts before it.
fn first_byte(tcp: &Tcp) -> u32 {
    tcp.sequence
        .wrapping_add(u32::from(tcp.flags.has(TcpFlags::SYN)))
}

fn clip(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
