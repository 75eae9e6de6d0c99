//! The line that an event becomes: flat, like every line of the log.

use super::{Action, Actor, AuditEvent, Outcome};
use postern_engine::record::{SCHEMA, date_time, rfc3339};
use postern_proto::now::Wall;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of `before` and of `after`, encoded, and of `reason`; what is longer is left out, so that
/// an event always fits into a line.
const MAX_STATE: usize = 16 << 10;
const MAX_REASON: usize = 1 << 10;

/// One line about a change, or a try of one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AuditLine {
    /// Version of the fields, as in records.
    pub schema: u32,
    /// What the line is about.
    pub kind: AuditKind,
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// Which run of the gateway.
    pub boot: Arc<str>,
    /// Counts from 1 in each run, without gaps: a missing number is a missing event.
    pub audit: u64,
    /// When it happened.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub time: Wall,
    /// What was done, or tried.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// What sort of party did it.
    pub actor: By,
    /// The admin's user of the system, by the kernel's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "admin, where the kernel says it"))]
    pub uid: Option<u32>,
    /// The device that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "device, unless `privacy` drops it"))]
    pub device: Option<String>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "device with a user, unless `privacy` drops it"))]
    pub user: Option<String>,
    /// The invitation that the guest holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "guest"))]
    pub invitation: Option<String>,
    /// Where the party was on the Internet: address and port, or a pseudonym of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "device, guest; when known, unless `privacy` drops it"))]
    pub from: Option<String>,
    /// What it was done to: `device`, `user`, `session`, `invitation`, `grant`, `flow`, `policy`, `config`, `path`.
    pub object_kind: &'static str,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless it is a name that `privacy` drops"))]
    pub object: Option<String>,
    /// Why it was refused or failed, or why it was done, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when there is more to say"))]
    pub reason: Option<String>,
    /// What held before. Never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object", extend("x-present" = "when something did"))]
    pub before: Option<Value>,
    /// What holds after. Never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object", extend("x-present" = "when something does"))]
    pub after: Option<Value>,
}

/// The kind of an [`AuditLine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditKind {
    /// A change, or a try of one.
    #[default]
    Audit,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Over the admin socket.
    Admin,
    /// An enrolled device, through its tunnel.
    Device,
    /// Whoever holds an invitation.
    Guest,
    /// The gateway itself: a time had come, a file had changed.
    Gateway,
}

impl AuditLine {
    /// The line number `audit` of the run.
    pub(crate) fn new(
        gateway: &Arc<str>,
        boot: &Arc<str>,
        audit: u64,
        time: Wall,
        event: AuditEvent,
    ) -> AuditLine {
        let mut line = AuditLine {
            schema: SCHEMA,
            kind: AuditKind::Audit,
            gateway: gateway.clone(),
            boot: boot.clone(),
            audit,
            time,
            action: event.action,
            outcome: event.outcome,
            actor: By::Gateway,
            uid: None,
            device: None,
            user: None,
            invitation: None,
            from: None,
            object_kind: event.object.kind,
            object: Some(short(event.object.name)),
            reason: event.reason.map(short),
            before: event.before.map(state),
            after: event.after.map(state),
        };
        match event.actor {
            Actor::Admin { uid } => {
                line.actor = By::Admin;
                line.uid = uid;
            }
            Actor::Device { name, user, from } => {
                line.actor = By::Device;
                line.device = Some(short(name));
                line.user = user.map(short);
                line.from = from.map(|from| from.to_string());
            }
            Actor::Guest { invitation, from } => {
                line.actor = By::Guest;
                line.invitation = Some(short(invitation));
                line.from = from.map(|from| from.to_string());
            }
            Actor::Gateway => {}
        }
        line
    }
}

fn short(mut text: String) -> String {
    if text.len() > MAX_REASON {
        text.truncate(text.floor_char_boundary(MAX_REASON));
        text.push('…');
    }
    text
}

fn state(value: Value) -> Value {
    let bytes = value.to_string().len();
    if bytes > MAX_STATE {
        json!({ "left_out_bytes": bytes })
    } else if value.is_object() {
        value
    } else {
        json!({ "value": value })
    }
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}
