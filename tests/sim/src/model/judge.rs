//! What the policy says of a flow, and what records say of that.

use super::hints::Said;
use super::track::Track;
use super::{Denied, Device, Expect, Flow, Login, Model, Note};
use crate::packet::Key;
use crate::policy::Rules;
use crate::state;
use crate::told::Told;
use postern_engine::policy::Subject;
use postern_engine::record::CloseReason;
use postern_engine::standing::Grant;
use postern_proto::fate::DropReason;
use postern_proto::now::{Now, Wall};
use std::net::IpAddr;
use std::sync::Arc;

impl Model {
    /// The tunnel takes a laptop to be there from now on. True if rules ask for that: its flows
    /// are judged again, first the one of the packet that came from there.
    pub fn heard_from(&mut self, laptop: usize, at: IpAddr) -> bool {
        let Some(device) = self.devices.get_mut(&laptop) else {
            return false;
        };
        let before = device.subject.standing.outer.replace(at);
        let asked = before != Some(at) && self.rules.asks_outer();
        let theirs = self.flows.values_mut().filter(|flow| flow.device == laptop);
        for flow in theirs.filter(|_| asked) {
            flow.judged = 0;
        }
        asked
    }

    /// Judges the flows of a laptop again.
    pub fn judge_device(&mut self, laptop: usize, now: Now, expect: &mut Expect) {
        for key in self.live(|_, flow| flow.device == laptop) {
            if let Some(reason) = self.cause(key, now.wall) {
                self.cut(key, reason, now, expect);
            }
        }
    }

    pub(super) fn obstacle(
        &self,
        laptop: usize,
        key: &Key,
        half_open: bool,
        now: Now,
    ) -> Option<DropReason> {
        let to = key.target.0;
        let in_pool = match to {
            IpAddr::V4(v4) => v4.octets()[..2] == [100, 96],
            IpAddr::V6(v6) => [0xfd00, 0xfd70].contains(&v6.segments()[0]),
        };
        let subject = &self.devices.get(&laptop)?.subject;
        if let Some((reason, _)) = state::held(&subject.standing, now.wall) {
            Some(reason)
        } else if in_pool && !self.own.contains(&to) {
            Some(DropReason::DeviceToDevice)
        } else if !self.rules.judge(subject, key, now.wall).allow {
            Some(DropReason::Policy)
        } else if !self.log_writable {
            Some(DropReason::LogUnavailable)
        } else if self.live(|_, _| true).len() >= self.limits.flows {
            Some(DropReason::TableFull)
        } else if self.live_of(laptop) >= self.limits.flows_per_device
            || half_open && self.half_open_of(laptop) >= self.limits.half_open_per_device
        {
            Some(DropReason::DeviceQuota)
        } else {
            None
        }
    }

    /// A packet of a flow makes the gateway look whether the policy has changed since.
    pub(super) fn not_allowed_now(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let flow = self.flows.get(&key)?;
        if flow.judged == self.generation {
            return None;
        }
        self.judge_again(key, now)
    }

    /// As what a flow ends, if the facts about its device no longer allow it.
    fn cause(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let reason = self.judge_again(key, now)?;
        let flow = self.flows.get(&key)?;
        let who = &self.devices.get(&flow.device)?.subject;
        if reason != CloseReason::Policy {
            Some(reason)
        } else if flow.logged_in && state::login(&who.standing, now).is_none() {
            Some(CloseReason::Session)
        } else {
            if let Some((id, ..)) = &flow.told.grant {
                let lives = |one: &Grant| *one.id == **id && one.since <= now && now < one.until;
                if !who.standing.grants.iter().any(lives) {
                    return Some(CloseReason::GrantEnded);
                }
            }
            let lost = flow.rules.lost(&flow.told.rule, who, &key, now);
            lost.or(Some(reason))
        }
    }

    /// As what a flow ends, if the policy no longer allows it.
    fn judge_again(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let flow = self.flows.get_mut(&key)?;
        let Some(device) = self.devices.get(&flow.device) else {
            return Some(CloseReason::Revoked);
        };
        let who = &device.subject;
        if let Some((_, reason)) = state::held(&who.standing, now) {
            return Some(reason);
        }
        if !self.rules.judge(who, &key, now).allow {
            return Some(CloseReason::Policy);
        }
        flow.judged = self.generation;
        flow.told = told(&self.rules, device, &key, now);
        flow.rules = Arc::clone(&self.rules);
        flow.logged_in = state::login(&who.standing, now).is_some();
        flow.login_since = device.login.as_ref().map(|login| login.since);
        None
    }

