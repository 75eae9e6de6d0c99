//! gateway.yaml: `raw` is what the file may say, [`Config`] is what has been proved of it.
//! All semantic errors are reported at once, each with its line and what to write instead.

mod flow_log;
mod identity;
mod login;
mod prove;
mod raw;
mod resolver;
pub(crate) mod units;

pub use flow_log::{
    Auth, FileConfig, FlowLogConfig, Hints, LokiConfig, LokiFormat, OtlpConfig, Privacy,
    PushConfig, Sync, Treatment,
};

pub use identity::{KeysConfig, PostureConfig, SessionConfig};

pub use resolver::{MAX_SERVERS, ResolverConfig};

pub use login::{EmailConfig, EmailTls, LoginConfig, ProviderConfig, UserClaim};

use crate::pool::Pool;
use ipnet::IpNet;
use postern_io::offload::Switches;
use postern_proto::profile::HostPort;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the programs look for gateway.yaml unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/postern/gateway.yaml";

/// A proved configuration. Relative paths have been resolved against the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file itself.
    pub path: PathBuf,
    /// Names this gateway in records.
    pub name: String,
    /// Where devices find the gateway, in the order in which they try. Only profiles use it.
    pub endpoints: Vec<HostPort>,
    /// UDP port, IPv4 and IPv6.
    pub listen_port: u16,
    /// Name of the TUN, at most 15 bytes.
    pub interface: String,
    /// Inner MTU, bytes.
    pub mtu: u16,
    /// Addresses of the tunnel.
    pub pool: Pool,
    /// What targets see as source.
    pub egress: Egress,
    /// The policy file.
    pub policy: PathBuf,
    /// The gateway's private key, 0600.
    pub key_file: PathBuf,
    /// Store, flow log, admin socket. One folder to back up.
    pub data_dir: PathBuf,
    /// Unix socket of the admin API, 0600.
    pub admin_socket: PathBuf,
    /// Where metrics are served; nowhere if none.
    pub metrics: Option<SocketAddr>,
    /// Where records go.
    pub flow_log: FlowLogConfig,
    /// What happens to new flows when records cannot be written.
    pub on_log_failure: OnLogFailure,
    /// Which of the kernel's offloads may be used.
    pub offload: Switches,
    /// What devices send into the tunnel; every address of the policy if none.
    pub include: Option<Vec<IpNet>>,
    /// Seconds between keepalives in profiles; never if none.
    pub keepalive: Option<u16>,
    /// Whether devices that join reach nothing until an admin approves them.
    pub require_approval: bool,
    /// How long a login lasts.
    pub session: SessionConfig,
    /// How often devices report, and how long that counts.
    pub posture: PostureConfig,
    /// How long a device's key lasts.
    pub keys: KeysConfig,
    /// Threads that carry packets.
    pub workers: Workers,
    /// What a change of the policy needs.
    pub policy_change: PolicyChangeConfig,
    /// Bounds of the flow table.
    pub limits: Limits,
    /// The program's own log, on stderr.
    pub log: LogConfig,
    /// How users prove who they are.
    pub login: LoginConfig,
    /// Who says what the names of targets mean.
    pub resolver: ResolverConfig,
}

/// What targets see as the source of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// The gateway's own address.
    Masquerade,
    /// The device's tunnel address; targets need a route back.
    Routed,
}

/// What happens to new flows when records cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLogFailure {
    /// They are refused: nothing passes unrecorded.
    DenyNew,
    /// They pass; lost records are counted.
    Allow,
}

/// Threads that carry packets, each with devices of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as the machine has cores, rounded down to a power of two, if packets can be
    /// steered to them; one otherwise.
    Auto,
    /// 1, 2, 4 or 8.
    Exactly(u8),
}

/// What a change of the policy needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyChangeConfig {
    /// Whether an edit of the file comes into force by itself.
    pub watch: bool,
    /// Whether a policy without `tests:` is refused.
    pub require_tests: bool,
    /// The most recorded attempts that `policy apply` may newly deny, unless it is forced.
    pub max_newly_denied: Option<u64>,
}

/// Bounds of the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All flows.
    pub flows: u32,
    /// Flows of one device.
    pub flows_per_device: u32,
    /// TCP flows of one device whose target has not answered.
    pub half_open_per_device: u32,
}

/// The program's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

/// Whether a changed field takes effect in the running gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At once.
    Live,
    /// At the next start.
    Restart,
}

/// Fields that differ between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In force as soon as the new configuration is published.
    pub live: Vec<&'static str>,
    /// Waiting for a restart.
    pub restart: Vec<&'static str>,
}

