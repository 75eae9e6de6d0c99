//! As whom the kernel sends a flow that it translates: asked of its connection tracker, by
//! netlink (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A translated flow has two tuples: the one in which it came, by which it is asked for, and the
//! one that answers to it have. Answers go to whom the target sees.

use libc::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP,
    NFNL_SUBSYS_CTNETLINK,
};
use netlink_packet_core::{NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NlasIterator};
use postern_proto::flow_key::{FlowKey, Protocol};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Questions in one message. Their answers, of less than 1 KiB each with the kernel's own
/// overhead, wait in the socket's buffer, which has room for 208 KiB by default.
const BATCH: usize = 64;

/// Longer than any answer: an entry with every attribute that the kernel knows has under 600
/// bytes.
const LONGEST_ANSWER: usize = 4096;

// What libc has not: message types and attributes of nfnetlink_conntrack.h.
const IPCTNL_MSG_CT_NEW: u8 = 0;
const IPCTNL_MSG_CT_GET: u8 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;

const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;
/// `struct nlmsghdr`.
const NLMSG_HEADER: usize = 16;
/// `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Asks the connection tracker of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
    /// Of the next question. A late answer to an earlier one is told by it.
    sequence: u32,
    questions: Vec<u8>,
}

impl Conntrack {
    /// Opens a socket, and asks once, so that it fails here where it cannot be asked at all.
    /// Needs CAP_NET_ADMIN here and at every question.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no connection tracker to ask.
    pub fn open() -> io::Result<Conntrack> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        // To the kernel; from then on nobody else can send to it.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        let mut conntrack = Conntrack {
            socket,
            sequence: 0,
            questions: Vec::new(),
        };
        let nowhere = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        conntrack.lookup(FlowKey::new(Protocol::Udp, nowhere, nowhere))?;
        Ok(conntrack)
    }

    /// What the target sees as the source of `flow`; the echo id stands for the port. None if the
    /// kernel knows no such flow.
    ///
    /// # Errors
    /// As [`Conntrack::lookup_many`].
    pub fn lookup(&mut self, flow: FlowKey) -> io::Result<Option<SocketAddr>> {
        Ok(self.lookup_many(&[flow])?.pop().flatten())
    }

    /// The same for many, in their order: one system call to ask 64 of them, and one for each
    /// answer. It never waits, because the kernel works off a netlink message while it is sent.
    ///
    /// # Errors
    /// The kernel refuses, or had no room for its answers. The next call starts afresh.
    pub fn lookup_many(&mut self, flows: &[FlowKey]) -> io::Result<Vec<Option<SocketAddr>>> {
        let mut found = Vec::with_capacity(flows.len());
        for batch in flows.chunks(BATCH) {
            self.ask(batch, &mut found)?;
        }
        Ok(found)
    }

    fn ask(&mut self, batch: &[FlowKey], found: &mut Vec<Option<SocketAddr>>) -> io::Result<()> {
        let first = self.sequence;
        self.questions.clear();
        for flow in batch {
            question(flow, self.sequence, &mut self.questions);
            self.sequence = self.sequence.wrapping_add(1);
        }
        let (socket, questions) = (&self.socket, &self.questions);
        retry_on_intr(|| rustix::net::send(socket, questions, SendFlags::empty()))?;

        let start = found.len();
        found.resize(start + batch.len(), None);
        let mut waiting = batch.len();
        while waiting > 0 {
            let mut buffer = [0; LONGEST_ANSWER];
            let (bytes, _) =
                retry_on_intr(|| rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT))?;
            let answer = read_answer(&buffer[..bytes])?;
            let place = usize::try_from(answer.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
            let Some(flow) = batch.get(place) else {
                continue; // Left by a call that failed.
            };
            waiting -= 1;
            match answer.says {
                Says::Entry { asked, egress } if asked == *flow => {
                    found[start + place] = Some(egress);
                }
                Says::Error(error) if error != Errno::NOENT => return Err(error.into()),
                Says::Entry { .. } | Says::Error(_) => {}
            }
        }
        Ok(())
    }
}

/// Appends the request for the entry of `flow`.
fn question(flow: &FlowKey, sequence: u32, into: &mut Vec<u8>) {
    let start = into.len();
    let (source, destination) = (flow.client(), flow.target());
    let v4 = source.is_ipv4();
    let family = if v4 { AF_INET } else { AF_INET6 };
    into.resize(start + NLMSG_HEADER, 0);
    into.extend([small(family), 0, 0, 0]); // Version and resource stay 0.
    nested(into, CTA_TUPLE_ORIG, |into| {
        nested(into, CTA_TUPLE_IP, |into| {
            address(into, (CTA_IP_V4_SRC, CTA_IP_V6_SRC), source);
            address(into, (CTA_IP_V4_DST, CTA_IP_V6_DST), destination);
        });
        nested(into, CTA_TUPLE_PROTO, |into| {
            attribute(into, CTA_PROTO_NUM, &[protocol_number(flow.protocol, v4)]);
            let port = flow.client_port.to_be_bytes();
            match (flow.protocol, v4) {
                (Protocol::Tcp | Protocol::Udp, _) => {
                    attribute(into, CTA_PROTO_SRC_PORT, &port);
                    attribute(into, CTA_PROTO_DST_PORT, &flow.target_port.to_be_bytes());
                }
                (Protocol::Icmp, true) => {
                    attribute(into, CTA_PROTO_ICMP_ID, &port);
                    attribute(into, CTA_PROTO_ICMP_TYPE, &[ICMP_ECHO]);
                    attribute(into, CTA_PROTO_ICMP_CODE, &[0]);
                }
                (Protocol::Icmp, false) => {
                    attribute(into, CTA_PROTO_ICMPV6_ID, &port);
                    attribute(into, CTA_PROTO_ICMPV6_TYPE, &[ICMPV6_ECHO_REQUEST]);
                    attribute(into, CTA_PROTO_ICMPV6_CODE, &[0]);
                }
            }
        });
    });
    let length = into.len() - start;
    let mut header = NetlinkBuffer::new(&mut into[start..]);
    header.set_length(u32::try_from(length).expect("a question has about 100 bytes"));
    header.set_message_type(message_type(IPCTNL_MSG_CT_GET));
    header.set_flags(NLM_F_REQUEST);
    header.set_sequence_number(sequence);
}

