//! Invitations, users, sessions and attributes.

use crate::store::{Invitation, InvitationState, Kind, Require, Session, StoredAttribute, User};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `POST /v1/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// `personal`, `open` or `machine`.
    pub kind: Kind,
    /// Whose the device will be; of a personal one.
    #[serde(default)]
    pub user: Option<String>,
    /// What policy will see.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The same: `env=prod`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What to call the device; not of an open one.
    #[serde(default)]
    pub name: Option<String>,
    /// `none`, `login` or `approval`; an open one needs one of the two.
    pub require: Require,
    /// How many throw-away keys an open one has: so many devices can join at the same time.
    #[serde(default)]
    pub keys: Option<u16>,
    /// How many devices may join by an open one.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Seconds until it expires.
    pub expires_in: u64,
}

/// Answer to [`Invite`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// As it was stored.
    pub invitation: InvitationView,
    /// The string to give away. Whoever has it can join; it is told once and never stored.
    pub text: String,
}

impl fmt::Debug for Invited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invited")
            .field("invitation", &self.invitation)
            .finish_non_exhaustive()
    }
}

/// One invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationView {
    /// Names it in listings, records and commands. No secret.
    pub id: String,
    /// `personal`, `open` or `machine`.
    pub kind: Kind,
    /// `open`, `used`, `expired` or `revoked`.
    pub state: InvitationState,
    /// Whose the device will be.
    pub user: Option<String>,
    /// What policy will see.
    pub groups: Vec<String>,
    /// The same: `env=prod`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What to call the device.
    pub name: Option<String>,
    /// `none`, `login` or `approval`.
    pub require: Require,
    /// Devices that may join.
    pub uses: u32,
    /// Devices that have.
    pub used: u32,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Seconds since 1970.
    pub revoked: Option<u64>,
    /// Who made it.
    pub made_by: String,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// As policy and records have it.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Since when they are disabled, seconds since 1970.
    pub disabled: Option<u64>,
    /// Who vouches for them: `issuer|sub`.
    pub identities: Vec<String>,
    /// Their devices that may connect.
    pub devices: u64,
}

/// One login, for an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginView {
    /// Names it in records and commands.
    pub id: String,
    /// On which device.
    pub device: String,
    /// Of whom.
    pub user: String,
    /// `oidc`, `email`, `invitation`.
    pub method: String,
    /// Who vouched, for OIDC.
    pub issuer: Option<String>,
    /// What the issuer says of the user's groups.
    pub groups: Vec<String>,
    /// Seconds since 1970.
    pub since: u64,
    /// When it ends by age, seconds since 1970; none: never.
    pub until: Option<u64>,
    /// When it did end, seconds since 1970.
    pub ended: Option<u64>,
    /// Why.
    pub end_reason: Option<String>,
}

/// `POST /v1/devices/{name}/attributes/{attribute}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAttribute {
    /// Its value.
    pub value: String,
    /// Seconds until it is as if it were not there; none: until it is unset.
    #[serde(default)]
    pub expires_in: Option<u64>,
}

/// Something that an admin said of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeView {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// When it ends, seconds since 1970; none: when it is unset.
    pub until: Option<u64>,
    /// Who set it.
    pub set_by: String,
}

impl InvitationView {
    /// As it stands at `now`, seconds since 1970.
    #[must_use]
    pub fn new(invitation: Invitation, now: u64) -> InvitationView {
        InvitationView {
            state: invitation.state(now),
            id: invitation.id,
            kind: invitation.kind,
            user: invitation.user,
            groups: invitation.groups,
            labels: invitation.labels,
            name: invitation.name,
            require: invitation.require,
            uses: invitation.uses,
            used: invitation.used,
            created: invitation.created,
            expires: invitation.expires,
            revoked: invitation.revoked,
            made_by: invitation.made_by,
        }
    }
}

impl From<User> for UserView {
    fn from(user: User) -> UserView {
        UserView {
            name: user.name,
            created: user.created,
            disabled: user.disabled,
            identities: user.identities,
            devices: user.devices,
        }
    }
}

impl From<Session> for LoginView {
    fn from(session: Session) -> LoginView {
        LoginView {
            id: session.id,
            device: session.device,
            user: session.user,
            method: session.method,
            issuer: session.issuer,
            groups: session.groups,
            since: session.since,
            until: session.until,
            ended: session.ended,
            end_reason: session.end_reason,
        }
    }
}

impl From<StoredAttribute> for AttributeView {
    fn from(attribute: StoredAttribute) -> AttributeView {
        AttributeView {
            name: attribute.name,
            value: attribute.value,
            until: attribute.until,
            set_by: attribute.set_by,
        }
    }
}
