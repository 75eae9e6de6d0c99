//! The policy as the oracle understands it: a list of rules, scanned from the top. The text that
//! the engine reads is written from the same list.

use crate::dice::{Dice, Seeded};
use crate::packet::{Key, Proto};
use crate::state::{self, CHECKS};
use ipnet::IpNet;
use postern_engine::policy::{Policy, Subject};
use postern_engine::record::CloseReason;
use postern_proto::now::Wall;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Users, groups and devices that rules name. The last of each is nobody.
const USERS: [&str; 4] = ["ana", "ben", "eve", "nobody"];
/// Groups.
pub const GROUPS: [&str; 4] = ["platform", "sre", "guests", "empty"];
const PORTS: [&str; 9] = [
    "6443/tcp",
    "22/tcp",
    "53/udp",
    "icmp",
    "1-100/tcp",
    "80/tcp",
    "1-65535/udp",
    "1-65535/tcp",
    "6000-7000/tcp",
];
const PREFIXES: [&str; 9] = [
    "192.0.2.10/32",
    "192.0.2.11/32",
    "192.0.2.53/32",
    "192.0.2.66/32",
    "192.0.2.0/24",
    "2001:db8::10/128",
    "2001:db8::/32",
    "100.96.0.1/32",
    "100.96.0.0/16",
];

/// One policy.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    allow: bool,
    /// Empty: anyone.
    users: Vec<&'static str>,
    groups: Vec<&'static str>,
    devices: Vec<String>,
    /// All must hold.
    posture: Vec<&'static str>,
    /// Seconds; the login must be younger.
    session_age: Option<u64>,
    /// Empty: anything.
    to: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    prefixes: Vec<&'static str>,
    ports: Vec<&'static str>,
}

impl Rules {
    /// A policy drawn from `seed`, and the engine's reading of it. Rules that the engine refuses
    /// as unreachable are taken out from the end.
    pub fn draw(seed: u64) -> Result<(Rules, Policy), String> {
        let mut dice = Seeded::new(seed);
        let mut rules = Rules { rules: Vec::new() };
        let generous = seed.is_multiple_of(3);
        if generous {
            let to = vec![Place {
                prefixes: vec!["192.0.2.0/24"],
                ports: vec!["6443/tcp", "22/tcp", "53/udp", "icmp"],
            }];
            let (users, groups, devices, posture) = Default::default();
            rules.rules.push(Rule {
                name: "rule 0".into(),
                allow: true,
                users,
                groups,
                devices,
                posture,
                session_age: None,
                to,
            });
        }
        for place in 1..=dice.between(1, 5) {
            rules.rules.push(Rule::draw(place, &mut dice));
        }
        loop {
            let text = rules.text();
            match Policy::parse(&text) {
                Ok(policy) => return Ok((rules, policy)),
                Err(errors) if rules.rules.len() <= 1 => return Err(format!("{errors}\n{text}")),
                Err(_) => rules.rules.pop(),
            };
        }
    }

    /// The first rule that matches: whether it allows, and its name.
    #[must_use]
    pub fn judge(&self, who: &Subject, key: &Key, now: Wall) -> (bool, &str) {
        for rule in &self.rules {
            if rule.is_for(who, now) && rule.leads_to(key) {
                return (rule.allow, &rule.name);
            }
        }
        (false, "default")
    }

    /// Why a rule that was for `who` is so no longer: the age of the login, posture, or who it is.
    #[must_use]
    pub fn lost(&self, rule: &str, who: &Subject, now: Wall) -> Option<CloseReason> {
        let rule = self.rules.iter().find(|one| one.name == rule)?;
        if !rule.is_young(who, now) {
            Some(CloseReason::Session)
        } else if !rule.is_shown(who, now) {
            Some(CloseReason::Posture)
        } else {
            None
        }
    }

