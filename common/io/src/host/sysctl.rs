//! `/proc/sys`, by names with slashes (`net/ipv4/conf/eth0.100/forwarding`): an interface name may
//! hold dots, never a slash.

use super::HostError;
use rustix::io::Errno;
use std::path::PathBuf;
use std::{fs, io};

/// The value, without its line end.
///
/// # Errors
/// The name does not exist (IPv6 is compiled out, say) or cannot be read.
pub fn get(key: &str) -> Result<String, HostError> {
    fs::read_to_string(path(key))
        .map(|value| value.trim_end().to_owned())
        .map_err(|source| failed(key, source))
}

/// Sets the value. Does not write where it is set already, so that a read-only `/proc/sys` that
/// somebody prepared is good enough.
///
/// # Errors
/// The name does not exist or cannot be written; the remedy is in the text.
pub fn set(key: &str, value: &str) -> Result<(), HostError> {
    if get(key)? == value {
        return Ok(());
    }
    fs::write(path(key), value).map_err(|source| failed(key, source))
}

/// The entries of a folder of sysctls, sorted: the interfaces of `net/ipv6/conf`.
#[must_use]
pub fn entries(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path(folder))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

fn failed(key: &str, source: io::Error) -> HostError {
    let remedy = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => format!(
            "/proc/sys is read-only, as in a container: set {} from outside (docker run --sysctl)",
            key.replace('/', ".")
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            "it needs CAP_NET_ADMIN: run as root, or `setcap cap_net_admin+ep` the binary"
                .to_owned()
        }
        Some(Errno::NOENT) if key.starts_with("net/ipv6") => {
            "this kernel has no IPv6: remove the IPv6 pool or enable IPv6".to_owned()
        }
        _ => "check that /proc is mounted".to_owned(),
    };
    HostError::Sysctl {
        key: key.to_owned(),
        source,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::in_namespace;

    #[test]
    fn a_value_is_set_and_read_back() {
        in_namespace(|| {
            set("net/ipv4/ip_forward", "1").expect("root in its own namespace may");
            assert_eq!(get("net/ipv4/ip_forward").expect("readable"), "1");
            set("net/ipv4/ip_forward", "0").expect("and back");
            assert_eq!(get("net/ipv4/ip_forward").expect("readable"), "0");
        });
    }

    #[test]
    fn a_missing_name_says_which() {
        let error = get("net/ipv4/no_such_thing")
            .expect_err("does not exist")
            .to_string();
        assert!(error.contains("net/ipv4/no_such_thing"), "{error}");
    }
}
