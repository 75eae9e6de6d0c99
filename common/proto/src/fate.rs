//! Why a packet goes no further: a closed list. The text is the metric label and the log field.

/// One list gives the enum, its order and its texts.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// Reason for which a packet was not passed on. Never an error: a fate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)+
        }

        impl DropReason {
            /// All of them, in the order of the road.
            pub const ALL: [DropReason; [$($text),+].len()] = [$(DropReason::$name),+];

            /// The metric label and the log field.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(DropReason::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    // --- the datagram, before anything is decrypted
    /// No WireGuard message: wrong type, wrong length, reserved bytes set.
    NotWireguard = "not-wireguard",
    /// A handshake whose first MAC does not prove knowledge of our public key.
    BadMac = "bad-mac",
    /// A handshake above the rate that its source may ask for, or that its worker can take.
    RateLimited = "rate-limited",
    /// A handshake by a key that is not enrolled.
    UnknownKey = "unknown-key",
    /// A receiver index that names no session of ours.
    UnknownIndex = "unknown-index",
    /// A handshake that does not decrypt, is replayed, or was not asked for.
    BadHandshake = "bad-handshake",
    /// A throw-away key that lives elsewhere: two ends never share one.
    KeyBusy = "key-busy",
    /// A counter seen before, or too far behind the newest (RFC 6479).
    Replayed = "replayed",
    /// A data message whose tag does not verify.
    BadTag = "bad-tag",
    /// A data message under a key older than 180 s.
    KeyExpired = "key-expired",
    /// A datagram larger than any that we send.
    TooLong = "too-long",

    // --- the inner packet, before it is judged
    /// A congestion mark on a packet that cannot carry it (RFC 6040): it is lost, as it would be
    /// without marks.
    EcnCe = "ecn-ce",
    /// Fewer bytes than its headers need.
    Truncated = "truncated",
    /// Lengths that disagree with each other or with the bytes at hand.
    BadLength = "bad-length",
    /// Neither IPv4 nor IPv6, or header fields that no stack accepts.
    BadHeader = "bad-header",
    /// An IP fragment.
    Fragment = "fragment",
    /// An IPv6 extension header, or IPv4 options.
    ExtensionHeader = "extension-header",
    /// A protocol other than TCP, UDP, ICMP.
    OtherProtocol = "other-protocol",
    /// ICMP that is neither echo nor an error about a live flow.
    OtherIcmp = "other-icmp",
    /// Multicast, broadcast, link-local or loopback.
    NotUnicast = "not-unicast",
    /// The source is not an address of the device that sent it.
    SpoofedSource = "spoofed-source",

    // --- the verdict
    /// A control datagram that is no message a client may send.
    BadControl = "bad-control",
    /// A throw-away key reaches the enrolment API and nothing else.
    NotEnrolled = "not-enrolled",
    /// The device waits for an admin's approval, or was denied it.
    NotApproved = "not-approved",
    /// The device's user has to log in first.
    LoginRequired = "login-required",
    /// The device's user is disabled.
    UserDisabled = "user-disabled",
    /// Control packets come faster than the gateway takes them in.
    ControlBusy = "control-busy",
    /// The policy denies it.
    Policy = "policy",
    /// The destination is another device.
    DeviceToDevice = "device-to-device",
    /// No flow, and it does not open one.
    NoFlow = "no-flow",
    /// From a target, without a flow that a device opened.
    Unsolicited = "unsolicited",
    /// Its flow was cut.
    Cut = "cut",
    /// The flow table is full.
    TableFull = "table-full",
    /// The device has all the flows that it may have.
    DeviceQuota = "device-quota",
    /// Records cannot be written, so nothing new is allowed.
    LogUnavailable = "log-unavailable",

    // --- on the way out
    /// No established tunnel to the peer.
    NoSession = "no-session",
    /// Larger than the tunnel's MTU.
    TooBig = "too-big",
    /// Its flow keeps a queue standing: lost so that the sender slows down.
    QueueStands = "queue-stands",
    /// Outside the include list.
    NotIncluded = "not-included",
    /// The kernel took no more: its queue was full or it refused the packet.
    KernelRefused = "kernel-refused",
}

impl DropReason {
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
