//! What a device is told about itself, and what its client is to apply.

use super::Control;
use crate::api::DeviceState;
use crate::audit::{Actor, AuditEvent};
use crate::device_api::DeviceProblem;
use crate::enrol::include_list;
use crate::store::Device;
use crate::worker_api::DeviceRecord;
use postern_engine::standing::Standing;
use postern_io::clock::Clock;
use postern_proto::device_api::{
    CheckView, ClientConfig, DeviceStatus, ErrorCode, LiveGrant, SessionView, State,
};
use postern_proto::now::Wall;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

impl Control {
    /// How a device stands, for itself.
    ///
    /// # Errors
    /// There is none of that name, it is revoked, or the store failed.
    pub async fn device_status(&self, name: &str) -> Result<DeviceStatus, DeviceProblem> {
        let device = self.store.device(name).await?;
        let record = self.as_it_stands(name).await?;
        self.status_of(&device, &record)
    }

    /// What a client applies without a restart.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let (config, policy) = (self.config.get(), self.policy.current());
        // A policy that names no address leaves nothing to reach.
        let include = include_list(&config, &policy).map_or_else(|_| Vec::new(), |found| found.0);
        let mut told = ClientConfig {
            version: String::new(),
            mtu: config.mtu,
            include,
            endpoints: config.endpoints.clone(),
            keepalive: config.keepalive,
            report_every: seconds(config.posture.report_every),
            watched: policy.watched(),
            rotate_after: config.keys.rotate_after.map(|age| age.as_secs()),
            warn_before: seconds(config.session.warn_before),
        };
        let digest = Sha256::digest(postern_proto::device_api::write(&told));
        for byte in &digest[..8] {
            let _ = write!(told.version, "{byte:02x}");
        }
        told
    }

    pub(super) fn status_of(
        &self,
        device: &Device,
        record: &DeviceRecord,
    ) -> Result<DeviceStatus, DeviceProblem> {
        let now = Clock::now().wall;
        let standing = &record.standing;
        let state = state(device.state(), standing, now).ok_or_else(|| {
            DeviceProblem::new(ErrorCode::Forbidden, "this device is revoked", "")
        })?;
        Ok(DeviceStatus {
            name: record.name.clone(),
            user: record.user.clone(),
            groups: record.groups.clone(),
            state,
            session: standing.session.as_ref().map(|session| SessionView {
                id: session.id.to_string(),
                method: session.method.to_string(),
                issuer: session.issuer.as_ref().map(ToString::to_string),
                since: session.since.seconds(),
                until: session.until.map(Wall::seconds),
            }),
            posture: self.checks_of(standing),
            preshared_key: record.preshared_key.is_some(),
            key_since: device.key_since,
            grants: live_grants(standing, now),
        })
    }

    /// The posture checks of the policy in force.
    pub(super) fn checks_of(&self, standing: &Standing) -> Vec<CheckView> {
        let checks = self.policy.current().checks(standing, Clock::now().wall);
        checks
            .into_iter()
            .map(|check| CheckView {
                name: check.name.to_string(),
                holds: check.holds,
                expected: check.expected.to_string(),
                received: check.received.to_string(),
            })
            .collect()
    }

    /// Writes an audit line of something that has happened. A log that cannot be written says so
    /// itself.
    pub(super) async fn note(&self, event: AuditEvent) {
        if let Err(error) = self.log.audit().write(Clock::now().wall, event).await {
            tracing::warn!(%error, "an audit line");
        }
    }

    /// Whether something may be given to somebody now.
    pub(super) fn may_give(&self) -> Result<(), DeviceProblem> {
        self.log
            .audit()
            .ready()
            .map_err(|error| unavailable(&error))
    }
}

/// A device that asks, for the log.
pub(super) fn actor(record: &DeviceRecord, outer: Option<SocketAddr>) -> Actor {
    Actor::Device {
        name: record.name.clone(),
        user: record.user.clone(),
        from: outer,
    }
}

/// The words for a device do not name what is inside the gateway; its log does.
pub(super) fn unavailable(error: &dyn std::error::Error) -> DeviceProblem {
    tracing::warn!(%error, "a device cannot be served");
    DeviceProblem::new(
        ErrorCode::Unavailable,
        "the gateway cannot do this now",
        "try again; the admin finds the cause in the gateway's log",
    )
}

/// Whether the device has a login that lives, or needs none.
pub(super) fn logged_in_as_needed(standing: &Standing, now: Wall) -> bool {
    let lives = standing
        .session
        .as_ref()
        .is_some_and(|session| session.until.is_none_or(|until| until > now));
    lives || !standing.session_required
}

/// The grants that live at `now`.
fn live_grants(standing: &Standing, now: Wall) -> Vec<LiveGrant> {
    let live = standing.grants.iter().filter(|grant| now < grant.until);
    live.map(|grant| LiveGrant {
        id: grant.id.to_string(),
        target: grant.target.to_string(),
        reason: grant.reason.to_string(),
        break_glass: grant.break_glass,
        until: grant.until.seconds(),
    })
    .collect()
}

/// None for a revoked device.
fn state(state: DeviceState, standing: &Standing, now: Wall) -> Option<State> {
    Some(match state {
        DeviceState::Active if logged_in_as_needed(standing, now) => State::Active,
        DeviceState::Active | DeviceState::NeedsLogin => State::NeedsLogin,
        DeviceState::WaitsForApproval => State::WaitsForApproval,
        DeviceState::Denied => State::Denied,
        DeviceState::UserDisabled => State::UserDisabled,
        DeviceState::Revoked => return None,
    })
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
