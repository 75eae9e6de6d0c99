//! What Postern changes on the host, and puts back: routes, sysctls, one nftables table. And what
//! it asks it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`routes`] | the kernel's routes and addresses, the path to an endpoint, route changes |
//! | [`sysctl`] | `/proc/sys`, read and written |
//! | [`conntrack`] | as whom the kernel sends a flow that it translates |
//! | [`nft`] | the table `inet postern`, and other firewalls that drop what we forward |
//! | [`gateway`] | a gateway's set-up as one value that is torn down or left for a successor |
//! | [`mod@check`] | what would go wrong, said before it does |
//! | [`privileges`] | capabilities: asked for, then dropped |
//! | [`record`] | small files written whole and synced: what to put back after a crash |
//!
//! Linux only. Elsewhere the same names exist and answer [`HostError::NotSupported`].

use std::io;
use std::path::PathBuf;

pub mod record;

#[cfg(target_os = "linux")]
pub mod check;
#[cfg(target_os = "linux")]
pub mod conntrack;
#[cfg(target_os = "linux")]
pub mod gateway;
#[cfg(target_os = "linux")]
pub mod nft;
#[cfg(target_os = "linux")]
pub mod privileges;
#[cfg(target_os = "linux")]
pub mod routes;
#[cfg(target_os = "linux")]
pub mod sysctl;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{check, conntrack, gateway, privileges, routes};

pub use check::{Finding, Severity, check};
pub use conntrack::Conntrack;
pub use gateway::{Egress, GatewayHost, GatewayHostConfig};
pub use privileges::{drop_privileges, has_net_admin};

/// What could not be done to the host, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The process may not change the network.
    #[error(
        "{what}: not permitted; it needs CAP_NET_ADMIN: run as root, or `setcap cap_net_admin+ep` the binary"
    )]
    NotPermitted {
        /// What was being done.
        what: String,
    },
    /// A sysctl could not be read or written.
    #[error("sysctl {key}: {source}; {remedy}")]
    Sysctl {
        /// Its name, with slashes: `net/ipv4/ip_forward`.
        key: String,
        /// What the kernel answered.
        source: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The `nft` program is not installed.
    #[error("cannot find the program `nft`: install it (Debian, Ubuntu: `apt install nftables`)")]
    NftMissing,
    /// `nft` refused.
    #[error("nft could not {what}: {message}")]
    Nft {
        /// What it was asked to do.
        what: &'static str,
        /// What it said, and what to do.
        message: String,
    },
    /// The kernel refused something about routes or capabilities.
    #[error("{what}: {source}")]
    Kernel {
        /// What was being done.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The file that says what to put back cannot be used.
    #[error("state file {}: {source}; it records what to put back on this host, so nothing was changed", path.display())]
    State {
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Not a name that the kernel and nftables both take.
    #[error("interface name `{0}`: use 1 to 15 letters, digits, `-`, `_` or `.`")]
    InterfaceName(String),
    /// Not on this operating system yet.
    #[error("{0} is not supported on this operating system yet; Linux is")]
    NotSupported(&'static str),
}

/// Whether the kernel and nftables take this as an interface name (IFNAMSIZ is 16 with its end).
#[cfg(any(target_os = "linux", test))]
pub(crate) fn interface_name(name: &str) -> Result<&str, HostError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=15).contains(&name.len()) && name.chars().all(good) && name != "." && name != ".." {
        Ok(name)
    } else {
        Err(HostError::InterfaceName(name.to_owned()))
    }
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod testing {
    //! A network namespace for one test.

    /// Runs `test` on a thread of its own in a new network namespace. Says so and skips it where
    /// that is not permitted.
    pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            // SAFETY: CLONE_NEWNET changes this new thread's network namespace only; no other
            // thread's view of memory, files or credentials.
            let made =
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
            match made {
                Ok(()) => test(),
                Err(error) => eprintln!("skipped: no network namespace of its own ({error})"),
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// Runs `ip` in the namespace of the test, and returns what it printed.
    pub(crate) fn ip(line: &str) -> String {
        let output = std::process::Command::new("ip")
            .args(line.split(' '))
            .output()
            .expect("iproute2");
        assert!(output.status.success(), "ip {line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_cannot_carry_nft_syntax() {
        for good in ["postern0", "wg-a", "eth0.100", "a"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "sixteen-letters-", "a\" drop", "a/b", "a b", "ü"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }
}