fn address(into: &mut Vec<u8>, (v4, v6): (u16, u16), address: IpAddr) {
    match address {
        IpAddr::V4(address) => attribute(into, v4, &address.octets()),
        IpAddr::V6(address) => attribute(into, v6, &address.octets()),
    }
}

fn nested(into: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    attribute(into, kind | NESTED, &[]);
    content(into);
    let length = u16::try_from(into.len() - start).expect("a question has about 100 bytes");
    into[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

/// `struct nlattr`, its value, and padding to 4 bytes.
fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("values have at most 16 bytes");
    into.extend(length.to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

struct Answer {
    sequence: u32,
    says: Says,
}

enum Says {
    Entry { asked: FlowKey, egress: SocketAddr },
    Error(Errno),
}

/// One tuple; what a protocol has not is zero.
struct Tuple {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    echo_id: u16,
}

fn read_answer(bytes: &[u8]) -> io::Result<Answer> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "conntrack: not understood");
    let message = NetlinkBuffer::new_checked(bytes).map_err(|_| strange())?;
    let payload = message.payload();
    let says = if message.message_type() == NLMSG_ERROR {
        let code = payload.first_chunk().ok_or_else(strange)?;
        Says::Error(Errno::from_raw_os_error(
            i32::from_ne_bytes(*code).wrapping_neg(),
        ))
    } else if message.message_type() == message_type(IPCTNL_MSG_CT_NEW) {
        let attributes = payload.get(NFGENMSG..).ok_or_else(strange)?;
        read_entry(attributes).ok_or_else(strange)?
    } else {
        return Err(strange());
    };
    Ok(Answer {
        sequence: message.sequence_number(),
        says,
    })
}

fn read_entry(attributes: &[u8]) -> Option<Says> {
    let (mut original, mut reply) = (None, None);
    for each in NlasIterator::new(attributes) {
        let each = each.ok()?;
        match each.kind() {
            CTA_TUPLE_ORIG => original = Some(read_tuple(each.value())?),
            CTA_TUPLE_REPLY => reply = Some(read_tuple(each.value())?),
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    let protocol = match i32::from(original.protocol) {
        IPPROTO_TCP => Protocol::Tcp,
        IPPROTO_UDP => Protocol::Udp,
        IPPROTO_ICMP | IPPROTO_ICMPV6 => Protocol::Icmp,
        _ => return None,
    };
    let ports = match protocol {
        Protocol::Tcp | Protocol::Udp => (original.source_port, reply.destination_port),
        Protocol::Icmp => (original.echo_id, reply.echo_id),
    };
    Some(Says::Entry {
        asked: FlowKey::new(
            protocol,
            (original.source, ports.0),
            (original.destination, original.destination_port),
        ),
        egress: SocketAddr::new(reply.destination, ports.1),
    })
}

fn read_tuple(attributes: &[u8]) -> Option<Tuple> {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut tuple = Tuple {
        protocol: 0,
        source: nowhere,
        destination: nowhere,
        source_port: 0,
        destination_port: 0,
        echo_id: 0,
    };
    for each in NlasIterator::new(attributes) {
        let each = each.ok()?;
        for inner in NlasIterator::new(each.value()) {
            let inner = inner.ok()?;
            let value = inner.value();
            let port = || value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            match (each.kind(), inner.kind()) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => tuple.source = ip(value)?,
                (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => tuple.destination = ip(value)?,
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => tuple.protocol = *value.first()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => tuple.source_port = port()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => tuple.destination_port = port()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID) => {
                    tuple.echo_id = port()?;
                }
                _ => {}
            }
        }
    }
    Some(tuple)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes
            .first_chunk::<4>()
            .map(|v4| Ipv4Addr::from(*v4).into()),
        16 => bytes
            .first_chunk::<16>()
            .map(|v6| Ipv6Addr::from(*v6).into()),
        _ => None,
    }
}

fn protocol_number(protocol: Protocol, v4: bool) -> u8 {
    small(match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
        Protocol::Icmp if v4 => IPPROTO_ICMP,
        Protocol::Icmp => IPPROTO_ICMPV6,
    })
}

fn message_type(message: u8) -> u16 {
    u16::from_be_bytes([small(NFNL_SUBSYS_CTNETLINK), message])
}

/// libc has these numbers as `int`; the wire has bytes.
fn small(number: i32) -> u8 {
    u8::try_from(number).expect("a constant below 256")
}

#[cfg(test)]
mod tests;
