//! What an admin at the gateway decides. Who approves must be somebody, and not who asked.

use super::decide::{Decider, Decision};
use super::{Control, is_own, view};
use crate::api::DecideAs;
use crate::audit::Actor;
use crate::device_api::DeviceProblem;
use crate::problem::Problem;
use crate::store::StoredGrant;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, GrantView, grants};
use serde_json::json;

/// Who an admin is, as far as it is known.
struct Identity {
    /// By their word.
    said: Option<String>,
    /// By the device that they came from.
    device: Option<(String, Option<String>)>,
}

impl Identity {
    fn user(&self) -> Option<&str> {
        let of_device = self.device.as_ref().and_then(|(_, user)| user.as_deref());
        self.said.as_deref().or(of_device)
    }

    fn owns(&self, grant: &StoredGrant) -> bool {
        let device = self.device.as_ref();
        let came = device.is_some_and(|(name, user)| is_own(grant, name, user.as_deref()));
        came || is_own(grant, "", self.said.as_deref())
    }
}

impl Control {
    /// Those that wait or live, oldest first; with `all` past ones too.
    ///
    /// # Errors
    /// The store failed.
    pub async fn grants(&self, all: bool) -> Result<Vec<GrantView>, Problem> {
        let now = Clock::now().wall.seconds();
        let grants = self.store.grants(all).await?.into_iter();
        Ok(grants.map(|grant| view(grant, now)).collect())
    }

    /// Approves, denies or ends a grant for an admin.
    ///
    /// # Errors
    /// The admin is nobody, or who asked, which is recorded; the grant is not in the state for it;
    /// or it cannot be done now.
    pub(crate) async fn decide_grant_as(
        &self,
        uid: Option<u32>,
        id: &str,
        decision: Decision,
        by: &DecideAs,
    ) -> Result<GrantView, Problem> {
        let word = by.reason.as_deref().map(grants::reason).transpose();
        let word = word.map_err(|error| Problem::refused(error.to_string(), "see --help"))?;
        let identity = self.identity(by).await?;
        let uid_name = || uid.map_or_else(|| "an admin".to_owned(), |uid| format!("uid {uid}"));
        let device = identity.device.as_ref().map(|(device, _)| device);
        let decider = Decider {
            name: identity.user().map_or_else(uid_name, str::to_owned),
            actor: Actor::Admin { uid },
            said: Some(json!({ "user": identity.user(), "device": device })),
        };
        let grant = self.store.grant(id).await?;
        if decision == Decision::Approve {
            let problem = if identity.user().is_none() {
                Some(Problem::refused(
                    "who approves is not known",
                    "say who you are: --as USER, or come with ssh through your own tunnel",
                ))
            } else if identity.owns(&grant) {
                Some(Problem::refused(
                    "nobody approves a request of their own",
                    "let somebody else approve it",
                ))
            } else {
                None
            };
            if let Some(problem) = problem {
                self.tell_refused(&decider, decision, id, &problem.error)
                    .await;
                return Err(problem);
            }
        }
        Ok(self.decide(&decider, id, decision, word).await?)
    }

    async fn identity(&self, by: &DecideAs) -> Result<Identity, Problem> {
        let device = match by.from {
            Some(from) => self.store.devices().await?.into_iter().find(|device| {
                let record = &device.record;
                device.revoked.is_none() && (from == record.v4 || from == record.v6)
            }),
            None => None,
        };
        let said = match &by.user {
            Some(name) => {
                let user = self.store.user(name).await?;
                if user.disabled.is_some() {
                    return Err(Problem::refused(
                        format!("user '{}' is disabled", user.name),
                        "a disabled user decides nothing",
                    ));
                }
                Some(user.name)
            }
            None => None,
        };
        Ok(Identity {
            said,
            device: device.map(|device| (device.record.name, device.record.user)),
        })
    }
}

impl From<DeviceProblem> for Problem {
    fn from(problem: DeviceProblem) -> Problem {
        if problem.code == ErrorCode::Unavailable {
            return Problem::unable(problem.error, "see the gateway's log");
        }
        if problem.code == ErrorCode::NotFound {
            let help = "see `postern-gateway grant list`";
            return Problem::absent("there is no such grant", help);
        }
        Problem::refused(problem.error, problem.help)
    }
}
