//! Who has proved who they are is let in, or not; and leaves.
//!
//! A device has one user for ever, an account of an issuer is one user for ever, and a user has
//! one account with each issuer. So neither a device nor an account can become somebody else's.

use super::Control;
use super::device::{actor, unavailable};
use crate::audit::{Action, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use crate::login::{Proven, Who};
use crate::store::{Device, Kind, NewSession, Session, StoreError};
use crate::worker_api::DeviceRecord;
use postern_io::clock::Clock;
use postern_proto::device_api::{
    DeviceStatus, ErrorCode, LoginFinish, LoginMethod, LoginStart, LoginStarted,
};
use serde_json::{Value, json};
use std::net::SocketAddr;

impl Control {
    /// How one can log in here.
    #[must_use]
    pub fn login_methods(&self) -> Vec<LoginMethod> {
        self.logins.methods()
    }

    /// Begins a login.
    ///
    /// # Errors
    /// The device has no user and gets none, or the login cannot be begun.
    pub async fn start_login(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        start: &LoginStart,
    ) -> Result<LoginStarted, DeviceProblem> {
        let device = self.store.device(name).await?;
        self.for_people(&device).await?;
        let who = who(&device, outer);
        self.logins.start(who, start, Clock::now().wall).await
    }

    /// Finishes it: who is it, and may they?
    ///
    /// # Errors
    /// It is nobody, or they may not. [`ErrorCode::LoginPending`]: ask again.
    pub async fn finish_login(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        finish: &LoginFinish,
    ) -> Result<DeviceStatus, DeviceProblem> {
        let device = self.store.device(name).await?;
        let who = who(&device, outer);
        let proven = self.logins.finish(who, finish, Clock::now().wall).await?;
        self.log_in(name, outer, proven).await
    }

    /// Lets a user in who has proved who they are. Live flows stay, but for those that need a
    /// group that this login does not bring. Durable and in force when it returns.
    ///
    /// # Errors
    /// They may not, which is recorded; or it cannot be done now.
    pub async fn log_in(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        proven: Proven,
    ) -> Result<DeviceStatus, DeviceProblem> {
        self.may_give()?;
        let _alone = self.changing.lock().await;
        let before = self.as_it_stands(name).await?;
        let begun = self.begin(name, &proven).await;
        let event = |outcome, reason, after| AuditEvent {
            action: Action::Login,
            outcome,
            actor: actor(&before, outer),
            object: Object {
                kind: "device",
                name: name.to_owned(),
            },
            reason,
            before: Some(standing_words(&before)),
            after: Some(after),
        };
        let session = match begun {
            Ok(session) => session,
            Err(problem) => {
                let (why, who) = (Some(problem.error.clone()), proven_words(&proven));
                self.note(event(Outcome::Refused, why, who)).await;
                return Err(problem);
            }
        };
        let put = self.put_in_force(name).await;
        let mut after = session_words(&session);
        if let Ok((record, cut)) = &put {
            after["groups"] = json!(record.groups);
            after["flows_cut"] = json!(cut.flows);
        }
        self.note(event(Outcome::Done, None, after)).await;
        let (record, _) = put?;
        self.tell_changed(&record);
        let device = self.store.device(name).await?;
        self.status_of(&device, &record)
    }

    /// Ends the login in force, if there is one. What needs it is cut when this returns.
    ///
    /// # Errors
    /// It cannot be done now.
    pub async fn log_out(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
    ) -> Result<DeviceStatus, DeviceProblem> {
        let _alone = self.changing.lock().await;
        let before = self.as_it_stands(name).await?;
        if let Some(session) = &before.standing.session {
            let now = Clock::now().wall.seconds();
            let ended = self.store.end_session(&session.id, "logout", now).await?;
            let (record, cut) = self.put_in_force(name).await?;
            if let Some(ended) = ended {
                let event = session_end(actor(&before, outer), &ended, &record, cut.flows);
                self.note(event).await;
            }
            self.tell_changed(&record);
        }
        let device = self.store.device(name).await?;
        self.status_of(&device, &self.as_it_stands(name).await?)
    }

    /// The rules, and then the store.
    async fn begin(&self, name: &str, proven: &Proven) -> Result<Session, DeviceProblem> {
        let device = self.store.device(name).await?;
        self.for_people(&device).await?;
        let now = Clock::now().wall;
        let account = format!("{}|{}", proven.issuer, proven.subject);
        // The account says who it is. Its claims may change; the user does not.
        let known = self.store.user_of(&account).await?;
        let user = known.unwrap_or_else(|| proven.user.clone());
        if let Some(owner) = &device.record.user
            && !owner.eq_ignore_ascii_case(&user)
        {
            return Err(refused(
                "this device is another user's",
                "log in as its user, or ask the admin for an invitation of your own",
            ));
        }
        match self.store.user(&user).await {
            Ok(user) if user.disabled.is_some() => {
                return Err(refused("this user is disabled", "ask the admin"));
            }
            Ok(_) | Err(StoreError::Absent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.store
            .link_identity(&proven.issuer, &proven.subject, &user, now.seconds())
            .await
            .map_err(or_refused)?;
        let age = self.config.get().session.max_age;
        let new = NewSession {
            device: name.to_owned(),
            user,
            method: proven.method.to_owned(),
            issuer: (proven.method == "oidc").then(|| proven.issuer.clone()),
            subject: Some(proven.subject.clone()),
            groups: proven.groups.clone(),
            amr: proven.amr.clone(),
            acr: proven.acr.clone(),
            since: proven.at.min(now).seconds(),
            until: age.map(|age| now.seconds().saturating_add(age.as_secs())),
        };
        let begun = self.store.begin_session(&new, now.seconds()).await;
        begun.map_err(or_refused)
    }

    /// Whether somebody can log in on a device: it has a user, or gets one by its first login.
    async fn for_people(&self, device: &Device) -> Result<(), DeviceProblem> {
        if device.record.user.is_some() {
            return Ok(());
        }
        if let Some(id) = &device.invitation
            && self.store.invitation(id).await?.kind == Kind::Open
        {
            return Ok(());
        }
        Err(refused(
            "this device is a machine, and machines have no user",
            "ask the admin for an invitation of your own",
        ))
    }
}

fn who(device: &Device, outer: Option<SocketAddr>) -> Who<'_> {
    Who {
        device: &device.record.name,
        user: device.record.user.as_deref(),
        from: outer,
    }
}

/// The end of a session, for the log.
pub(super) fn session_end(
    actor: crate::audit::Actor,
    session: &Session,
    after: &DeviceRecord,
    cut: u64,
) -> AuditEvent {
    AuditEvent {
        action: Action::SessionEnd,
        outcome: Outcome::Done,
        actor,
        object: Object {
            kind: "session",
            name: session.id.clone(),
        },
        reason: session.end_reason.clone(),
        before: Some(session_words(session)),
        after: Some(json!({ "groups": after.groups, "flows_cut": cut })),
    }
}

fn session_words(session: &Session) -> Value {
    json!({
        "device": session.device,
        "user": session.user,
        "session": session.id,
        "method": session.method,
        "issuer": session.issuer,
        "since": session.since,
        "until": session.until,
        "session_groups": session.groups,
        "amr": session.amr,
        "acr": session.acr,
    })
}

fn standing_words(record: &DeviceRecord) -> Value {
    let session = record.standing.session.as_ref();
    json!({
        "user": record.user,
        "groups": record.groups,
        "session": session.map(|session| session.id.to_string()),
    })
}

fn proven_words(proven: &Proven) -> Value {
    json!({
        "user": proven.user,
        "subject": proven.subject,
        "method": proven.method,
        "issuer": proven.issuer,
    })
}

fn refused(error: &str, help: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::LoginRefused, error, help)
}

fn or_refused(error: StoreError) -> DeviceProblem {
    match error {
        StoreError::Refused { problem, help } => {
            DeviceProblem::new(ErrorCode::LoginRefused, problem, help)
        }
        StoreError::NoDevice { .. } | StoreError::Absent { .. } => {
            refused("this device is gone", "ask the admin")
        }
        StoreError::Schema { .. } | StoreError::Database { .. } => unavailable(&error),
    }
}
