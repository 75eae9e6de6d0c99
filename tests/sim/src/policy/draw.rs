//! Policies by chance.

use super::{Entry, GROUPS, Place, Rule, Rules, USERS};
use crate::dice::{Dice, Seeded};
use crate::state::CHECKS;
use postern_engine::policy::Policy;

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
/// Where laptops are at first, and where they go.
const OUTERS: [&str; 4] = [
    "203.0.113.0/24",
    "198.18.0.0/17",
    "198.18.128.0/17",
    "203.0.114.0/24",
];
/// Worlds begin at 08:00 and last some minutes, few of them hours.
const HOURS: [(&str, u64, u64); 6] = [
    ("08:00-08:01", 480, 481),
    ("08:01-08:03", 481, 483),
    ("08:02-20:00", 482, 1200),
    ("07:00-08:04", 420, 484),
    ("09:00-08:02", 540, 482),
    ("22:00-09:00", 1320, 540),
];

impl Rules {
    /// A policy drawn from `seed`, and the engine's reading of it. Rules that the engine refuses
    /// as unreachable are taken out from the end.
    pub fn draw(seed: u64) -> Result<(Rules, Policy), String> {
        let mut dice = Seeded::new(seed);
        let (mut rules, mut grants) = (Vec::new(), Vec::new());
        let generous = seed.is_multiple_of(3);
        if generous {
            let to = vec![Place {
                prefixes: vec!["192.0.2.0/24"],
                ports: vec!["6443/tcp", "22/tcp", "53/udp", "icmp"],
            }];
            rules.push(Rule {
                name: "rule 0".into(),
                allow: true,
                to,
                ..Rule::default()
            });
        }
        for place in 1..=dice.between(1, 5) {
            rules.push(Rule::draw(format!("rule {place}"), &mut dice));
        }
        for place in 0..dice.index(3) {
            grants.push(Entry::draw(place, &mut dice));
        }
        let mut drawn = Rules { rules, grants };
        let mut policy = loop {
            let text = drawn.text();
            match Policy::parse(&text) {
                Ok(policy) => break policy,
                Err(errors) if drawn.rules.len() <= 1 => return Err(format!("{errors}\n{text}")),
                Err(_) => drawn.rules.pop(),
            };
        };
        for place in 0..dice.index(4) {
            let mut more = drawn.clone();
            let at = dice.index(more.rules.len() + 1);
            more.rules.insert(at, Rule::special(place, &mut dice));
            if let Ok(read) = Policy::parse(&more.text()) {
                (drawn, policy) = (more, read);
            }
        }
        Ok((drawn, policy))
    }
}

impl Rule {
    fn draw(name: String, dice: &mut Seeded) -> Rule {
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
        let to = (0..places).map(|_| Place::draw(dice)).collect();
        Rule {
            name,
            allow: !dice.one_in(4),
            users,
            groups,
            devices,
            posture,
            session_age,
            to,
            ..Rule::default()
        }
    }

    /// In shadow, for some places on the Internet, for some hours; or several of them.
    fn special(place: usize, dice: &mut Seeded) -> Rule {
        let mut rule = Rule::draw(format!("special {place}"), dice);
        if dice.one_in(2) {
            (rule.users, rule.groups, rule.devices) = Default::default();
        }
        let kind = dice.index(3);
        rule.shadow = kind == 0 || dice.one_in(4);
        if kind == 1 || dice.one_in(4) {
            rule.outer = some(dice, &OUTERS);
        }
        if kind == 2 || dice.one_in(4) {
            rule.hours = Some(HOURS[dice.index(HOURS.len())]);
        }
        rule
    }
}

impl Entry {
    fn draw(place: usize, dice: &mut Seeded) -> Entry {
        let mut rule = Rule::draw(format!("grant {place}"), dice);
        if dice.one_in(2) {
            (rule.users, rule.groups, rule.devices) = Default::default();
        }
        if dice.one_in(4) {
            rule.outer = some(dice, &OUTERS);
        }
        if rule.to.is_empty() {
            rule.to.push(Place::draw(dice));
        }
        Entry {
            names: (0..rule.to.len())
                .map(|n| format!("given{place}{n}"))
                .collect(),
            rule,
            max: [30, 600, 7200][dice.index(3)],
            break_glass: dice.one_in(2),
        }
    }
}

impl Place {
    fn draw(dice: &mut Seeded) -> Place {
        Place {
            prefixes: some(dice, &PREFIXES),
            ports: some(dice, &PORTS),
        }
    }
}

fn some(dice: &mut Seeded, all: &[&'static str]) -> Vec<&'static str> {
    let first = dice.index(all.len());
    let count = dice.index(2) + 1;
    (0..count.min(all.len()))
        .map(|n| all[(first + n) % all.len()])
        .collect()
}
