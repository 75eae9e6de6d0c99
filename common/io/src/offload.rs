//! Offloads: many packets in one system call, because the kernel cuts and joins them.
//!
//! There are four halves. Each climbs down its ladder by itself: the probe at the start, the
//! operator's switch, and the first EINVAL or EIO at run time, after which the same packets go
//! one by one. Kernels lie about what they take, so the last step is never the exception.
//!
//! | half | packets together | probed by | given up |
//! |---|---|---|---|
//! | `tun-read` | TSO, USO: super-packets from the kernel | the TUN's ioctl | never: a read that fails is one packet lost |
//! | `tun-write` | joined packets to the kernel | the TUN's ioctl | TCP and UDP each, until the restart |
//! | `udp-send` | GSO: runs of datagrams | a socket option | for a destination, for a minute |
//! | `udp-receive` | GRO: joined datagrams | a socket option | never: the kernel only joins what it can |

use crate::join::Joinable;
use crate::road::{Inner, Inputs, Outputs};
use postern_proto::now::Wall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One of the four. Its name is the same in gateway.yaml, on the command line, in `status` and in
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// Super-packets from the TUN.
    TunRead,
    /// Joined packets to the TUN.
    TunWrite,
    /// Runs of datagrams to the sockets.
    UdpSend,
    /// Joined datagrams from the sockets.
    UdpReceive,
}

impl Half {
    /// Every one, in the order of listings.
    pub const ALL: [Half; 4] = [
        Half::TunRead,
        Half::TunWrite,
        Half::UdpSend,
        Half::UdpReceive,
    ];

    /// `tun-read`, `tun-write`, `udp-send`, `udp-receive`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Half::TunRead => "tun-read",
            Half::TunWrite => "tun-write",
            Half::UdpSend => "udp-send",
            Half::UdpReceive => "udp-receive",
        }
    }

    /// The halves that a word names: one, or both of `tun` or `udp`.
    fn named(word: &str) -> Option<&'static [Half]> {
        Some(match word {
            "tun" => &[Half::TunRead, Half::TunWrite],
            "udp" => &[Half::UdpSend, Half::UdpReceive],
            "tun-read" => &[Half::TunRead],
            "tun-write" => &[Half::TunWrite],
            "udp-send" => &[Half::UdpSend],
            "udp-receive" => &[Half::UdpReceive],
            _ => return None,
        })
    }
}

/// The operator's switches: which halves may be used, as far as the kernel goes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// In the order of [`Half::ALL`].
    allowed: [bool; 4],
}

impl Switches {
    /// All that the kernel has.
    pub const AUTO: Switches = Switches { allowed: [true; 4] };

    /// Packet by packet.
    pub const OFF: Switches = Switches {
        allowed: [false; 4],
    };

    /// Whether this half may be used.
    #[must_use]
    pub fn allow(self, half: Half) -> bool {
        self.allowed[half as usize]
    }

    /// Turns the halves that `name` names (one of four, or `tun` or `udp` for two) to `auto` or
    /// `off`. Of two words about one half, the later holds.
    ///
    /// # Errors
    /// Neither the name nor the value may be anything else.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SwitchError> {
        let halves = Half::named(name).ok_or_else(|| SwitchError::NoHalf(name.to_owned()))?;
        let allowed = match value {
            "auto" => true,
            "off" => false,
            _ => return Err(SwitchError::NoValue(value.to_owned())),
        };
        for half in halves {
            self.allowed[*half as usize] = allowed;
        }
        Ok(())
    }
}

impl Default for Switches {
    fn default() -> Self {
        Switches::AUTO
    }
}

impl FromStr for Switches {
    type Err = SwitchError;

    /// `auto`, `off`, or a list such as `tun=off,udp-send=off`.
    fn from_str(text: &str) -> Result<Switches, SwitchError> {
        match text.trim() {
            "auto" => return Ok(Switches::AUTO),
            "off" => return Ok(Switches::OFF),
            _ => {}
        }
        let mut switches = Switches::AUTO;
        for word in text.split(',').map(str::trim) {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| SwitchError::NoSwitch(word.to_owned()))?;
            switches.set(name.trim(), value.trim())?;
        }
        Ok(switches)
    }
}

