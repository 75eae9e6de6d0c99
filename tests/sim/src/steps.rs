//! What may happen. A step means something in any world, so that any subset of steps can be
//! played again: numbers that are too large wrap around.

use crate::dice::Dice;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A program opens a TCP connection.
    Connect {
        /// Which laptop.
        laptop: u8,
        /// Which target.
        host: u8,
        /// Which port.
        port: u8,
    },
    /// A program sends on one of its connections (or repeats its SYN).
    Say {
        /// Which laptop.
        laptop: u8,
        /// Which connection.
        conn: u8,
        /// How much.
        len: u16,
    },
    /// A target sends on a connection.
    Push {
        /// Which connection.
        conn: u8,
        /// How much in each segment.
        len: u16,
        /// In one super-packet.
        segments: u8,
    },
    /// One datagram.
    Udp {
        /// Which laptop.
        laptop: u8,
        /// Which target.
        host: u8,
        /// Which port.
        port: u8,
        /// From the same port as the last one.
        again: bool,
    },
    /// One ping.
    Ping {
        /// Which laptop.
        laptop: u8,
        /// Which target.
        host: u8,
        /// With the id of the last one.
        again: bool,
    },
    /// A program closes.
    Close {
        /// Which laptop.
        laptop: u8,
        /// Which connection.
        conn: u8,
        /// By RST.
        abort: bool,
    },
    /// A target closes.
    TargetClose {
        /// Which connection.
        conn: u8,
        /// By RST.
        abort: bool,
    },
    /// The laptop's outer address changes; it notices and asks for a key, or it does not.
    Roam {
        /// Which laptop.
        laptop: u8,
        /// Only the port: a NAT forgot.
        port_only: bool,
    },
    /// The network changes its manners: of a hundred datagrams so many are lost, doubled, late.
    Net {
        /// Lost.
        loss: u8,
        /// Doubled.
        twice: u8,
        /// Late, and so out of order.
        late: u8,
    },
    /// The path of a laptop carries smaller packets, or larger ones again.
    Path {
        /// Which laptop.
        laptop: u8,
        /// Towards the gateway, in steps; the tenth is everything.
        there: u8,
        /// Back.
        back: u8,
        /// The laptop moves there.
        roam: bool,
    },
    /// Somebody works at a laptop for more than a minute.
    Work {
        /// Which laptop.
        laptop: u8,
    },
    /// A device is revoked.
    Revoke {
        /// Which laptop.
        laptop: u8,
    },
    /// A device is enrolled, for the first time or again.
    Enrol {
        /// Which laptop.
        laptop: u8,
    },
    /// A device gets another key.
    Rotate {
        /// Which laptop's.
        laptop: u8,
        /// The laptop does not hear of it.
        lost: bool,
        /// With a pre-shared key.
        preshared: bool,
    },
    /// A device stands differently: it is held or released, logs in or out, reports, is spoken of.
    Stand {
        /// Which laptop.
        laptop: u8,
        /// What changes.
        change: Change,
        /// To what.
        pick: u8,
    },
    /// Another policy. For a while the gateway is too busy to sweep.
    Reload {
        /// Which policy.
        policy: u16,
        /// How long.
        busy_ms: u8,
    },
    /// The gateway stops and starts.
    Restart {
        /// How it stops.
        how: Stop,
    },
    /// An admin cuts a flow.
    Kill {
        /// Which.
        nth: u8,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        ms: u32,
    },
    /// A laptop with a stock WireGuard sends what it should not.
    Misbehave {
        /// Which laptop.
        laptop: u8,
        /// What.
        how: Mischief,
        /// A detail.
        pick: u8,
    },
    /// Somebody sends a datagram that the gateway has had already.
    Replay {
        /// Which.
        nth: u8,
        /// From another address.
        elsewhere: bool,
    },
    /// A datagram arrives with one bit changed.
    Flip {
        /// Which laptop's.
        laptop: u8,
        /// Which bit.
        bit: u16,
    },
    /// Somebody without a key asks for one, or sends noise.
    Stranger {
        /// How much noise; none: a handshake.
        noise: u8,
    },
    /// A target sends what nobody asked for.
    Unasked {
        /// To which laptop.
        laptop: u8,
        /// From which target.
        host: u8,
        /// What.
        what: u8,
    },
    /// Records can no longer be written, or can again.
    Log {
        /// Can.
        writable: bool,
    },
    /// A laptop asks for many addresses and ports.
    Scan {
        /// Which laptop.
        laptop: u8,
        /// How many.
        count: u8,
    },
}

/// What of a device changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It reaches nothing: not approved, not logged in, or its user is disabled.
    Hold,
    /// No longer.
    Release,
    /// Its user logs in.
    Login,
    /// Its login ends.
    Logout,
    /// It needs a login, or no longer.
    Require,
    /// It reports.
    Report,
    /// An admin says something of it, or no longer.
    Attribute,
    /// Its groups.
    Groups,
    /// It gets access for a while.
    Grant,
    /// Such access is revoked.
    Revoke,
}

const CHANGES: [Change; 10] = [
    Change::Hold,
    Change::Release,
    Change::Release,
    Change::Login,
    Change::Login,
    Change::Logout,
    Change::Require,
    Change::Report,
    Change::Attribute,
    Change::Groups,
];

const GRANTS: [Change; 4] = [Change::Grant, Change::Grant, Change::Grant, Change::Revoke];

/// How a gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// For an upgrade: flows live on.
    HandOver,
    /// For good: flows are cut.
    ShutDown,
    /// Without warning.
    Crash,
}

