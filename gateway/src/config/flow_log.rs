//! Where records go: the spool, what is left out of them, and who gets a copy.

use hyper::Uri;
use std::path::PathBuf;
use std::time::Duration;

/// The spool, its retention, and the exporters that read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogConfig {
    /// Folder of the spool: the log itself.
    pub dir: PathBuf,
    /// How long a written record may wait for the disk.
    pub sync: Sync,
    /// Bytes after which a new segment is begun.
    pub segment_size: u64,
    /// Bytes that all segments may take; then the oldest goes, acknowledged or not.
    pub keep_size: u64,
    /// Age at which a segment goes, once every exporter has it.
    pub keep_age: Duration,
    /// What records do not say.
    pub privacy: Privacy,
    /// A copy to standard output.
    pub stdout: bool,
    /// A copy to a rotated file.
    pub file: Option<FileConfig>,
    /// A copy to Loki.
    pub loki: Option<LokiConfig>,
    /// A copy to an OpenTelemetry collector.
    pub otlp: Option<OtlpConfig>,
}

/// How long a written record may wait until it is forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Every group of records is forced to disk before the next one is written.
    Always,
    /// At most this long.
    Every(Duration),
}

/// What records do not say, whoever reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    /// The user's name, also where a sentence says it. Groups are roles and stay.
    pub user: Treatment,
    /// The device's name and the fingerprint of its key.
    pub device: Treatment,
    /// The device's address on the Internet.
    pub outer_address: Treatment,
    /// What the first bytes of a flow told: protocol, SSH versions, TLS server name.
    pub hints: Hints,
}

/// What becomes of a personal field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Treatment {
    /// As it is.
    #[default]
    Keep,
    /// A keyed hash: equal values stay equal, and are not told.
    Hash,
    /// Left out.
    Drop,
}

/// What becomes of protocol hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hints {
    /// As they are.
    #[default]
    Keep,
    /// Left out.
    Drop,
}

/// A file that is begun anew by size and age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The current file; older ones get `.1`, `.2` and so on.
    pub path: PathBuf,
    /// Bytes after which a new file is begun.
    pub max_size: u64,
    /// Age after which a new file is begun.
    pub max_age: Duration,
    /// Files kept, the current one included.
    pub max_files: u32,
}

/// Grafana Loki, or what speaks its push API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiConfig {
    /// Where and how.
    pub push: PushConfig,
    /// Value of `X-Scope-OrgID`; no such header if none.
    pub tenant: Option<String>,
    /// What a batch looks like on the wire.
    pub format: LokiFormat,
}

/// What a batch for Loki looks like on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LokiFormat {
    /// Protocol Buffers, compressed with Snappy.
    Protobuf,
    /// JSON, for proxies that take nothing else.
    Json,
}

/// An OpenTelemetry collector: logs over HTTP, in Protocol Buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Where and how.
    pub push: PushConfig,
    /// Headers to send, one `Name: value` a line, 0600.
    pub headers_file: Option<PathBuf>,
}

/// A server that takes batches over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// `http` or `https`, with host and path.
    pub url: Uri,
    /// Who we are.
    pub auth: Auth,
    /// The only certificates that are trusted; the system's if none. PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take, its answer included.
    pub timeout: Duration,
    /// Bytes of records in one request, at most; a single larger record goes alone.
    pub batch_bytes: usize,
    /// How long a record waits for others to fill a batch, at most.
    pub batch_age: Duration,
}

/// Who we are to a server. Secrets stay in their files, 0600.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    None,
    /// Name and password (RFC 7617).
    Basic {
        /// The name.
        username: String,
        /// Holds the password.
        password_file: PathBuf,
    },
    /// A bearer token (RFC 6750).
    Bearer {
        /// Holds the token. Read again when the server refuses it.
        token_file: PathBuf,
    },
}

impl FlowLogConfig {
    /// The defaults, for a spool in `dir`.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        FlowLogConfig {
            dir,
            sync: Sync::Every(Duration::from_millis(250)),
            segment_size: 64 << 20,
            keep_size: 10 << 30,
            keep_age: Duration::from_secs(90 * 86_400),
            privacy: Privacy::default(),
            stdout: false,
            file: None,
            loki: None,
            otlp: None,
        }
    }
}

impl FileConfig {
    /// The defaults, for a file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        FileConfig {
            path,
            max_size: 64 << 20,
            max_age: Duration::from_secs(86_400),
            max_files: 30,
        }
    }
}

impl PushConfig {
    /// The defaults, for a server at `url`.
    #[must_use]
    pub fn at(url: Uri) -> Self {
        PushConfig {
            url,
            auth: Auth::None,
            ca_file: None,
            timeout: Duration::from_secs(10),
            batch_bytes: 1 << 20,
            batch_age: Duration::from_secs(1),
        }
    }
}
