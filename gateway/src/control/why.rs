//! Why: for a device, about itself and nobody else. Who asks is known by the key of its tunnel, so
//! the request has no place for another name.

use super::Control;
use crate::device_api::DeviceProblem;
use crate::past::subject_of;
use crate::worker_api::DeviceRecord;
use postern_engine::duration;
use postern_engine::policy::{Policy, Subject, Tuple, TupleError};
use postern_history::reach::reaches_nothing;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, LiveGrant, SessionView, WhyAnswer, WhyRequest};
use postern_proto::now::Wall;
use std::net::IpAddr;

impl Control {
    /// Whether a flow of the device would pass now, and why: the same as `policy explain` for it.
    ///
    /// # Errors
    /// What is asked for is no destination, or the store failed.
    pub async fn why(&self, name: &str, request: &WhyRequest) -> Result<WhyAnswer, DeviceProblem> {
        let to: Tuple = request.to.parse().map_err(|error: TupleError| {
            DeviceProblem::new(ErrorCode::BadRequest, error.what, error.help)
        })?;
        let now = Clock::now().wall;
        let record = self.as_it_stands(name).await?;
        let outer = self.heard_at(&record);
        let mut who = subject_of(record);
        who.standing.outer = outer;
        let posture = self.checks_of(&who.standing);
        let policy = self.policy.current();
        let mut answer = WhyAnswer {
            posture,
            ..answer(&policy, &who, &to, now)
        };
        answer.text = text(&answer, &to, now);
        Ok(answer)
    }

    /// Where a device is on the Internet, as far as the data plane said it last.
    pub(super) fn heard_at(&self, record: &DeviceRecord) -> Option<IpAddr> {
        let known = self.last.load();
        let peer = known
            .peers
            .iter()
            .find(|peer| peer.public_key == record.key);
        peer.and_then(|peer| peer.endpoint)
            .or(record.last_endpoint)
            .map(|endpoint| endpoint.ip())
    }
}

fn answer(policy: &Policy, who: &Subject, to: &Tuple, now: Wall) -> WhyAnswer {
    let explained = policy.explain(who, to, now);
    let standing = &who.standing;
    let held = reaches_nothing(standing, now);
    let lives = |until: Wall| now < until;
    let session = standing.session_at(now).map(|session| SessionView {
        id: session.id.to_string(),
        method: session.method.to_string(),
        issuer: session.issuer.as_ref().map(ToString::to_string),
        since: session.since.seconds(),
        until: session.until.map(Wall::seconds),
    });
    let grants = standing.grants.iter().filter(|grant| lives(grant.until));
    let nearest = explained.nearest.as_ref().filter(|_| held.is_none());
    WhyAnswer {
        allow: explained.allow && held.is_none(),
        text: String::new(),
        rule: match held {
            Some(_) => "default".to_owned(),
            None => explained.rule.clone(),
        },
        target: explained.target.filter(|_| held.is_none()),
        held: held.map(str::to_owned),
        nearest_rule: nearest.map(|rule| rule.rule.clone()),
        failed: match held {
            Some(sentence) => vec![sentence.to_owned()],
            None => nearest
                .iter()
                .flat_map(|rule| &rule.failed)
                .map(|one| one.sentence.to_string())
                .collect(),
        },
        posture: Vec::new(),
        session,
        outer: standing.outer,
        grants: grants
            .map(|grant| LiveGrant {
                id: grant.id.to_string(),
                target: grant.target.to_string(),
                reason: grant.reason.to_string(),
                break_glass: grant.break_glass,
                until: grant.until.seconds(),
            })
            .collect(),
        ask: explained.ask.filter(|_| held.is_none()),
        until: policy.next_change(who, now).map(Wall::seconds),
    }
}

fn text(answer: &WhyAnswer, to: &Tuple, now: Wall) -> String {
    let verdict = if answer.allow { "allow" } else { "deny" };
    let mut lines = vec![match &answer.held {
        Some(held) => format!("{verdict} {to}: {held}"),
        None => format!("{verdict} {to}: rule \"{}\"", answer.rule),
    }];
    if let Some(target) = &answer.target {
        lines.push(format!("target: {target}"));
    }
    if let Some(rule) = &answer.nearest_rule {
        lines.push(format!("nearest rule that would have allowed: {rule}"));
        lines.extend(answer.failed.iter().map(|one| format!("  - {one}")));
    }
    let at = |seconds: u64| Wall(seconds.saturating_mul(1_000_000_000));
    lines.push(match &answer.session {
        Some(session) => {
            let age = duration::shown(now.since(at(session.since)));
            let end = session.until.map_or_else(String::new, |until| {
                format!(", ends in {}", duration::shown(at(until).since(now)))
            });
            format!("login: {age} old{end}")
        }
        None => "login: none in force".to_owned(),
    });
    lines.extend(
        answer
            .outer
            .map(|outer| format!("on the Internet: the gateway hears this device at {outer}")),
    );
    for grant in &answer.grants {
        let how = if grant.break_glass {
            "break-glass"
        } else {
            "grant"
        };
        let left = duration::shown(at(grant.until).since(now));
        lines.push(format!(
            "{how} {}: {}, for {left} more: {}",
            grant.id, grant.target, grant.reason
        ));
    }
    lines.extend(answer.ask.iter().map(|ask| format!("to ask for it: {ask}")));
    if let Some(until) = answer.until {
        let left = duration::shown(at(until).since(now));
        lines.push(format!("time alone changes nothing for {left}"));
    }
    lines.join("\n  ")
}
