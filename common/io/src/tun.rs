//! The TUN: super-packets in, super-packets out, and what to say when there is none.

use crate::fair::{self, Class, Fair};
use crate::hash;
use crate::join::Joinable;
use crate::offload::{Half, HalfState, Switches, Together};
use crate::split::SuperPacket;
use crate::virtio::{HEADER, VnetHeader};
use postern_proto::mtu::SUPER_PACKET;
use postern_proto::now::Mono;
use rustix::io::Errno;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use tun_rs::{DeviceBuilder, SyncDevice};

mod queues;
mod write;

pub use write::{TunTx, TunTxStats};

const _: () = assert!(HEADER + SUPER_PACKET <= fair::LARGE_BYTES);

/// Reads in a turn, at most: small packets come one by one.
pub const READS: usize = 128;

/// Packets or super-packets that the kernel queues towards us: its own default. With 32, every
/// second UDP packet is lost that comes in a burst or while we encrypt.
pub const DEFAULT_QUEUE: u32 = 500;

/// How the TUN is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Its IPv4 address with the length of the prefix.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address with the length of the prefix.
    pub v6: Option<(Ipv6Addr, u8)>,
    /// Packets or super-packets that the kernel queues towards us (txqueuelen).
    pub queue: u32,
    /// Whether to read and to write super-packets.
    pub offload: Switches,
}

/// Why there is no TUN.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name is empty, too long, or has characters that no interface may have.
    #[error("{0:?} cannot name an interface: 1 to 15 bytes, without '/', ':', '%' and white space")]
    BadName(String),
    /// The driver is missing.
    #[error(
        "this kernel has no TUN driver (/dev/net/tun): load it with `modprobe tun`; in a container, pass the device with --device /dev/net/tun"
    )]
    NoDriver,
    /// We may not.
    #[error(
        "no permission to create the interface {0}: it needs CAP_NET_ADMIN (run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    NotPermitted(String),
    /// There is one, and somebody holds it.
    #[error("the interface {0} exists and is in use; another program runs, or choose another name")]
    Busy(String),
    /// There is one, and it is something else.
    #[error("the interface {0} exists and is not a TUN; choose another name")]
    NotATun(String),
    /// Anything else.
    #[error("interface {name}: {source}")]
    Other {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The interface, before it is [split](Tun::split) into a reader and a writer. It disappears
/// when both are dropped.
pub struct Tun {
    device: Arc<SyncDevice>,
    name: String,
    read: Together,
    write: Together,
    v6: bool,
}

impl Tun {
    /// Creates the interface, gives it its addresses, and brings it up. On a host whose IPv6 is
    /// switched off it goes without [IPv6](Tun::has_v6).
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn open(options: &TunOptions) -> Result<Tun, TunError> {
        Tun::open_first(options, false)
    }

    /// The only queue, or with `multi_queue` the first of several.
    fn open_first(options: &TunOptions, multi_queue: bool) -> Result<Tun, TunError> {
        let name = &options.name;
        let impossible = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
        if !(1..=15).contains(&name.len())
            || name.contains(impossible)
            || name == "."
            || name == ".."
        {
            return Err(TunError::BadName(name.clone()));
        }
        let read = options.offload.allow(Half::TunRead);
        let write = options.offload.allow(Half::TunWrite);
        let device = match build(options, read || write, multi_queue) {
            // A kernel without offload refuses the ioctl. The second attempt tells whether that
            // was it.
            Err(_) if read || write => build(options, false, multi_queue),
            device => device,
        };
        let device = device.map_err(|source| explain(name, source))?;
        let v6 = options
            .v6
            .is_some_and(|(address, prefix)| add_v6(&device, name, address, prefix));
        let probed = Joinable {
            tcp: device.tcp_gso(),
            udp: device.udp_gso(),
        };
        if write && !read && probed.tcp {
            no_super_packets(&device).map_err(|source| explain(name, source))?;
        }
        device
            .set_nonblocking(true)
            .map_err(|source| explain(name, source))?;
        let name = device.name().map_err(|source| explain(name, source))?;
        Ok(Tun {
            device: Arc::new(device),
            name,
            read: Together::new(probed, read),
            write: Together::new(probed, write),
            v6,
        })
    }

    /// The name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has the IPv6 address that was asked for.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        self.v6
    }

    /// Independent halves on the same interface.
    #[must_use]
    pub fn split(self) -> (TunRx, TunTx) {
        let vnet = self.device.tcp_gso();
        let reader = TunRx {
            device: Arc::clone(&self.device),
            buffer: Fair::<u32>::spare(),
            waiting: Fair::default(),
            seed: hash::seed(),
            vnet,
            offload: self.read.state(0),
            stats: TunRxStats::default(),
        };
        let writer = TunTx::new(self.device, vnet, self.write);
        (reader, writer)
    }
}

fn build(options: &TunOptions, offload: bool, multi_queue: bool) -> io::Result<SyncDevice> {
    let mut builder = DeviceBuilder::new()
        .name(options.name.as_str())
        .mtu(options.mtu)
        .tx_queue_len(options.queue)
        .offload(offload)
        .multi_queue(multi_queue);
    if let Some((address, prefix)) = options.v4 {
        builder = builder.ipv4(address, prefix, None);
    }
    let device = builder.enable(false).build_sync()?;
    // Otherwise the kernel adds a link-local address, and routes that nobody asked for. Without
    // IPv6 there is no such switch, and no such address.
    let _ = crate::host::sysctl::set(
        &format!("net/ipv6/conf/{}/addr_gen_mode", options.name),
        "1",
    );
    device.enabled(true)?;
    Ok(device)
}