/// Why there are no switches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}; {}", self.problem(), self.help())]
pub enum SwitchError {
    /// Neither `auto`, nor `off`, nor NAME=VALUE.
    NoSwitch(String),
    /// There is no such half.
    NoHalf(String),
    /// There is no such value.
    NoValue(String),
}

impl SwitchError {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> String {
        match self {
            SwitchError::NoSwitch(text) => format!("'{text}' switches nothing"),
            SwitchError::NoHalf(text) => format!("'{text}' is no offload"),
            SwitchError::NoValue(text) => format!("'{text}' is no choice"),
        }
    }

    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            SwitchError::NoSwitch(_) => "write auto, off, or for example tun=off,udp-send=off",
            SwitchError::NoHalf(_) => {
                "write tun-read, tun-write, udp-send or udp-receive, or tun or udp for both of one kind"
            }
            SwitchError::NoValue(_) => "write auto or off",
        }
    }
}

/// How one half stands, in words for people and numbers for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfState {
    /// Whether packets go together.
    pub on: bool,
    /// What of it is used, or why it is not: `tcp+udp`, `switched off`. Empty where `on` says all.
    pub detail: String,
    /// How often the kernel refused packets together and they went one by one.
    pub fallbacks: u64,
}

impl fmt::Display for HalfState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on { "on" } else { "off" })?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.detail)
    }
}

/// How all four stand at one moment.
pub type Offloads = BTreeMap<Half, HalfState>;

/// How the offloads of one worker stand now.
#[must_use]
pub fn offloads(inputs: &Inputs, outputs: &Outputs) -> Offloads {
    let mut all = Offloads::from([
        (Half::UdpSend, outputs.udp.offload()),
        (Half::UdpReceive, inputs.udp.offload()),
    ]);
    if let Some(tun) = &inputs.tun {
        all.insert(Half::TunRead, tun.offload());
    }
    if let Inner::Tun(tun) = &outputs.tun {
        all.insert(Half::TunWrite, tun.offload());
    }
    all
}

/// Adds another worker's: a half is on if it is on everywhere, and what is worse is told.
pub fn merge(all: &mut Offloads, other: &Offloads) {
    for (half, state) in other {
        let Some(known) = all.get_mut(half) else {
            all.insert(*half, state.clone());
            continue;
        };
        // The more there is to tell, the worse it is.
        let worse = (!state.on, state.detail.len(), &state.detail)
            > (!known.on, known.detail.len(), &known.detail);
        if worse {
            known.on = state.on;
            known.detail.clone_from(&state.detail);
        }
        known.fallbacks += state.fallbacks;
    }
}

/// On one line, for the log: `tun-read on (tcp+udp), tun-write off (switched off), …`
#[must_use]
pub fn in_words(all: &Offloads) -> String {
    let one = |(half, state): (&Half, &HalfState)| format!("{} {state}", half.as_str());
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Why packets do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyNot {
    /// The operator's switch.
    Switched,
    /// The kernel said so when it was probed.
    Absent,
    /// The kernel had said otherwise, and then refused.
    Refused(Wall),
}

impl WhyNot {
    pub(crate) fn off(self) -> HalfState {
        HalfState {
            on: false,
            detail: self.to_string(),
            fallbacks: 0,
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::Switched => f.write_str("switched off"),
            WhyNot::Absent => f.write_str("this kernel has none"),
            WhyNot::Refused(at) => write!(f, "refused by the kernel at {}", at.rfc3339()),
        }
    }
}

/// Which protocol travels together in one direction of the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Together {
    pub(crate) tcp: Result<(), WhyNot>,
    pub(crate) udp: Result<(), WhyNot>,
}

impl Together {
    /// From what was probed and the operator's switch.
    pub(crate) fn new(probed: Joinable, allowed: bool) -> Together {
        let one = |probed| match (allowed, probed) {
            (false, _) => Err(WhyNot::Switched),
            (true, false) => Err(WhyNot::Absent),
            (true, true) => Ok(()),
        };
        Together {
            tcp: one(probed.tcp),
            udp: one(probed.udp),
        }
    }

    pub(crate) fn joinable(&self) -> Joinable {
        Joinable {
            tcp: self.tcp.is_ok(),
            udp: self.udp.is_ok(),
        }
    }

