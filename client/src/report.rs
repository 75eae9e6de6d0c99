//! What `status` says: the answer of a running client, as JSON or for people.

use crate::agent::Heard;
use crate::state::{Refusal, Status};
use postern_io::offload::Offloads;
use postern_proto::control::Message;
use postern_proto::device_api::{DeviceStatus, State};
use postern_proto::keys::PublicKey;
use postern_proto::now::{Now, Wall};
use postern_proto::path_mtu::Known;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One running tunnel. Stable: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its interface.
    pub interface: String,
    /// A packet could be sent now.
    pub connected: bool,
    /// Where the gateway is, or is tried next.
    pub endpoint: Option<SocketAddr>,
    /// Who the gateway is.
    pub gateway_key: PublicKey,
    /// Its addresses inside the tunnel.
    pub gateway_addresses: Vec<IpAddr>,
    /// Our addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// What goes through the tunnel.
    pub include: Vec<ipnet::IpNet>,
    /// Inner MTU in use, bytes.
    pub mtu: u16,
    /// Why this one.
    #[serde(default)]
    pub mtu_reason: MtuReason,
    /// What the profile says, bytes; never exceeded.
    #[serde(default)]
    pub mtu_configured: u16,
    /// When the last key came into use, RFC 3339.
    pub last_handshake: Option<String>,
    /// Seconds since then.
    pub last_handshake_age: Option<u64>,
    /// Initiations since the gateway was last heard.
    pub unanswered: u64,
    /// Inner bytes from the gateway.
    pub rx_bytes: u64,
    /// Inner packets from the gateway.
    pub rx_packets: u64,
    /// Inner bytes to the gateway.
    pub tx_bytes: u64,
    /// Inner packets to the gateway.
    pub tx_packets: u64,
    /// Packets that wait for a key.
    pub held: usize,
    /// What went no further, by reason; only reasons that occurred.
    pub drops: BTreeMap<String, u64>,
    /// How each half of the kernel's offloads stands.
    #[serde(default)]
    pub offload: Offloads,
    /// What the gateway refused or cut, newest last.
    pub refusals: Vec<ReportedRefusal>,
    /// Whether the handshake has a pre-shared key: agreed by ML-KEM where the device joined by
    /// invitation, so recorded traffic stays safe from a quantum computer.
    #[serde(default)]
    pub post_quantum_key: bool,
    /// When the key came into use, seconds since 1970.
    #[serde(default)]
    pub key_since: Option<u64>,
    /// Seconds since then.
    #[serde(default)]
    pub key_age: Option<u64>,
    /// What the gateway says of this device; absent before it said something, and for a stock
    /// WireGuard server.
    #[serde(default)]
    pub device: Option<DeviceStatus>,
    /// Seconds until the login ends by age.
    #[serde(default)]
    pub login_ends_in: Option<u64>,
    /// Why the last question to the gateway brought nothing.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// Why the inner MTU is what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MtuReason {
    /// The profile says so, and no probe was answered.
    #[default]
    Configured,
    /// The profile says so, and the path carries it.
    Confirmed,
    /// The path carries no more.
    Found,
    /// The path carries less than any tunnel must: large packets are lost.
    PathTooSmall,
}

impl MtuReason {
    fn new(status: &Status, configured: u16) -> MtuReason {
        match status.path {
            Known::TooSmall => MtuReason::PathTooSmall,
            _ if status.mtu < configured => MtuReason::Found,
            Known::Passes => MtuReason::Confirmed,
            Known::Nothing => MtuReason::Configured,
        }
    }
}

/// What the gateway told about one attempt or flow of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRefusal {
    /// When it was last told, RFC 3339.
    pub at: String,
    /// How often, in a row.
    pub count: u64,
    /// `refused` or `cut`.
    pub kind: String,
    /// `tcp`, `udp`, `icmp`.
    pub protocol: String,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port; zero for ICMP.
    pub port: u16,
    /// The closed-list reason.
    pub reason: String,
    /// The rule that decided.
    pub rule: String,
    /// The condition that failed; empty for a cut.
    pub condition: String,
}

/// What does not change while a tunnel runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// What it was made from.
    pub profile: postern_proto::profile::Profile,
}

