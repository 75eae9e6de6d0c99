//! Packets together: what was decrypted in one turn is written to the TUN as super-packets, so
//! that the kernel walks its stack once for forty packets, and acknowledges them once.
//!
//! A packet joins only the newest group of its flow, and only if splitting the group again gives
//! the same packets; whatever else comes on that flow ends its group. So the order within a flow
//! never changes. Checksums are verified before joining, because the kernel believes a
//! super-packet: a corrupt packet is passed on as it is, alone.

use crate::hash;
use crate::virtio::{HEADER, VnetHeader};
use postern_proto::mtu::PACKET_ROOM;
use std::io::IoSlice;

mod shape;
use shape::{Flow, Shape, UDP, long, word};

/// Packets that wait at most.
pub const MAX_PACKETS: usize = 512;

/// Bytes of the arena that they wait in. Memory for each worker: this and 64 KiB of bookkeeping.
pub const ARENA: usize = 768 * 1024;

/// Packets in one super-packet (each costs one entry of a writev).
pub const MAX_MEMBERS: usize = 128;

/// UDP datagrams in one super-packet: the kernel refuses more (UDP_MAX_SEGMENTS).
const MAX_UDP_MEMBERS: usize = 64;

/// Bytes of one super-packet, headers included; the IPv4 length field ends at 65 535.
const MAX_SUPER: usize = 65_000;

/// Packets start at a cache line.
const ALIGN: usize = 64;

/// Twice the packets, so that a probe in the flow table is short.
const TABLE: usize = 2 * MAX_PACKETS;

const MAX_HEADER: usize = 40 + 60;
const _: () = assert!(PACKET_ROOM <= ARENA && MAX_PACKETS < u16::MAX as usize);
const _: () = assert!(TABLE.is_power_of_two());

/// What may be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joinable {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams (Linux 6.2 and later).
    pub udp: bool,
}

/// Packets on their way to the TUN.
#[derive(Debug)]
pub struct Joiner {
    joinable: Joinable,
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<Packet>,
    groups: Vec<Group>,
    /// The newest group of each flow, by hash; an entry counts if its stamp is the present one.
    newest: Box<[Entry]>,
    stamp: u32,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    start: usize,
    len: usize,
    /// The next packet of its group.
    next: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    stamp: u32,
    group: u16,
}

/// Packets that are written together.
#[derive(Clone, Copy, Debug)]
struct Group {
    first: u16,
    last: u16,
    members: usize,
    /// Payload bytes of all members.
    payload: usize,
    /// Whether another packet may join.
    open: bool,
    /// Whether the checksum of the first is known to be right.
    verified: bool,
    /// Whether the last one has PSH.
    push: bool,
    /// What the first looks like; nothing for a packet that cannot be joined.
    shape: Option<Shape>,
}

/// What to write to the TUN at once.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The virtio header, then the packet or super-packet in pieces: for writev.
    pub slices: &'a [IoSlice<'a>],
    joiner: &'a Joiner,
    group: &'a Group,
}

impl<'a> Joined<'a> {
    /// How many packets it holds.
    #[must_use]
    pub fn members(&self) -> usize {
        self.group.members
    }

    /// Whether they are UDP datagrams; TCP segments otherwise, where it holds more than one.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        let shape = self.group.shape.as_ref();
        shape.is_some_and(|shape| shape.flow.protocol == UDP)
    }

    /// Bytes of its packets as they came.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.packets().map(<[u8]>::len).sum()
    }

    /// The packets as they came, for a kernel that does not take them together.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> {
        let joiner = self.joiner;
        std::iter::successors(Some(self.group.first), |packet| {
            joiner.packets[usize::from(*packet)].next
        })
        .map(|packet| joiner.packet(packet))
    }
}

impl Joiner {
    /// An empty one. This is the only place that allocates.
    #[must_use]
    pub fn new(joinable: Joinable) -> Joiner {
        Joiner {
            joinable,
            arena: vec![0; ARENA].into_boxed_slice(),
            used: 0,
            packets: Vec::with_capacity(MAX_PACKETS),
            groups: Vec::with_capacity(MAX_PACKETS),
            newest: vec![Entry::default(); TABLE].into_boxed_slice(),
            stamp: 1,
            seed: hash::seed(),
        }
    }

    /// From now on, joins only these.
    pub fn set_joinable(&mut self, joinable: Joinable) {
        self.joinable = joinable;
    }

    /// Whether a slot can be had before the packets must be written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.packets.len() < MAX_PACKETS && ARENA - self.used >= PACKET_ROOM
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// A place to write one packet into, of [`PACKET_ROOM`] bytes if there [is
    /// room](Joiner::has_room). A slot that was not committed is handed out again.
    pub fn slot(&mut self) -> &mut [u8] {
        let end = (self.used + PACKET_ROOM).min(ARENA);
        &mut self.arena[self.used..end]
    }

    /// The first `len` bytes of the last slot are a packet.
    pub fn commit(&mut self, len: usize) {
        let len = len.min(ARENA - self.used);
        if len == 0 || self.packets.len() >= MAX_PACKETS {
            return;
        }
        let packet = self.packets.len() as u16;
        let bytes = &self.arena[self.used..self.used + len];
        let shape = Shape::of(bytes, self.joinable);
        self.packets.push(Packet {
            start: self.used,
            len,
            next: None,
        });
        self.used = (self.used + len).next_multiple_of(ALIGN).min(ARENA);

        let Some(shape) = shape else {
            // It might belong to any flow (a fragment, say): nothing passes it.
            self.stamp = self.stamp.wrapping_add(1);
            self.groups.push(Group::alone(packet, None));
            return;
        };
        let place = self.find(&shape.flow);
        let newest = self.newest[place];
        if newest.stamp == self.stamp && self.join(newest.group, packet, &shape) {
            return;
        }
        self.newest[place] = Entry {
            stamp: self.stamp,
            group: self.groups.len() as u16,
        };
        self.groups.push(Group::alone(packet, Some(shape)));
    }

