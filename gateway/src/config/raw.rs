//! What gateway.yaml may say, with the place of every value. Unknown fields are refused.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value that may be missing, with its place.
pub(super) type Field<T> = Option<Spanned<T>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Field<String>,
    pub(super) endpoint: Field<OneOrMany>,
    pub(super) listen_port: Field<i64>,
    pub(super) interface: Field<String>,
    pub(super) mtu: Field<i64>,
    pub(super) pool_v4: Field<String>,
    pub(super) pool_v6: Field<String>,
    pub(super) egress: Field<String>,
    pub(super) policy: Field<String>,
    pub(super) key_file: Field<String>,
    pub(super) data_dir: Field<String>,
    pub(super) admin_socket: Field<String>,
    pub(super) metrics: Field<String>,
    #[serde(default)]
    pub(super) flow_log: Option<RawFlowLog>,
    pub(super) on_log_failure: Field<String>,
    pub(super) offload: Field<RawOffload>,
    pub(super) workers: Field<String>,
    pub(super) include: Field<Vec<Spanned<String>>>,
    pub(super) keepalive: Field<String>,
    #[serde(default)]
    pub(super) session: Option<RawSession>,
    pub(super) require_approval: Option<bool>,
    #[serde(default)]
    pub(super) posture: Option<RawPosture>,
    #[serde(default)]
    pub(super) keys: Option<RawKeys>,
    #[serde(default)]
    pub(super) policy_change: Option<RawPolicyChange>,
    #[serde(default)]
    pub(super) limits: Option<RawLimits>,
    #[serde(default)]
    pub(super) log: Option<RawLog>,
    #[serde(default)]
    pub(super) login: Option<RawLogin>,
    #[serde(default)]
    pub(super) resolver: Option<RawResolver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlowLog {
    pub(super) dir: Field<String>,
    pub(super) sync: Field<String>,
    pub(super) segment_size: Field<String>,
    pub(super) keep_size: Field<String>,
    pub(super) keep_age: Field<String>,
    pub(super) privacy: Option<RawPrivacy>,
    pub(super) stdout: Option<bool>,
    pub(super) file: Field<String>,
    pub(super) max_size: Field<String>,
    pub(super) max_age: Field<String>,
    pub(super) max_files: Field<i64>,
    pub(super) loki: Field<RawLoki>,
    pub(super) otlp: Field<RawOtlp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrivacy {
    pub(super) user: Field<String>,
    pub(super) device: Field<String>,
    pub(super) outer_address: Field<String>,
    pub(super) hints: Field<String>,
}

/// `password` and `bearer_token` are here only to say where they belong.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLoki {
    pub(super) url: Field<String>,
    pub(super) tenant: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password: Field<IgnoredAny>,
    pub(super) password_file: Field<String>,
    pub(super) bearer_token: Field<IgnoredAny>,
    pub(super) bearer_token_file: Field<String>,
    pub(super) insecure: Option<bool>,
    pub(super) ca_file: Field<String>,
    pub(super) format: Field<String>,
    pub(super) timeout: Field<String>,
    pub(super) batch_bytes: Field<String>,
    pub(super) batch_age: Field<String>,
}

/// `bearer_token` is here only to say where it belongs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOtlp {
    pub(super) url: Field<String>,
    pub(super) headers_file: Field<String>,
    pub(super) bearer_token: Field<IgnoredAny>,
    pub(super) bearer_token_file: Field<String>,
    pub(super) insecure: Option<bool>,
    pub(super) ca_file: Field<String>,
    pub(super) timeout: Field<String>,
    pub(super) batch_bytes: Field<String>,
    pub(super) batch_age: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSession {
    pub(super) required: Option<bool>,
    pub(super) max_age: Field<String>,
    pub(super) warn_before: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPosture {
    pub(super) report_every: Field<String>,
    pub(super) stale_after: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResolver {
    pub(super) servers: Field<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeys {
    pub(super) rotate_after: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicyChange {
    pub(super) watch: Option<bool>,
    pub(super) require_tests: Option<bool>,
    pub(super) max_newly_denied: Field<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLogin {
    pub(super) providers: Field<Vec<Spanned<RawProvider>>>,
    pub(super) email: Field<RawEmail>,
}

/// `client_secret` is here only to say where it belongs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProvider {
    pub(super) name: Field<String>,
    pub(super) issuer: Field<String>,
    pub(super) client_id: Field<String>,
    pub(super) client_secret: Field<IgnoredAny>,
    pub(super) client_secret_file: Field<String>,
    pub(super) user_claim: Field<String>,
    pub(super) groups_claim: Field<String>,
    pub(super) scopes: Field<Vec<String>>,
    pub(super) ca_file: Field<String>,
    pub(super) clock_skew: Field<String>,
}

/// `password` is here only to say where it belongs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmail {
    pub(super) server: Field<String>,
    pub(super) tls: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password: Field<IgnoredAny>,
    pub(super) password_file: Field<String>,
    pub(super) ca_file: Field<String>,
    pub(super) from: Field<String>,
    pub(super) allow: Field<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) flows: Field<i64>,
    pub(super) flows_per_device: Field<i64>,
    pub(super) half_open_per_device: Field<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: Field<String>,
    pub(super) json: Option<bool>,
}

/// `a` or `[a, b]`.
#[derive(Debug)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HOST:PORT or a list of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = list.next_element()? {
            all.push(text);
        }
        Ok(OneOrMany(all))
    }
}

/// `off` for all, or `{ tun-read: off, udp: off }`.
#[derive(Debug)]
pub(super) enum RawOffload {
    All(String),
    Each(Vec<(String, Spanned<String>)>),
}

impl<'de> Deserialize<'de> for RawOffload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OffloadVisitor)
    }
}

struct OffloadVisitor;

impl<'de> Visitor<'de> for OffloadVisitor {
    type Value = RawOffload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, off, or a map such as { tun: off, udp: auto }")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawOffload, E> {
        Ok(RawOffload::All(text.to_owned()))
    }

    /// YAML takes a bare `off` for a boolean.
    fn visit_bool<E>(self, on: bool) -> Result<RawOffload, E> {
        let text = if on { "on" } else { "off" };
        Ok(RawOffload::All(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawOffload, A::Error> {
        let mut each = Vec::new();
        while let Some(entry) = map.next_entry()? {
            each.push(entry);
        }
        Ok(RawOffload::Each(each))
    }
}
