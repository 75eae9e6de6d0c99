//! `postern-gateway init DIR`: a key, a commented gateway.yaml and a first policy, and what to do
//! next. Overwrites nothing.

use crate::config::{Config, ConfigError};
use crate::key_file;
use postern_proto::profile::HostPort;
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The first policy: kubectl to one API server, SSH to four nodes, everything else denied.
pub const FIRST_POLICY: &str = include_str!("../../policy-examples/first-policy.yaml");

const CONFIG: &str = "gateway.yaml";
const KEY: &str = "gateway.key";
const POLICY: &str = "policy.yaml";
const DATA: &str = "data";

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something is there already.
    #[error("{} exists already and is not overwritten; help: choose another folder, or remove it first", .0.display())]
    Exists(PathBuf),
    /// Others could read what will stand there.
    #[error("{} has mode {mode:04o} and lets others in; help: chmod 700 {}", path.display(), path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// What was written does not read back: a fault of this program.
    #[error("the new configuration does not read back: {0}")]
    Config(#[from] ConfigError),
}

/// Makes the folder and everything in it; returns the configuration that is now there.
///
/// # Errors
/// See [`InitError`]. Nothing that existed is touched.
pub fn init(folder: &Path, endpoint: Option<&HostPort>) -> Result<Config, InitError> {
    let names = [CONFIG, KEY, POLICY, DATA];
    if let Some(taken) = names
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.exists())
    {
        return Err(InitError::Exists(taken));
    }
    make_folder(folder)?;
    make_folder(&folder.join(DATA))?;
    let random = at(folder, key_file::random::<7>())?;
    let key = at(folder, key_file::new_private_key())?;
    let text = gateway_yaml(&host_name(), endpoint, random_pool(random));
    write(&folder.join(KEY), &format!("{}\n", key.expose_base64()))?;
    write(&folder.join(POLICY), FIRST_POLICY)?;
    write(&folder.join(CONFIG), &text)?;
    Ok(Config::load(&folder.join(CONFIG))?)
}

/// What the operator does next.
#[must_use]
pub fn next_steps(config: &Config) -> String {
    let file = config.path.display();
    let mut steps = Vec::new();
    if config.endpoints.is_empty() {
        steps.push(format!(
            "write where devices find this gateway: `endpoint` in {file}"
        ));
    }
    steps.push(format!(
        "write who may reach what: {}",
        config.policy.display()
    ));
    steps.push(format!("postern-gateway check --config {file}"));
    steps.push(format!(
        "postern-gateway device add NAME --user USER --group GROUP --config {file}"
    ));
    steps.push(format!("postern-gateway run --config {file}"));
    let numbered: Vec<_> = (1..)
        .zip(steps)
        .map(|(number, step)| format!("  {number}. {step}"))
        .collect();
    format!("Next:\n{}", numbered.join("\n"))
}

fn make_folder(path: &Path) -> Result<(), InitError> {
    if !path.exists() {
        return at(
            path,
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path),
        );
    }
    let mode = at(path, std::fs::metadata(path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(InitError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), InitError> {
    match key_file::create(path, text) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(InitError::Exists(path.to_owned()))
        }
        result => at(path, result),
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, InitError> {
    result.map_err(|reason| InitError::Io {
        path: path.to_owned(),
        reason,
    })
}

/// A random /64 of fd00::/8 (RFC 4193, section 3.2.1), so that two gateways hardly ever clash.
fn random_pool(random: [u8; 7]) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&random);
    Ipv6Addr::from(bytes)
}

/// The host's name as far as records can carry it.
fn host_name() -> String {
    let name = rustix::system::uname();
    let name: String = name
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c))
        .take(63)
        .collect();
    if name.is_empty() {
        "postern".to_owned()
    } else {
        name
    }
}