    pub(crate) fn state(&self, fallbacks: u64) -> HalfState {
        let detail = match (self.tcp, self.udp) {
            (Ok(()), Ok(())) => "tcp+udp".to_owned(),
            (Ok(()), Err(why)) => format!("tcp; udp {why}"),
            (Err(why), Ok(())) => format!("udp; tcp {why}"),
            (Err(tcp), Err(udp)) if tcp == udp => tcp.to_string(),
            (Err(tcp), Err(udp)) => format!("tcp {tcp}; udp {udp}"),
        };
        HalfState {
            on: self.tcp.is_ok() || self.udp.is_ok(),
            detail,
            fallbacks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Switches, SwitchError> {
        text.parse()
    }

    fn off(text: &str) -> Vec<&'static str> {
        let switches = parse(text).unwrap();
        let off = |half: &Half| !switches.allow(*half);
        Half::ALL
            .into_iter()
            .filter(off)
            .map(Half::as_str)
            .collect()
    }

    #[test]
    fn each_half_has_its_own_switch() {
        assert!(off("auto").is_empty());
        assert_eq!(
            off("off"),
            ["tun-read", "tun-write", "udp-send", "udp-receive"]
        );
        assert_eq!(off("tun=off"), ["tun-read", "tun-write"]);
        assert_eq!(off("udp=off"), ["udp-send", "udp-receive"]);
        for half in Half::ALL {
            assert_eq!(off(&format!("{}=off", half.as_str())), [half.as_str()]);
        }
        assert_eq!(
            off("tun=off, udp-send=off,tun-read=auto"),
            ["tun-write", "udp-send"]
        );
    }

    #[test]
    fn what_switches_nothing_is_refused_and_says_what_to_write() {
        for (text, wrong, help) in [
            ("on", "'on'", "write auto, off"),
            ("", "''", "write auto, off"),
            ("tun=on", "'on'", "write auto or off"),
            ("tun=off,", "''", "write auto, off"),
            ("tcp=off", "'tcp'", "udp-receive"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(wrong) && said.contains(help), "{said}");
        }
    }

    #[test]
    fn a_state_says_what_is_used_and_why_the_rest_is_not() {
        let all = Joinable {
            tcp: true,
            udp: true,
        };
        let words = |together: &Together| together.state(0).to_string();
        let mut together = Together::new(all, true);
        assert_eq!(words(&together), "on (tcp+udp)");
        assert_eq!(words(&Together::new(all, false)), "off (switched off)");
        together.udp = Err(WhyNot::Refused(Wall(1_000_000_000)));
        assert_eq!(
            words(&together),
            "on (tcp; udp refused by the kernel at 1970-01-01T00:00:01.000Z)"
        );
        together.udp = Err(WhyNot::Absent);
        assert_eq!(words(&together), "on (tcp; udp this kernel has none)");
        let none = Joinable {
            tcp: false,
            udp: false,
        };
        assert_eq!(
            words(&Together::new(none, true)),
            "off (this kernel has none)"
        );
    }

    #[test]
    fn of_several_workers_the_worst_is_told_and_fallbacks_add_up() {
        let one = |on, detail: &str, fallbacks| {
            let state = HalfState {
                on,
                detail: detail.to_owned(),
                fallbacks,
            };
            Offloads::from([(Half::TunWrite, state)])
        };
        let orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]];
        for order in orders {
            let workers = [
                one(true, "tcp+udp", 0),
                one(false, "refused", 3),
                one(true, "tcp; udp refused", 1),
            ];
            let mut all = Offloads::new();
            for worker in order {
                merge(&mut all, &workers[worker]);
            }
            assert_eq!(all, one(false, "refused", 4), "{order:?}");
        }
    }

    #[test]
    fn the_json_form_has_the_names_as_keys() {
        let state = WhyNot::Switched.off();
        let json = serde_json::to_string(&Offloads::from([(Half::UdpReceive, state)])).unwrap();
        assert_eq!(
            json,
            r#"{"udp-receive":{"on":false,"detail":"switched off","fallbacks":0}}"#
        );
        let back: Offloads = serde_json::from_str(&json).unwrap();
        assert_eq!(in_words(&back), "udp-receive off (switched off)");
    }
}