/// What a laptop should not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// With the source of another device.
    Spoof,
    /// To another device.
    Sideways,
    /// To the gateway itself.
    Inwards,
    /// A segment of no connection.
    Middle,
    /// An IP fragment.
    Fragment,
    /// IPv4 options or an IPv6 extension header.
    Extension,
    /// A protocol that nobody allows.
    Protocol,
    /// Lengths that disagree.
    Length,
    /// Flags that contradict.
    Flags,
    /// To a multicast group.
    Multicast,
    /// Not IP.
    Noise,
    /// The answer to a ping that nobody sent.
    Pong,
    /// An ICMP error about something.
    Error,
    /// A control message.
    Control,
    /// A reset far from the window of a connection.
    Guess,
    /// To the control API, or to the one of enrolment.
    Ask,
}

const MISCHIEF: [Mischief; 16] = [
    Mischief::Spoof,
    Mischief::Sideways,
    Mischief::Inwards,
    Mischief::Middle,
    Mischief::Fragment,
    Mischief::Extension,
    Mischief::Protocol,
    Mischief::Length,
    Mischief::Flags,
    Mischief::Multicast,
    Mischief::Noise,
    Mischief::Pong,
    Mischief::Error,
    Mischief::Control,
    Mischief::Guess,
    Mischief::Ask,
];

/// Draws `count` steps. Hours of waiting are rationed: every two idle minutes of a tunnel that is
/// kept alive cost a handshake.
pub fn draw(count: usize, dice: &mut impl Dice) -> Vec<Step> {
    let mut hours = 1;
    let mut minutes = 5;
    (0..count)
        .map(|_| step(dice, &mut hours, &mut minutes))
        .collect()
}

fn step(dice: &mut impl Dice, hours: &mut u8, minutes: &mut u8) -> Step {
    let laptop = dice.small(4);
    let host = dice.small(6);
    match dice.roll(120) {
        0..=15 => Step::Connect {
            laptop,
            host,
            port: dice.small(5),
        },
        16..=31 => Step::Say {
            laptop,
            conn: dice.small(4),
            len: length(dice),
        },
        32..=38 => Step::Push {
            conn: dice.small(8),
            len: length(dice),
            segments: 1 + dice.small(4),
        },
        39..=44 => Step::Udp {
            laptop,
            host,
            port: dice.small(2),
            again: dice.one_in(2),
        },
        45..=47 => Step::Ping {
            laptop,
            host,
            again: dice.one_in(2),
        },
        48..=50 => Step::Close {
            laptop,
            conn: dice.small(4),
            abort: dice.one_in(3),
        },
        51..=53 => Step::TargetClose {
            conn: dice.small(8),
            abort: dice.one_in(3),
        },
        54..=55 => Step::Roam {
            laptop,
            port_only: dice.one_in(2),
        },
        56 => Step::Net {
            loss: dice.small(30),
            twice: dice.small(20),
            late: dice.small(40),
        },
        57 => Step::Net {
            loss: 0,
            twice: 0,
            late: 0,
        },
        58 => Step::Revoke { laptop },
        59..=60 => Step::Enrol { laptop },
        61..=63 => Step::Reload {
            policy: u16::from(dice.byte()),
            busy_ms: if dice.one_in(2) { dice.byte() } else { 0 },
        },
        64 => {
            let how = [Stop::HandOver, Stop::HandOver, Stop::ShutDown, Stop::Crash][dice.index(4)];
            Step::Restart { how }
        }
        65..=66 => Step::Kill { nth: dice.byte() },
        67..=82 => Step::Wait {
            ms: wait(dice, hours, minutes),
        },
        83..=90 => Step::Misbehave {
            laptop,
            how: MISCHIEF[dice.index(MISCHIEF.len())],
            pick: dice.byte(),
        },
        91..=92 => Step::Replay {
            nth: dice.byte(),
            elsewhere: dice.one_in(2),
        },
        93 => Step::Flip {
            laptop,
            bit: u16::from(dice.byte()) << 5 | u16::from(dice.byte()),
        },
        94 => Step::Stranger {
            noise: if dice.one_in(2) { 0 } else { dice.byte() },
        },
        95..=96 => Step::Unasked {
            laptop,
            host,
            what: dice.small(8),
        },
        97 => Step::Log {
            writable: !dice.one_in(3),
        },
        98 => Step::Log { writable: true },
        99..=100 => Step::Path {
            laptop,
            there: dice.small(10),
            back: if dice.one_in(2) { 9 } else { dice.small(10) },
            roam: dice.one_in(2),
        },
        101 => Step::Work { laptop },
        117.. => Step::Stand {
            laptop,
            change: GRANTS[dice.index(GRANTS.len())],
            pick: dice.byte(),
        },
        113.. => Step::Rotate {
            laptop,
            lost: dice.one_in(4),
            preshared: dice.one_in(2),
        },
        103.. => Step::Stand {
            laptop,
            change: CHANGES[dice.index(CHANGES.len())],
            pick: dice.byte(),
        },
        _ => Step::Scan {
            laptop,
            count: dice.byte(),
        },
    }
}

fn length(dice: &mut impl Dice) -> u16 {
    let most = if dice.one_in(4) { 1360 } else { 120 };
    u16::try_from(dice.between(12, most)).unwrap_or(12)
}

fn wait(dice: &mut impl Dice, hours: &mut u8, minutes: &mut u8) -> u32 {
    let ms = match dice.roll(20) {
        0 if *hours > 0 => {
            *hours -= 1;
            dice.between(600_000, 3 * 3_600_000)
        }
        1..=3 if *minutes > 0 => {
            *minutes -= 1;
            dice.between(20_000, 260_000)
        }
        0..=8 => dice.between(1000, 20_000),
        _ => dice.between(1, 600),
    };
    u32::try_from(ms).unwrap_or(1)
}