    pub(super) fn open(
        &mut self,
        laptop: usize,
        key: Key,
        tcp: Option<Track>,
        resumed: bool,
        now: Now,
        expect: &mut Expect,
    ) {
        let Some(device) = self.devices.get(&laptop) else {
            return;
        };
        let told = told(&self.rules, device, &key, now.wall);
        let flow = Flow {
            device: laptop,
            cut: None,
            remembered: now.mono,
            out: (0, 0),
            back: (0, 0),
            said: match tcp {
                Some(_) if !resumed => Said::nothing(),
                Some(_) | None => Said::default(),
            },
            tcp,
            last: now.mono,
            judged: self.generation,
            rules: Arc::clone(&self.rules),
            logged_in: state::login(&device.subject.standing, now.wall).is_some(),
            login_since: device.login.as_ref().map(|login| login.since),
            told,
        };
        self.flows.insert(key, flow);
        let told = self.told_at_end(&key, now);
        expect.records.push(Note::Open { key, told, resumed });
    }

    /// Counts a refusal.
    pub(super) fn deny(&mut self, reason: DropReason) {
        *self.denied.entry(reason.as_str()).or_default() += 1;
    }

    /// Counts a refusal, and foretells its record.
    pub(super) fn deny_of(
        &mut self,
        laptop: usize,
        key: Key,
        reason: DropReason,
        now: Now,
    ) -> Option<Denied> {
        self.deny(reason);
        let device = self.devices.get(&laptop)?;
        let mut told = told(&self.rules, device, &key, now.wall);
        told.grant = None;
        let held = state::held(&device.subject.standing, now.wall);
        let held = held.is_some_and(|(held, _)| held == reason);
        if held {
            told.rule = "default".into();
        }
        let no_say = [DropReason::DeviceToDevice, DropReason::SpoofedSource];
        if held || no_say.contains(&reason) {
            told.shadow = None;
        }
        let login = device.login.as_ref();
        told.session_age = login.map(|login| seconds(login.since, now.wall));
        told.posture = self.rules.posture(&told.rule, &device.subject, now.wall);
        Some(Denied {
            key,
            reason: reason.as_str(),
            told,
        })
    }

    /// What a record of a flow says now: as it was judged last, but for what is of this moment.
    pub(super) fn told_at_end(&self, key: &Key, now: Now) -> Told {
        let Some(flow) = self.flows.get(key) else {
            return Told::default();
        };
        let mut told = flow.told.clone();
        told.session_age = flow.login_since.map(|since| seconds(since, now.wall));
        if let Some(device) = self.devices.get(&flow.device) {
            let who = &device.subject;
            told.outer = who.standing.outer;
            told.posture = flow.rules.posture(&told.rule, who, now.wall);
        }
        told
    }
}

impl Login {
    pub(super) fn of(who: &Subject, now: Wall) -> Option<Login> {
        state::login(&who.standing, now)?;
        let session = who.standing.session.as_ref()?;
        Some(Login {
            session: session.id.to_string(),
            issuer: session.issuer.as_ref().map(ToString::to_string),
            since: session.since,
        })
    }
}

/// What a verdict of now says; not how long ago the login was, nor how the checks do.
fn told(rules: &Rules, device: &Device, key: &Key, now: Wall) -> Told {
    let (who, login) = (&device.subject, device.login.as_ref());
    let verdict = rules.judge(who, key, now);
    let grant = verdict.grant.map(|grant| {
        let (id, reason) = (grant.id.to_string(), grant.reason.to_string());
        (id, reason, grant.break_glass)
    });
    Told {
        rule: verdict.rule.to_owned(),
        shadow: rules.shadow(who, key, now),
        grant,
        session: login.map(|login| login.session.clone()),
        issuer: login.and_then(|login| login.issuer.clone()),
        facts: who.standing.facts.as_ref().map(ToString::to_string),
        outer: who.standing.outer,
        ..Told::default()
    }
}

fn seconds(since: Wall, now: Wall) -> u64 {
    (now.0 / 1_000_000_000).saturating_sub(since.0 / 1_000_000_000)
}