/// Tells the kernel to cut everything before we read it; what we write may still be joined.
fn no_super_packets(device: &SyncDevice) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a set of flags by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn add_v6(device: &SyncDevice, name: &str, address: Ipv6Addr, prefix: u8) -> bool {
    match device.add_address_v6(address, prefix) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(interface = name, %address, %error, "no IPv6 in the tunnel; it may be switched off on this host (sysctl net.ipv6.conf.all.disable_ipv6)");
            false
        }
    }
}

fn explain(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted(name.to_owned()),
        Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
        Some(libc::EINVAL) => TunError::NotATun(name.to_owned()),
        _ => TunError::Other {
            name: name.to_owned(),
            source,
        },
    }
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunRxStats {
    /// Reads that brought something.
    pub reads: u64,
    /// Packets in what was handed over.
    pub packets: u64,
    /// Reads that made no sense and were lost.
    pub bad: u64,
    /// Packets lost to keep the queue short.
    pub shed: u64,
    /// Packets marked to keep the queue short.
    pub marked: u64,
}

/// The reading half: what the kernel has is put in a [`Fair`] queue, and handed over from there.
pub struct TunRx {
    device: Arc<SyncDevice>,
    /// What the next read is written into.
    buffer: Box<[u8]>,
    waiting: Fair<u32>,
    seed: u64,
    vnet: bool,
    offload: HalfState,
    stats: TunRxStats,
}

impl TunRx {
    /// To wait for.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// What was read so far.
    #[must_use]
    pub fn stats(&self) -> TunRxStats {
        self.stats
    }

    /// Whether super-packets are read, and of what.
    #[must_use]
    pub fn offload(&self) -> HalfState {
        self.offload.clone()
    }

    /// What was read and not handed over yet.
    #[must_use]
    pub fn waiting(&self) -> &Fair<u32> {
        &self.waiting
    }

    /// Reads what is there, up to [`READS`] packets or super-packets.
    ///
    /// # Errors
    /// When the interface is gone: somebody deleted it.
    pub fn take_in(&mut self, now: Mono) -> io::Result<()> {
        for _ in 0..READS {
            if self.waiting.room(now) == 0 {
                break;
            }
            let len = match rustix::io::read(&self.device, &mut self.buffer[..]) {
                Ok(len) => len,
                Err(Errno::AGAIN) => {
                    self.waiting.kernel_has_more(false, now);
                    return Ok(());
                }
                Err(Errno::INTR) => continue,
                // Some kernels have no words for a packet (EINVAL): it is lost, the next is not.
                Err(error) if self.device.name().is_ok() => {
                    tracing::debug!(%error, "read from the TUN failed");
                    self.stats.bad += 1;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            self.stats.reads += 1;
            let read = &self.buffer[..len];
            let (packets, packet) = match read.split_first_chunk::<HEADER>() {
                Some((header, packet)) if self.vnet => {
                    (VnetHeader::parse(header).packets_in(packet.len()), packet)
                }
                _ => (1, read),
            };
            let class = Class::of_packet(packet, self.seed);
            let lost = self.waiting.push(class, &mut self.buffer, len, packets);
            self.stats.shed += u64::from(lost.unwrap_or(0));
        }
        self.waiting.kernel_has_more(true, now);
        Ok(())
    }

    /// Hands over what is next, until `most` bytes have come.
    pub fn hand_out(&mut self, most: usize, now: Mono, mut handle: impl FnMut(SuperPacket<'_>)) {
        let mut bytes = 0;
        for _ in 0..READS {
            if bytes >= most {
                break;
            }
            let Some(mut next) = self.waiting.pop(now) else {
                break;
            };
            bytes += next.len;
            match parse(self.vnet, &mut next.buffer[..next.len]) {
                None => self.stats.bad += 1,
                Some(packet) => {
                    if let Some(packet) = self.stats.admit(packet, next.congested) {
                        self.stats.packets += packet.segments() as u64;
                        handle(packet);
                    }
                }
            }
            self.waiting.recycle(next.buffer);
        }
    }
}

#[cfg(test)]
impl TunRx {
    /// Everything at once.
    pub(crate) fn receive(
        &mut self,
        most: usize,
        handle: impl FnMut(SuperPacket<'_>),
    ) -> io::Result<()> {
        self.take_in(Mono(0))?;
        self.hand_out(most, Mono(0), handle);
        Ok(())
    }
}

impl TunRxStats {
    /// A sender that is to slow down is told by a mark if it understands marks, or else by the
    /// loss of one packet.
    fn admit<'a>(
        &mut self,
        mut packet: SuperPacket<'a>,
        congested: bool,
    ) -> Option<SuperPacket<'a>> {
        if congested {
            if packet.mark() {
                self.marked += 1;
            } else if packet.segments() == 1 {
                self.shed += 1;
                return None;
            } else if packet.shed_last() {
                self.shed += 1;
            }
        }
        Some(packet)
    }
}

fn parse(vnet: bool, bytes: &mut [u8]) -> Option<SuperPacket<'_>> {
    if !vnet {
        return Some(SuperPacket::plain(bytes));
    }
    let (header, packet) = bytes.split_first_chunk_mut::<HEADER>()?;
    match SuperPacket::parse(VnetHeader::parse(header), packet) {
        Ok(packet) => Some(packet),
        Err(error) => {
            tracing::debug!(%error, "packet from the TUN dropped");
            None
        }
    }
}

#[cfg(test)]
mod tests;
