//! Why a packet goes no further: a closed list. The text is the metric label and the log field.

/// Reason for which a packet was not passed on. Never an error: a fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    // --- the datagram, before anything is decrypted
    /// No WireGuard message: wrong type, wrong length, reserved bytes set.
    NotWireguard,
    /// A handshake whose first MAC does not prove knowledge of our public key.
    BadMac,
    /// A handshake above the rate that its source may ask for.
    RateLimited,
    /// A handshake by a key that is not enrolled.
    UnknownKey,
    /// A receiver index that names no session of ours.
    UnknownIndex,
    /// A handshake that does not decrypt, is replayed, or was not asked for.
    BadHandshake,
    /// A counter seen before, or too far behind the newest (RFC 6479).
    Replayed,
    /// A data message whose tag does not verify.
    BadTag,
    /// A data message under a key older than 180 s.
    KeyExpired,
    /// A datagram larger than any that we send.
    TooLong,

    // --- the inner packet, before it is judged
    /// Fewer bytes than its headers need.
    Truncated,
    /// Lengths that disagree with each other or with the bytes at hand.
    BadLength,
    /// Neither IPv4 nor IPv6, or header fields that no stack accepts.
    BadHeader,
    /// An IP fragment.
    Fragment,
    /// An IPv6 extension header, or IPv4 options.
    ExtensionHeader,
    /// A protocol other than TCP, UDP, ICMP.
    OtherProtocol,
    /// ICMP that is neither echo nor an error about a live flow.
    OtherIcmp,
    /// Multicast, broadcast, link-local or loopback.
    NotUnicast,
    /// The source is not an address of the device that sent it.
    SpoofedSource,

    // --- the verdict
    /// A control datagram that is no message a client may send.
    BadControl,
    /// The policy denies it.
    Policy,
    /// The destination is another device.
    DeviceToDevice,
    /// No flow, and it does not open one.
    NoFlow,
    /// From a target, without a flow that a device opened.
    Unsolicited,
    /// Its flow was cut.
    Cut,
    /// The flow table is full.
    TableFull,
    /// The device has all the flows that it may have.
    DeviceQuota,
    /// Records cannot be written, so nothing new is allowed.
    LogUnavailable,

    // --- on the way out
    /// No established tunnel to the peer.
    NoSession,
    /// Larger than the tunnel's MTU.
    TooBig,
    /// Outside the include list.
    NotIncluded,
    /// The kernel took no more: its queue was full or it refused the packet.
    KernelRefused,
}

impl DropReason {
    /// All of them, in the order of the road.
    pub const ALL: [DropReason; 32] = {
        use DropReason::*;
        [
            NotWireguard,
            BadMac,
            RateLimited,
            UnknownKey,
            UnknownIndex,
            BadHandshake,
            Replayed,
            BadTag,
            KeyExpired,
            TooLong,
            Truncated,
            BadLength,
            BadHeader,
            Fragment,
            ExtensionHeader,
            OtherProtocol,
            OtherIcmp,
            NotUnicast,
            SpoofedSource,
            BadControl,
            Policy,
            DeviceToDevice,
            NoFlow,
            Unsolicited,
            Cut,
            TableFull,
            DeviceQuota,
            LogUnavailable,
            NoSession,
            TooBig,
            NotIncluded,
            KernelRefused,
        ]
    };

    /// The metric label and the log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NotWireguard => "not-wireguard",
            DropReason::BadMac => "bad-mac",
            DropReason::RateLimited => "rate-limited",
            DropReason::UnknownKey => "unknown-key",
            DropReason::UnknownIndex => "unknown-index",
            DropReason::BadHandshake => "bad-handshake",
            DropReason::Replayed => "replayed",
            DropReason::BadTag => "bad-tag",
            DropReason::KeyExpired => "key-expired",
            DropReason::TooLong => "too-long",
            DropReason::Truncated => "truncated",
            DropReason::BadLength => "bad-length",
            DropReason::BadHeader => "bad-header",
            DropReason::Fragment => "fragment",
            DropReason::ExtensionHeader => "extension-header",
            DropReason::OtherProtocol => "other-protocol",
            DropReason::OtherIcmp => "other-icmp",
            DropReason::NotUnicast => "not-unicast",
            DropReason::SpoofedSource => "spoofed-source",
            DropReason::BadControl => "bad-control",
            DropReason::Policy => "policy",
            DropReason::DeviceToDevice => "device-to-device",
            DropReason::NoFlow => "no-flow",
            DropReason::Unsolicited => "unsolicited",
            DropReason::Cut => "cut",
            DropReason::TableFull => "table-full",
            DropReason::DeviceQuota => "device-quota",
            DropReason::LogUnavailable => "log-unavailable",
            DropReason::NoSession => "no-session",
            DropReason::TooBig => "too-big",
            DropReason::NotIncluded => "not-included",
            DropReason::KernelRefused => "kernel-refused",
        }
    }

    /// Its place in [`DropReason::ALL`], for counters in an array.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One counter for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl Default for DropCounts {
    fn default() -> Self {
        DropCounts([0; DropReason::ALL.len()])
    }
}

impl DropCounts {
    /// Counts one.
    pub fn add(&mut self, reason: DropReason, packets: u64) {
        self.0[reason.index()] += packets;
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason.index()]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.get(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_slot_and_name() {
        let names: std::collections::BTreeSet<_> = DropReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }
}
