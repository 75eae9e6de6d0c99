//! A change of the policy: guarded, put in force, confirmed, taken back, told.

mod guard;

use super::Control;
use super::device::unavailable;
use crate::api::{
    Applied, ApplyPolicy, Confirmed, Force, PolicyChangeView, PolicySource, RollBack,
};
use crate::audit::{Action, Actor, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use crate::policy_watch::{Change, ChangeError};
use crate::problem::Problem;
use crate::store::How;
use guard::Who;
use postern_engine::policy::PolicyHash;
use postern_io::clock::Clock;
use postern_proto::device_api::{ConfirmAnswer, ErrorCode};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The longest time to confirm, seconds: a day.
const LONGEST_WAIT: u64 = 86_400;

impl Control {
    /// Puts a policy in force and into the file, if nothing speaks against it.
    ///
    /// # Errors
    /// The policy is bad, or would cut who applies it or deny too much and is not forced, or
    /// another change waits, or it cannot be done. Then nothing has changed.
    pub async fn apply_policy(&self, ask: ApplyPolicy, by: &str) -> Result<Applied, Problem> {
        if ask
            .confirm_within
            .is_some_and(|wait| !(1..=LONGEST_WAIT).contains(&wait))
        {
            return Err(Problem::refused(
                "a change waits between a second and a day",
                "write for example --confirm-within 2m",
            ));
        }
        let confirm = ask.confirm_within.map(Duration::from_secs);
        self.change_policy(ask.source, How::Apply, confirm, &ask.with, by)
            .await
    }

    /// Puts an earlier policy in force: the one before, or the one that is named. A change that
    /// waits is taken back.
    ///
    /// # Errors
    /// As [`Control::apply_policy`]; or no such policy is kept.
    pub async fn roll_back(&self, ask: RollBack, by: &str) -> Result<Applied, Problem> {
        let status = self.policy.status();
        let stuck = ask.to.is_some() && self.policy.is_stuck().await;
        if let Some(pending) = &status.pending
            && !stuck
        {
            if ask
                .to
                .as_ref()
                .is_some_and(|to| !pending.previous.starts_with(to.as_str()))
            {
                let text = "a change waits for its confirmation";
                return Err(Problem::refused(text, "take it back first, without --to"));
            }
            let by = named(by, &ask.with, None);
            let (was, cut) = self.policy.take_back(by, ask.with.reason).await?;
            return Ok(Applied {
                changed: true,
                previous: was.hash,
                cut,
                own_flows: Vec::new(),
                checked: None,
                newly_denied: None,
                not_judged: None,
                token: None,
                policy: (*self.policy.status()).clone(),
            });
        }
        let to = match ask.to {
            Some(to) => to,
            None => self.policy_before().await?,
        };
        let source = self.policy_text(&to).await?.source;
        self.change_policy(source, How::Rollback, None, &ask.with, by)
            .await
    }

    /// The change that waits is for good. Without a token: whoever asks stands at the gateway.
    ///
    /// # Errors
    /// Nothing waits, or the token is wrong.
    pub async fn confirm_policy(&self, token: Option<&str>) -> Result<Confirmed, Problem> {
        let confirmed = self.policy.confirm(token, None).await?;
        Ok(Confirmed {
            hash: confirmed.hash,
        })
    }

    /// The same for a device, through its tunnel: it shows that the tunnel lives, and not that
    /// any target is reached.
    ///
    /// # Errors
    /// Nothing waits, the device is held, or the token is wrong. Wrong ones are recorded; after
    /// some, none counts.
    pub async fn confirm_by(
        &self,
        device: &str,
        outer: Option<SocketAddr>,
        token: &str,
    ) -> Result<ConfirmAnswer, DeviceProblem> {
        let stands = self.as_it_stands(device).await?.standing;
        if let Some(obstacle) = stands.obstacle(Clock::now().wall) {
            // It never counts as a wrong try: nothing was tried.
            return Err(DeviceProblem::new(
                ErrorCode::Forbidden,
                format!("this device reaches no target: {}", obstacle.as_str()),
                "confirm from a device that does, or at the gateway with --here",
            ));
        }
        let confirmed = self.policy.confirm(Some(token), Some(device)).await;
        let (outcome, reason) = match &confirmed {
            Ok(_) => (Outcome::Done, None),
            Err(error @ ChangeError::WrongToken) => (Outcome::Refused, Some(error.to_string())),
            Err(error) => return Err(for_device(error)),
        };
        let hash = confirmed.as_ref().ok().map(|confirmed| &confirmed.hash);
        let event = AuditEvent {
            action: Action::PolicyConfirm,
            outcome,
            actor: Actor::Device {
                name: device.to_owned(),
                user: self.store.device(device).await?.record.user,
                from: outer,
            },
            object: self.policy_object(),
            reason,
            before: None,
            after: hash.map(|hash| json!({ "policy": hash })),
        };
        self.note(event).await;
        match confirmed {
            Ok(confirmed) => Ok(ConfirmAnswer {
                policy: confirmed.hash,
            }),
            Err(error) => Err(for_device(&error)),
        }
    }

    /// Which policy was in force when, the newest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn policy_history(&self) -> Result<Vec<PolicyChangeView>, Problem> {
        let changes = self.store.policy_changes().await?.into_iter();
        let views = changes.map(|one| PolicyChangeView {
            id: one.id,
            hash: one.change.hash,
            at: one.change.at.seconds(),
            how: one.change.how,
            made_by: one.change.made_by,
            reason: one.change.reason,
            cut: one.change.cut,
        });
        Ok(views.collect())
    }

    /// The text of a policy: `current`, `file`, or how a hash begins.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub async fn policy_text(&self, which: &str) -> Result<PolicySource, Problem> {
        let source = match which {
            "current" => Some(self.policy.source().to_string()),
            "file" => {
                let text = self.policy.file_text();
                Some(text.map_err(|bad| Problem::unable(bad.to_string(), "mend the file"))?)
            }
            hash => self
                .store
                .policy_source(hash)
                .await?
                .map(|(_, source)| source),
        };
        let source = source.ok_or_else(|| {
            Problem::absent(
                format!("no policy is kept whose hash begins with '{which}'"),
                "see `postern-gateway policy history`; `current` and `file` are known as well",
            )
        })?;
        Ok(PolicySource {
            hash: PolicyHash::of(&source).full(),
            source,
        })
    }

    /// What the audit log calls it.
    pub(crate) fn policy_object(&self) -> Object {
        Object {
            kind: "policy",
            name: self.config.get().policy.display().to_string(),
        }
    }

    async fn change_policy(
        &self,
        source: String,
        how: How,
        confirm_within: Option<Duration>,
        with: &Force,
        by: &str,
    ) -> Result<Applied, Problem> {
        let policy = self.policy.prepare(&source).await.map_err(|problems| {
            let all = problems.join("\n\n");
            Problem::refused(
                format!("the policy is refused:\n{all}"),
                "nothing was changed",
            )
        })?;
        let who = self.who_applies(with).await?;
        let unknown = who.is_none() && with.reason.is_none();
        if how == How::Apply && unknown && confirm_within.is_none() {
            return Err(Problem::refused(
                "nobody says whose flows must live, and nothing would take the change back",
                "write --as USER, or --confirm-within 2m; or --force --reason TEXT",
            ));
        }
        let guarded = self.guard(&policy, &source, who.as_ref(), with).await?;
        let change = Change {
            policy,
            source,
            how,
            made_by: named(by, with, who.as_ref()),
            reason: with.reason.clone(),
            confirm_within,
        };
        let changed = self.policy.change(change).await?;
        Ok(Applied {
            changed: changed.changed,
            previous: changed.previous,
            cut: changed.cut,
            own_flows: guarded.own_flows,
            checked: guarded.checked,
            newly_denied: guarded.lost.map(|lost| lost.denied),
            not_judged: guarded.lost.map(|lost| lost.not_judged()),
            token: changed.token,
            policy: (*self.policy.status()).clone(),
        })
    }

    /// The policy that stood before the one in force.
    async fn policy_before(&self) -> Result<String, Problem> {
        let changes = self.store.policy_changes().await?.into_iter();
        let oldest_first = changes.rev().map(|one| (one.change.how, one.change.hash));
        Ok(stood_before(oldest_first).ok_or(ChangeError::NothingBefore)?)
    }

    /// Who applies it: who they say they are, or the device that their SSH comes from.
    async fn who_applies(&self, with: &Force) -> Result<Option<Who>, Problem> {
        if let Some(user) = &with.user {
            let user = self.store.user(user).await?;
            return Ok(Some(Who::User(user.name)));
        }
        let from = with.ssh.as_deref().and_then(|ssh| {
            let address = ssh.split_whitespace().next()?;
            address.split('%').next()?.parse::<IpAddr>().ok()
        });
        let Some(from) = from.map(|from| from.to_canonical()) else {
            return Ok(None);
        };
        let devices = self.store.devices().await?.into_iter();
        let device = devices
            .filter(|device| device.revoked.is_none())
            .map(|device| device.record)
            .find(|record| from == record.v4 || from == record.v6);
        Ok(device.map(|record| match record.user {
            Some(user) => Who::User(user),
            None => Who::Device(record.name),
        }))
    }
}