impl Report {
    /// From the packet logic's status.
    #[must_use]
    pub fn new(
        identity: &Identity,
        status: &Status,
        offload: Offloads,
        mut heard: Heard,
        now: Now,
    ) -> Report {
        let profile = &identity.profile;
        let seconds = now.wall.seconds();
        // It was heard a while ago.
        if let Some(device) = &mut heard.device {
            device.grants.retain(|grant| seconds < grant.until);
        }
        let session = heard.device.as_ref().and_then(|it| it.session.as_ref());
        let until = session.and_then(|session| session.until);
        let age = status
            .last_handshake
            .map(|at| now.mono.since(at.mono).as_secs());
        Report {
            name: identity.name.clone(),
            pid: std::process::id(),
            interface: identity.interface.clone(),
            connected: status.connected,
            endpoint: status.endpoint,
            gateway_key: profile.gateway.public_key,
            gateway_addresses: profile.gateway.tunnel_addresses.clone(),
            addresses: profile.addresses.clone(),
            include: profile.include.clone(),
            mtu: status.mtu,
            mtu_reason: MtuReason::new(status, profile.mtu),
            mtu_configured: profile.mtu,
            last_handshake: status.last_handshake.map(|at| at.wall.rfc3339()),
            last_handshake_age: age,
            unanswered: status.unanswered,
            rx_bytes: status.received.bytes,
            rx_packets: status.received.packets,
            tx_bytes: status.sent.bytes,
            tx_packets: status.sent.packets,
            held: status.held,
            drops: status
                .drops
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
            offload,
            refusals: status.refusals.iter().filter_map(reported).collect(),
            post_quantum_key: profile.preshared_key.is_some(),
            key_since: profile.key_since,
            key_age: profile.key_since.map(|since| seconds.saturating_sub(since)),
            login_ends_in: until.map(|until| until.saturating_sub(seconds)),
            device: heard.device,
            trouble: heard.trouble,
        }
    }
}