    /// Hands over everything in order and starts anew.
    pub fn drain(&mut self, mut write: impl FnMut(Joined<'_>)) {
        for group in &self.groups {
            self.hand_over(group, &mut write);
        }
        self.used = 0;
        self.packets.clear();
        self.groups.clear();
        self.stamp = self.stamp.wrapping_add(1);
    }

    /// Where the newest group of `flow` is noted, or is to be.
    fn find(&self, flow: &Flow) -> usize {
        let mut place = flow.hash(self.seed);
        loop {
            place &= TABLE - 1;
            let entry = self.newest[place];
            if entry.stamp != self.stamp {
                return place;
            }
            let shape = &self.groups[usize::from(entry.group)].shape;
            if shape.as_ref().is_some_and(|shape| shape.flow == *flow) {
                return place;
            }
            place += 1; // The table is never more than half full.
        }
    }

    /// Adds the packet to the group, if splitting would give it back unchanged.
    fn join(&mut self, group: u16, packet: u16, shape: &Shape) -> bool {
        let place = usize::from(group);
        let group = &self.groups[place];
        let Some(head) = &group.shape else {
            return false;
        };
        if !group.open || !shape.joinable || !self.continues(group, head, packet, shape) {
            return false;
        }
        if !shape.checksum_is_right(self.packet(packet)) {
            return false;
        }
        if !group.verified && !head.checksum_is_right(self.packet(group.first)) {
            self.groups[place].open = false;
            return false;
        }
        let whole = shape.payload == head.payload;
        let most = if shape.flow.protocol == UDP {
            MAX_UDP_MEMBERS
        } else {
            MAX_MEMBERS
        };
        let group = &mut self.groups[place];
        self.packets[usize::from(group.last)].next = Some(packet);
        group.last = packet;
        group.members += 1;
        group.payload += shape.payload;
        group.verified = true;
        group.push = shape.push;
        group.open = whole && !shape.push && group.members < most;
        true
    }

    /// Whether the packet looks like the next segment of the group.
    fn continues(&self, group: &Group, head: &Shape, packet: u16, shape: &Shape) -> bool {
        if shape.header_len != head.header_len
            || shape.payload > head.payload
            || shape.header_len + group.payload + shape.payload > MAX_SUPER
        {
            return false;
        }
        let (one, other) = (self.packet(group.first), self.packet(packet));
        let same = |from: usize, to: usize| one[from..to] == other[from..to];
        // The group is at most MAX_MEMBERS long.
        let members = group.members as u16;
        let ip_continues = if shape.flow.v6 {
            // Traffic class and flow label; hop limit.
            same(0, 4) && same(7, 8)
        } else {
            // Type of service; flags; time to live. Splitting counts the identification up, which
            // matters only to packets that may be fragmented (RFC 6864).
            let may_fragment = one[6] & 0x40 == 0;
            let next = word(one, 4).wrapping_add(members);
            same(0, 2) && same(6, 9) && (!may_fragment || word(other, 4) == next)
        };
        if shape.flow.protocol == UDP {
            return ip_continues;
        }
        let tcp = head.ip_len;
        // Acknowledgement and data offset; window; urgent pointer and options.
        ip_continues
            && same(tcp + 8, tcp + 13)
            && same(tcp + 14, tcp + 16)
            && same(tcp + 18, head.header_len)
            && long(other, tcp + 4) == long(one, tcp + 4).wrapping_add(group.payload as u32)
    }

    fn packet(&self, packet: u16) -> &[u8] {
        let Packet { start, len, .. } = self.packets[usize::from(packet)];
        &self.arena[start..start + len]
    }

    fn hand_over(&self, group: &Group, write: &mut impl FnMut(Joined<'_>)) {
        let head = self.packet(group.first);
        let shape = match &group.shape {
            Some(shape) if group.members > 1 => shape,
            _ => {
                let header = VnetHeader::PLAIN.to_bytes();
                let slices = [IoSlice::new(&header), IoSlice::new(head)];
                return write(Joined {
                    slices: &slices,
                    joiner: self,
                    group,
                });
            }
        };
        let mut header = [0; HEADER + MAX_HEADER];
        header[..HEADER].copy_from_slice(&shape.virtio_header().to_bytes());
        let end = HEADER + shape.header_len;
        header[HEADER..end].copy_from_slice(&head[..shape.header_len]);
        shape.make_super(&mut header[HEADER..end], group.payload, group.push);

        let mut slices = [IoSlice::new(&[]); MAX_MEMBERS + 1];
        slices[0] = IoSlice::new(&header[..end]);
        let mut count = 1;
        let mut member = Some(group.first);
        while let Some(packet) = member {
            slices[count] = IoSlice::new(&self.packet(packet)[shape.header_len..]);
            count += 1;
            member = self.packets[usize::from(packet)].next;
        }
        write(Joined {
            slices: &slices[..count],
            joiner: self,
            group,
        });
    }
}

impl Group {
    fn alone(packet: u16, shape: Option<Shape>) -> Group {
        Group {
            first: packet,
            last: packet,
            members: 1,
            payload: shape.as_ref().map_or(0, |shape| shape.payload),
            open: shape
                .as_ref()
                .is_some_and(|shape| shape.joinable && !shape.push),
            verified: false,
            push: shape.as_ref().is_some_and(|shape| shape.push),
            shape,
        }
    }
}

#[cfg(test)]
mod tests;