/// What stood before the newest of these changes, which come oldest first. What was taken back, by
/// its deadline or by somebody, does not come again by itself.
fn stood_before(changes: impl Iterator<Item = (How, String)>) -> Option<String> {
    let mut stood: Vec<String> = Vec::new();
    for (how, hash) in changes {
        let back = match how {
            How::Rollback | How::Revert => stood.iter().rposition(|one| *one == hash),
            How::Start | How::File | How::Apply => None,
        };
        if let Some(at) = back {
            stood.truncate(at + 1);
        } else if stood.last() != Some(&hash) {
            stood.push(hash);
        }
    }
    stood.pop()?;
    stood.pop()
}

/// For the history: by the kernel's word, and as whom.
fn named(by: &str, with: &Force, who: Option<&Who>) -> String {
    match (who, &with.user) {
        (Some(Who::User(user)), _) | (None, Some(user)) => format!("{by} as {user}"),
        (Some(Who::Device(device)), _) => format!("{by} from {device}"),
        (None, None) => by.to_owned(),
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Problem {
        let text = error.to_string();
        match error {
            ChangeError::Waits(_) => Problem::refused(
                text,
                "confirm it with `postern confirm TOKEN`, or `postern-gateway policy rollback`",
            ),
            ChangeError::NothingBefore => Problem::absent(
                text,
                "`postern-gateway policy history` lists all; --to HASH takes one of them",
            ),
            ChangeError::NothingWaits | ChangeError::Unknown(_) => {
                Problem::absent(text, "see `postern-gateway policy history`")
            }
            ChangeError::WrongToken => {
                Problem::refused(text, "`policy apply` printed it; or --here")
            }
            ChangeError::TooManyTries => {
                Problem::refused(text, "confirm with --here, or from another device")
            }
            ChangeError::Unwritable(_) => Problem::unable(text, "nothing was changed"),
            ChangeError::NotInForce(_) => Problem::unable(text, "see the gateway's log"),
            ChangeError::Store(error) => error.into(),
        }
    }
}

fn for_device(error: &ChangeError) -> DeviceProblem {
    let say = |code, help: &str| DeviceProblem::new(code, error.to_string(), help);
    match error {
        ChangeError::NothingWaits => say(
            ErrorCode::NotFound,
            "it was confirmed already, or its time is over and the policy before is in force",
        ),
        ChangeError::WrongToken => say(
            ErrorCode::WrongCode,
            "`postern-gateway policy apply` printed it",
        ),
        ChangeError::TooManyTries => say(
            ErrorCode::TooMany,
            "confirm from another device, or at the gateway with --here",
        ),
        ChangeError::Waits(_)
        | ChangeError::NothingBefore
        | ChangeError::Unwritable(_)
        | ChangeError::Unknown(_)
        | ChangeError::NotInForce(_)
        | ChangeError::Store(_) => unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `apply A`: A comes into force so.
    fn before(changes: &str) -> Option<String> {
        let changes = changes.split(", ").map(|change| {
            let (how, hash) = change.split_once(' ').expect("two words");
            let how = match how {
                "start" => How::Start,
                "file" => How::File,
                "apply" => How::Apply,
                "rollback" => How::Rollback,
                _ => How::Revert,
            };
            (how, hash.to_owned())
        });
        stood_before(changes)
    }

    #[test]
    fn a_rollback_never_brings_back_what_was_taken_back() {
        let cases = [
            ("start A", None),
            ("start A, start A", None),
            ("start A, apply B", Some("A")),
            ("start A, file B, start B, apply C", Some("B")),
            ("start A, apply B, apply C, revert B", Some("A")),
            ("start A, apply B, revert A", None),
            ("start A, apply B, apply C, rollback B", Some("A")),
            ("start A, apply B, apply C, rollback A", None),
            ("start A, apply B, rollback A, apply B", Some("A")),
            ("start A, apply B, apply A, apply C, revert A", Some("B")),
            // Forgotten from before: it stood all the same.
            ("apply B, rollback A", Some("B")),
        ];
        for (changes, expected) in cases {
            assert_eq!(before(changes).as_deref(), expected, "{changes}");
        }
    }
}