fn gateway_yaml(name: &str, endpoint: Option<&HostPort>, pool: Ipv6Addr) -> String {
    let port = endpoint.map_or(51_820, |endpoint| endpoint.port);
    let endpoint = endpoint.map_or_else(
        || "# endpoint: vpn.example.com:51820".to_owned(),
        |endpoint| format!("endpoint: \"{endpoint}\""),
    );
    format!(
        r#"# Postern gateway. Check it with `postern-gateway check`.
# Relative paths start at the folder of this file. What is commented out shows the default.

# Names this gateway in records.
name: "{name}"

# Where devices find this gateway, in the order in which they try: HOST:PORT or a list.
# It goes into profiles only. (live)
{endpoint}

# UDP port, IPv4 and IPv6. The only thing that the Internet sees. (restart)
listen_port: {port}

# Addresses inside the tunnel. The same host number gives a device both its addresses. (restart)
pool_v4: 100.96.0.0/16
pool_v6: {pool}/64

# What targets see: `masquerade`, the gateway's own address; `routed`, the device's tunnel address
# (targets then need a route to the pools by way of this gateway). (restart)
# egress: masquerade

# Who may reach what. The file is watched: a good change is in force within a second, a bad one is
# refused and the old policy stays.
# policy: policy.yaml

# What devices send into the tunnel. Default: every address that the policy names. Never a default
# route. (live, for profiles printed from then on)
# include: [192.0.2.10, 192.0.2.0/24]

# Keeps the path open through NAT while nothing is sent, so that a laptop can be told at once that a
# flow was cut: a pause, or `off`. (live, as above)
# keepalive: 25s

# Everything below needs a restart.

# interface: postern0
# mtu: 1420
# offload: auto                 # or off, or some: {{ tun-write: off, udp: off }}
# workers: auto                 # threads that carry packets; or 1, 2, 4, 8

# key_file: gateway.key         # mode 0600
# data_dir: data                # store, flow log, admin socket: one folder to back up
# admin_socket: data/admin.sock # mode 0600

# Prometheus metrics, /healthz and /readyz: ADDRESS:PORT, or `off`. There is no password on it.
# metrics: 127.0.0.1:9478

# One JSON object for every flow opened, closed or denied. docs/exporters.md has every option.
# flow_log:
#   dir: data/flows             # the log itself
#   sync: 250ms                 # longest that a record waits for the disk; or `always`
#   segment_size: 64MiB
#   keep_size: 10GiB            # then the oldest goes
#   keep_age: 90d               # older ones go once every exporter has them
#   privacy: {{ user: keep, device: keep, outer_address: keep, hints: keep }} # or hash, drop
#   stdout: false
#   file: none                  # a rotated copy for a log agent; with max_size: 64MiB,
#                               # max_age: 24h, max_files: 30
#                               # and loki, otlp: copies over HTTP

# When records cannot be written: `deny-new` refuses new flows; `allow` counts what is lost.
# on_log_failure: deny-new

# limits:
#   flows: 65536
#   flows_per_device: 4096
#   half_open_per_device: 512

# The program's own log, on stderr.
# log:
#   level: info                 # error, warn, info, debug, trace
#   json: false
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use postern_engine::policy::Policy;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn what_init_makes_is_good_and_closed() {
        let scratch = Scratch::new();
        let folder = scratch.path("gw");
        let endpoint = "vpn.example.com:443".parse().expect("host and port");
        let config = init(&folder, Some(&endpoint)).expect("made");
        assert_eq!(config.endpoints, [endpoint]);
        assert_eq!(config.listen_port, 443, "it listens where devices are sent");
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&config.data_dir), 0o700);
        assert_eq!(mode(&config.key_file), 0o600);
        key_file::read(&config.key_file).expect("a key");
        let policy = std::fs::read_to_string(&config.policy).expect("a policy");
        let policy = Policy::parse(&policy).expect("a good policy");
        let tests = policy.run_tests();
        assert!(!tests.is_empty() && tests.iter().all(|test| test.passed));
    }

    #[test]
    fn every_comment_shows_the_true_default() {
        let scratch = Scratch::new();
        let config = init(&scratch.path("gw"), None).expect("made");
        let text = std::fs::read_to_string(&config.path).expect("there");
        // Uncomment every line that is a setting: `# word:` and what is indented below it.
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if is_setting(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let shown = Config::parse(&all, &config.path).expect("still good");
        let changes = config.changes(&shown);
        assert_eq!(
            changes.live,
            ["endpoint", "include"],
            "examples, not defaults"
        );
        assert_eq!(changes.restart, [""; 0]);
    }

    fn is_setting(line: &str) -> bool {
        let word = line.trim_start();
        let name: String = word
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        !name.is_empty() && word[name.len()..].starts_with(':')
    }

    #[test]
    fn two_gateways_have_their_own_keys_and_pools() {
        let scratch = Scratch::new();
        let one = init(&scratch.path("one"), None).expect("made");
        let two = init(&scratch.path("two"), None).expect("made");
        assert_ne!(one.pool.v6, two.pool.v6);
        let key = |config: &Config| key_file::read(&config.key_file).expect("a key").public();
        assert_ne!(key(&one), key(&two));
        assert!(next_steps(&one).contains("1. write where devices find this gateway"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let scratch = Scratch::new();
        let folder = scratch.path("gw");
        let config = init(&folder, None).expect("made");
        let before = std::fs::read(&config.key_file).expect("a key");
        let again = init(&folder, None).expect_err("exists");
        assert!(matches!(again, InitError::Exists(_)), "{again}");
        assert_eq!(std::fs::read(&config.key_file).expect("a key"), before);

        let part = scratch.path("part");
        std::fs::create_dir(&part).expect("made");
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o700)).expect("chmod");
        std::fs::write(part.join(POLICY), "mine").expect("written");
        assert!(matches!(init(&part, None), Err(InitError::Exists(_))));
        assert!(!part.join(KEY).exists(), "nothing half made");
    }

    #[test]
    fn a_folder_open_to_others_is_refused() {
        let scratch = Scratch::new();
        let folder = scratch.path("open");
        std::fs::create_dir(&folder).expect("made");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let error = init(&folder, None).expect_err("open");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}