/// One thing wrong with gateway.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 where there is none (a missing field).
    pub line: u64,
    /// The field, as in the file: `flow_log.max_size`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}\n  help: {help}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// What to do.
        help: String,
    },
    /// It is not YAML, or a field is unknown or of the wrong type.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// With line, column and the text around it.
        reason: String,
    },
    /// It says what cannot be.
    #[error("{}", list(path, problems))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Every one, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl Config {
    /// Every field and whether a change of it takes effect in the running gateway. `policy` is
    /// the path: the content of the policy file is always live.
    pub const FIELDS: [(&'static str, Effect); 28] = [
        ("endpoint", Effect::Live),
        ("include", Effect::Live),
        ("keepalive", Effect::Live),
        ("login", Effect::Live),
        ("require_approval", Effect::Live),
        ("session", Effect::Live),
        ("posture", Effect::Live),
        ("keys", Effect::Live),
        ("resolver", Effect::Live),
        ("policy_change", Effect::Live),
        ("name", Effect::Restart),
        ("mtu", Effect::Restart),
        ("listen_port", Effect::Restart),
        ("interface", Effect::Restart),
        ("pool_v4", Effect::Restart),
        ("pool_v6", Effect::Restart),
        ("egress", Effect::Restart),
        ("policy", Effect::Restart),
        ("key_file", Effect::Restart),
        ("data_dir", Effect::Restart),
        ("admin_socket", Effect::Restart),
        ("metrics", Effect::Restart),
        ("flow_log", Effect::Restart),
        ("on_log_failure", Effect::Restart),
        ("offload", Effect::Restart),
        ("workers", Effect::Restart),
        ("limits", Effect::Restart),
        ("log", Effect::Restart),
    ];

    /// Reads and proves a file.
    ///
    /// # Errors
    /// All that is wrong with it, as [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
            help: unreadable_help(path, error.kind()),
        })?;
        Config::parse(&text, path)
    }

    /// Proves the text of a file that stands at `path`.
    ///
    /// # Errors
    /// All that is wrong with it, as [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let raw = serde_saphyr::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        prove::prove(raw, path).map_err(|mut problems| {
            problems.sort_by_key(|problem| problem.line);
            ConfigError::Wrong {
                path: path.to_owned(),
                problems,
            }
        })
    }

    /// What differs in `newer`.
    #[must_use]
    pub fn changes(&self, newer: &Config) -> Changes {
        let mut changes = Changes::default();
        for (field, effect) in Config::FIELDS {
            if !self.differs(newer, field) {
                continue;
            }
            match effect {
                Effect::Live => changes.live.push(field),
                Effect::Restart => changes.restart.push(field),
            }
        }
        changes
    }

    /// This configuration with the live fields of `newer`.
    #[must_use]
    pub fn with_live_fields(&self, newer: &Config) -> Config {
        Config {
            endpoints: newer.endpoints.clone(),
            include: newer.include.clone(),
            keepalive: newer.keepalive,
            login: newer.login.clone(),
            require_approval: newer.require_approval,
            session: newer.session,
            posture: newer.posture,
            keys: newer.keys,
            resolver: newer.resolver.clone(),
            policy_change: newer.policy_change,
            ..self.clone()
        }
    }

    /// The SQLite store.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.data_dir.join("postern.db")
    }

    fn differs(&self, newer: &Config, field: &str) -> bool {
        match field {
            "endpoint" => self.endpoints != newer.endpoints,
            "include" => self.include != newer.include,
            "keepalive" => self.keepalive != newer.keepalive,
            "login" => self.login != newer.login,
            "require_approval" => self.require_approval != newer.require_approval,
            "session" => self.session != newer.session,
            "posture" => self.posture != newer.posture,
            "keys" => self.keys != newer.keys,
            "resolver" => self.resolver != newer.resolver,
            "policy_change" => self.policy_change != newer.policy_change,
            "name" => self.name != newer.name,
            "mtu" => self.mtu != newer.mtu,
            "listen_port" => self.listen_port != newer.listen_port,
            "interface" => self.interface != newer.interface,
            "pool_v4" => self.pool.v4 != newer.pool.v4,
            "pool_v6" => self.pool.v6 != newer.pool.v6,
            "egress" => self.egress != newer.egress,
            "policy" => self.policy != newer.policy,
            "key_file" => self.key_file != newer.key_file,
            "data_dir" => self.data_dir != newer.data_dir,
            "admin_socket" => self.admin_socket != newer.admin_socket,
            "metrics" => self.metrics != newer.metrics,
            "flow_log" => self.flow_log != newer.flow_log,
            "on_log_failure" => self.on_log_failure != newer.on_log_failure,
            "offload" => self.offload != newer.offload,
            "workers" => self.workers != newer.workers,
            "limits" => self.limits != newer.limits,
            "log" => self.log != newer.log,
            _ => false,
        }
    }
}

impl ConfigError {
    /// What is wrong, without the words of the file: a secret may stand there by mistake.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            ConfigError::Wrong { problems, .. } => {
                let fields: Vec<_> = problems.iter().map(|one| one.field.as_str()).collect();
                format!("wrong: {}", fields.join(", "))
            }
            ConfigError::Unreadable { reason, .. } => format!("cannot be read: {reason}"),
            ConfigError::Malformed { .. } => "not a gateway.yaml; `status` says where".into(),
        }
    }

    /// One line for each thing that is wrong, for status and listings.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Wrong { path, problems } => problems
                .iter()
                .map(|problem| format!("{}:{problem}", path.display()))
                .collect(),
            ConfigError::Unreadable { .. } | ConfigError::Malformed { .. } => {
                vec![self.to_string()]
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        write!(
            f,
            " {}: {}\n  help: {}",
            self.field, self.problem, self.help
        )
    }
}

fn list(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}:{problem}", path.display()))
        .collect();
    lines.join("\n")
}

fn unreadable_help(path: &Path, kind: std::io::ErrorKind) -> String {
    if kind == std::io::ErrorKind::NotFound {
        let folder = path.parent().unwrap_or(Path::new("."));
        format!(
            "make one with `postern-gateway init {}`, or name it with --config",
            folder.display()
        )
    } else {
        "run as the user that owns it".to_owned()
    }
}

#[cfg(test)]
mod tests;