fn reported(refusal: &Refusal) -> Option<ReportedRefusal> {
    let (kind, protocol, address, port, reason, rule, condition) = match &refusal.message {
        Message::Hello { .. }
        | Message::Probe { .. }
        | Message::ProbeAnswer { .. }
        | Message::Changed => return None,
        Message::Refused {
            protocol,
            address,
            port,
            reason,
            rule,
            condition,
        } => (
            "refused",
            protocol,
            address,
            port,
            reason,
            rule,
            condition.clone(),
        ),
        Message::Cut {
            protocol,
            address,
            port,
            reason,
            rule,
        } => ("cut", protocol, address, port, reason, rule, String::new()),
    };
    Some(ReportedRefusal {
        at: refusal.at.rfc3339(),
        count: refusal.count,
        kind: kind.to_owned(),
        protocol: protocol.clone(),
        address: *address,
        port: *port,
        reason: reason.clone(),
        rule: rule.clone(),
        condition,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let state = match (self.connected, self.last_handshake_age) {
            (true, _) => "connected".to_owned(),
            (false, None) => format!("connecting ({} attempts unanswered)", self.unanswered),
            (false, Some(_)) if self.unanswered > 0 => {
                format!("lost ({} attempts unanswered)", self.unanswered)
            }
            (false, Some(_)) => "idle (the next packet connects)".to_owned(),
        };
        let endpoint = self
            .endpoint
            .map_or("not known yet".to_owned(), |at| at.to_string());
        let handshake = self.last_handshake_age.map_or("never".to_owned(), |age| {
            format!("{} ago", lasting(Duration::from_secs(age)))
        });
        writeln!(f, "tunnel          {} ({})", self.name, self.interface)?;
        writeln!(f, "state           {state}")?;
        writeln!(f, "endpoint        {endpoint}")?;
        writeln!(f, "last handshake  {handshake}")?;
        let quantum = if self.post_quantum_key { "yes" } else { "no" };
        let age = self.key_age.map_or("age not known".to_owned(), |age| {
            format!("{} old", lasting(Duration::from_secs(age)))
        });
        writeln!(f, "key             {age}; post-quantum key: {quantum}")?;
        if let Some(device) = &self.device {
            f.write_str(&standing(device, self.login_ends_in))?;
        }
        if let Some(trouble) = &self.trouble {
            writeln!(f, "control         {}", plain(trouble))?;
        }
        writeln!(
            f,
            "received        {} in {} packets",
            bytes(self.rx_bytes),
            self.rx_packets
        )?;
        writeln!(
            f,
            "sent            {} in {} packets",
            bytes(self.tx_bytes),
            self.tx_packets
        )?;
        let configured = self.mtu_configured;
        let reason = match self.mtu_reason {
            MtuReason::Configured => "as configured; no probe was answered".to_owned(),
            MtuReason::Confirmed => "the path carries it".to_owned(),
            MtuReason::Found => format!("the path carries no more; configured {configured}"),
            MtuReason::PathTooSmall => "the path carries less: large packets are lost".to_owned(),
        };
        writeln!(f, "mtu             {} ({reason})", self.mtu)?;
        writeln!(
            f,
            "addresses       {}",
            join(&mut self.addresses.iter().map(ToString::to_string))
        )?;
        writeln!(
            f,
            "include         {}",
            join(&mut self.include.iter().map(prefix))
        )?;
        if !self.drops.is_empty() {
            let drops = &mut self
                .drops
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"));
            writeln!(f, "dropped         {}", join(drops))?;
        }
        for (half, state) in &self.offload {
            writeln!(f, "{:15} {state}", half.as_str())?;
        }
        if !self.refusals.is_empty() {
            writeln!(f, "\nlast refusals by the gateway, newest first")?;
        }
        for refusal in self.refusals.iter().rev() {
            write!(
                f,
                "  {}  {:7} {}/{}  {}, rule `{}`",
                refusal.at,
                refusal.kind,
                target(refusal),
                plain(&refusal.protocol),
                plain(&refusal.reason),
                plain(&refusal.rule)
            )?;
            if !refusal.condition.is_empty() {
                write!(f, ": {}", plain(&refusal.condition))?;
            }
            if refusal.count > 1 {
                write!(f, "  (x{})", refusal.count)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// How the device stands, its login, its grants and its posture checks, a line each.
#[must_use]
pub fn standing(device: &DeviceStatus, login_ends_in: Option<u64>) -> String {
    let user = device.user.as_deref().unwrap_or("no user");
    let state = match device.state {
        State::Active => "active".to_owned(),
        State::WaitsForApproval => "waits for an admin's approval; it reaches nothing".to_owned(),
        State::Denied => "denied by an admin; it reaches nothing".to_owned(),
        State::NeedsLogin => "needs a login: `postern login`; it reaches nothing".to_owned(),
        State::UserDisabled => "its user is disabled; it reaches nothing".to_owned(),
    };
    let mut text = format!(
        "device          {} ({}{}): {state}\n",
        plain(&device.name),
        plain(user),
        device
            .groups
            .iter()
            .map(|group| format!(", {}", plain(group)))
            .collect::<String>()
    );
    if let Some(session) = &device.session {
        let issuer = session.issuer.as_deref().unwrap_or_default();
        let ends = login_ends_in.map_or("no end".to_owned(), |left| {
            format!("ends in {}", lasting(Duration::from_secs(left)))
        });
        let by = format!("{} {issuer}", session.method);
        text += &format!("login           {}, {ends}\n", plain(by.trim_end()));
    }
    for grant in &device.grants {
        let glass = if grant.break_glass {
            ", break-glass"
        } else {
            ""
        };
        text += &format!(
            "grant           {} {} until {}{glass}: {}\n",
            plain(&grant.id),
            plain(&grant.target),
            moment(grant.until),
            plain(&grant.reason)
        );
    }
    for check in &device.posture {
        let holds = if check.holds { "holds" } else { "FAILS" };
        text += &format!(
            "posture         {}: {holds}; expected {}, received {}\n",
            plain(&check.name),
            plain(&check.expected),
            plain(&check.received)
        );
    }
    text
}

/// Seconds since 1970 as date and time.
pub(crate) fn moment(seconds: u64) -> String {
    let text = Wall(seconds.saturating_mul(1_000_000_000)).rfc3339();
    text.split('.').next().unwrap_or(&text).to_owned() + "Z"
}

/// `192.0.2.10` for a single address, `192.0.2.0/24` for more.
#[must_use]
pub fn prefix(net: &ipnet::IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn target(refusal: &ReportedRefusal) -> String {
    match refusal.port {
        0 => refusal.address.to_string(),
        port => SocketAddr::new(refusal.address, port).to_string(),
    }
}

/// Text from the other end, without anything that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn lasting(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200.. => format!("{} h", seconds / 3600),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", count / 1_000_000),
        10_000_000_000.. => format!("{} GB", count / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_io::offload::{Half, HalfState};
    use postern_proto::device_api::{CheckView, LiveGrant, SessionView};

    fn report() -> Report {
        Report {
            name: "ana".to_owned(),
            pid: 7,
            interface: "postern0".to_owned(),
            connected: true,
            endpoint: Some("203.0.113.5:51820".parse().expect("an endpoint")),
            gateway_key: PublicKey([3; 32]),
            gateway_addresses: vec!["100.96.0.1".parse().expect("an address")],
            addresses: vec!["100.96.0.2".parse().expect("an address")],
            include: vec![
                "192.0.2.10/32".parse().expect("a prefix"),
                "198.51.100.0/24".parse().expect("a prefix"),
            ],
            mtu: 1328,
            mtu_reason: MtuReason::Found,
            mtu_configured: 1420,
            last_handshake: Some("2026-11-22T05:00:43.120Z".to_owned()),
            last_handshake_age: Some(130),
            unanswered: 0,
            rx_bytes: 12_345,
            rx_packets: 9,
            tx_bytes: 800,
            tx_packets: 4,
            held: 0,
            drops: BTreeMap::from([("not-included".to_owned(), 2)]),
            offload: Offloads::from([(
                Half::TunWrite,
                HalfState {
                    on: false,
                    detail: "switched off".to_owned(),
                    fallbacks: 0,
                },
            )]),
            refusals: vec![ReportedRefusal {
                at: "2026-11-22T05:01:00.000Z".to_owned(),
                count: 3,
                kind: "refused".to_owned(),
                protocol: "tcp".to_owned(),
                address: "192.0.2.10".parse().expect("an address"),
                port: 22,
                reason: "policy".to_owned(),
                rule: "default\u{1b}[31m".to_owned(),
                condition: "group `sre` is missing".to_owned(),
            }],
            post_quantum_key: true,
            key_since: Some(1_800_000_000),
            key_age: Some(200_000),
            device: Some(device()),
            login_ends_in: Some(500),
            trouble: None,
        }
    }

    fn device() -> DeviceStatus {
        DeviceStatus {
            name: "ana-laptop".to_owned(),
            user: Some("ana@example.com".to_owned()),
            groups: vec!["sre".to_owned()],
            state: State::NeedsLogin,
            session: Some(SessionView {
                id: "s1".to_owned(),
                method: "oidc".to_owned(),
                issuer: Some("https://idp.example.com".to_owned()),
                since: 0,
                until: Some(500),
            }),
            posture: vec![CheckView {
                name: "disk-encrypted".to_owned(),
                holds: false,
                expected: "on".to_owned(),
                received: "off\u{1b}[31m".to_owned(),
            }],
            preshared_key: true,
            key_since: 1_800_000_000,
            grants: vec![LiveGrant {
                id: "222222222222".to_owned(),
                target: "nodes".to_owned(),
                reason: "INC-42\u{1b}[31m".to_owned(),
                break_glass: true,
                until: 1_800_003_610,
            }],
        }
    }

    #[test]
    fn people_read_it_and_a_terminal_obeys_nothing_in_it() {
        let text = report().to_string();
        for line in [
            "state           connected",
            "last handshake  2 min ago",
            "key             55 h old; post-quantum key: yes",
            "device          ana-laptop (ana@example.com, sre): needs a login: `postern login`; it reaches nothing",
            "login           oidc https://idp.example.com, ends in 8 min",
            "posture         disk-encrypted: FAILS; expected on, received off?[31m",
            "grant           222222222222 nodes until 2027-01-15T09:00:10Z, break-glass: INC-42?[31m",
            "received        12 kB in 9 packets",
            "mtu             1328 (the path carries no more; configured 1420)",
            "include         192.0.2.10, 198.51.100.0/24",
            "dropped         not-included 2",
            "tun-write       off (switched off)",
            "refused 192.0.2.10:22/tcp  policy, rule `default?[31m`: group `sre` is missing  (x3)",
        ] {
            assert!(text.contains(line), "{line:?} not in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_json_form_is_read_back() {
        let text = serde_json::to_string(&report()).expect("serialises");
        assert_eq!(
            serde_json::from_str::<Report>(&text).expect("own form"),
            report()
        );
    }
}
