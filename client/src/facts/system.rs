//! The operating system, the kernel, the host's name and its serial number.

use super::{fact, text_of};
use std::path::Path;

/// `ID` and `VERSION_ID` of os-release(5).
pub(super) fn os(release: &str) -> (Option<String>, Option<String>) {
    let value = |key: &str| {
        release
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| fact(value.trim_matches(['"', '\''])))
    };
    (value("ID"), value("VERSION_ID"))
}

/// The kernel's release, and the host's name.
pub(super) fn kernel_and_host() -> (Option<String>, Option<String>) {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_str().ok().and_then(fact);
    (text(name.release()), text(name.nodename()))
}

/// The machine's serial number, as the firmware says it (DMI); for root only on most systems.
pub(super) fn serial(path: &Path) -> Option<String> {
    fact(&text_of(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let of = |text| {
            let (os, version) = os(text);
            (os.unwrap_or_default(), version.unwrap_or_default())
        };
        assert_eq!(of(debian), ("debian".to_owned(), "12".to_owned()));
        let other = "ID='opensuse-leap'\nVERSION_ID='15.6'\n";
        assert_eq!(of(other), ("opensuse-leap".to_owned(), "15.6".to_owned()));
        assert_eq!(
            os("ID=arch\n# VERSION_ID=1\n"),
            (Some("arch".to_owned()), None)
        );
        assert_eq!(os("nonsense"), (None, None));
    }

    #[test]
    fn a_serial_number_that_is_empty_or_hidden_is_absent() {
        assert_eq!(serial(Path::new("/nonexistent")), None);
        assert_eq!(serial(Path::new("/dev/null")), None);
    }
}