    fn text(&self) -> String {
        let mut text = String::from("version: 1\ntargets:\n");
        let places = self.rules.iter().flat_map(|rule| &rule.to);
        for (n, place) in places.enumerate() {
            let (prefixes, ports) = (place.prefixes.join("\", \""), place.ports.join(", "));
            let _ = writeln!(
                text,
                "  target{n}: {{ addresses: [\"{prefixes}\"], ports: [{ports}] }}"
            );
        }
        if text.ends_with("targets:\n") {
            text.truncate("version: 1\n".len());
        }
        text.push_str("posture:\n");
        for (name, check) in CHECKS {
            let _ = writeln!(text, "  {name}: {check}");
        }
        text.push_str("rules:\n");
        let mut n = 0;
        for rule in &self.rules {
            let action = if rule.allow { "allow" } else { "deny" };
            let _ = writeln!(text, "  - name: {}\n    action: {action}", rule.name);
            let mut from = Vec::new();
            let mut field = |name: &str, items: &[&str]| {
                if !items.is_empty() {
                    from.push(format!("{name}: [{}]", items.join(", ")));
                }
            };
            field("users", &rule.users);
            field("groups", &rule.groups);
            field(
                "devices",
                &rule.devices.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            field("posture", &rule.posture);
            from.extend(rule.session_age.map(|age| format!("session_age: {age}s")));
            let from = if from.is_empty() {
                "anyone".into()
            } else {
                format!("{{ {} }}", from.join(", "))
            };
            let to: Vec<String> = rule
                .to
                .iter()
                .map(|_| (format!("target{n}"), n += 1).0)
                .collect();
            let to = if to.is_empty() {
                "anything".into()
            } else {
                format!("[{}]", to.join(", "))
            };
            let _ = writeln!(text, "    from: {from}\n    to: {to}");
        }
        text
    }
}

impl Rule {
    fn draw(place: u64, dice: &mut Seeded) -> Rule {
        let some = |dice: &mut Seeded, all: &[&'static str]| -> Vec<&'static str> {
            let first = dice.index(all.len());
            let count = dice.index(2) + 1;
            (0..count.min(all.len()))
                .map(|n| all[(first + n) % all.len()])
                .collect()
        };
        let (mut users, mut groups, mut devices) = (Vec::new(), Vec::new(), Vec::new());
        match dice.roll(6) {
            0 => {}
            1 => users = some(dice, &USERS),
            2 => devices = vec![format!("laptop{}", dice.roll(6))],
            3 => (users, groups) = (some(dice, &USERS), some(dice, &GROUPS)),
            _ => groups = some(dice, &GROUPS),
        }
        let mut posture = Vec::new();
        if dice.one_in(4) {
            posture = some(dice, &CHECKS.map(|(name, _)| name));
        }
        let session_age = dice.one_in(4).then(|| [5, 60, 600, 7200][dice.index(4)]);
        let places = if dice.one_in(8) {
            0
        } else {
            dice.between(1, 2)
        };
        let to = (0..places)
            .map(|_| Place {
                prefixes: some(dice, &PREFIXES),
                ports: some(dice, &PORTS),
            })
            .collect();
        Rule {
            name: format!("rule {place}"),
            allow: !dice.one_in(4),
            users,
            groups,
            devices,
            posture,
            session_age,
            to,
        }
    }

    fn is_for(&self, who: &Subject, now: Wall) -> bool {
        let user = who.user.as_deref().unwrap_or("");
        (self.users.is_empty() || self.users.contains(&user))
            && (self.groups.is_empty()
                || who
                    .groups
                    .iter()
                    .any(|group| self.groups.contains(&group.as_str())))
            && (self.devices.is_empty() || self.devices.contains(&who.device))
            && self.is_shown(who, now)
            && self.is_young(who, now)
    }

    fn is_shown(&self, who: &Subject, now: Wall) -> bool {
        let standing = &who.standing;
        self.posture
            .iter()
            .all(|check| state::shows(check, standing, now))
    }

    fn is_young(&self, who: &Subject, now: Wall) -> bool {
        self.session_age.is_none_or(|age| {
            state::login(&who.standing, now)
                .is_some_and(|since| now.0 - since.0 < age * 1_000_000_000)
        })
    }

    fn leads_to(&self, key: &Key) -> bool {
        self.to.is_empty() || self.to.iter().any(|place| place.holds(key))
    }
}

impl Place {
    fn holds(&self, key: &Key) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| covers(prefix, key.target.0))
            && self.ports.iter().any(|ports| names(ports, key))
    }
}

fn covers(prefix: &str, address: IpAddr) -> bool {
    prefix
        .parse::<IpNet>()
        .is_ok_and(|prefix| prefix.contains(&address))
}

fn names(ports: &str, key: &Key) -> bool {
    let Some((range, proto)) = ports.split_once('/') else {
        return ports == "icmp" && key.proto == Proto::Icmp;
    };
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let within = |low: u16, high: u16| (low..=high).contains(&key.target.1);
    let (Ok(low), Ok(high)) = (low.parse(), high.parse()) else {
        return false;
    };
    match proto {
        "tcp" => key.proto == Proto::Tcp && within(low, high),
        _ => key.proto == Proto::Udp && within(low, high),
    }
}

/// Who the laptop with this number belongs to.
#[must_use]
pub fn subject(laptop: usize, seed: u64, now: Wall) -> Subject {
    let mut dice = Seeded::new(seed ^ (laptop as u64) << 32);
    let mut groups: Vec<String> = GROUPS[..3]
        .iter()
        .filter(|_| dice.one_in(2))
        .map(|group| (*group).to_owned())
        .collect();
    groups.sort();
    Subject {
        user: (laptop != 3).then(|| USERS[laptop % 3].to_owned()),
        groups,
        device: format!("laptop{laptop}"),
        standing: state::first(dice.bits(), now),
    }
}
