//! The profile file: read, proved, and refused when others could read the key in it.

use crate::private_file;
use postern_proto::profile::{Profile, ProfileProblem};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The largest profile that is read, in bytes: ten thousand include entries fit.
const MAX_PROFILE: u64 = 1024 * 1024;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It cannot be read.
    #[error("{}: {source}{}", path.display(), hint(source))]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the file system answered.
        source: io::Error,
    },
    /// Others may read the private key.
    #[error(
        "{}: others can read it (mode {mode:04o}) and it holds a private key: `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is far too long.
    #[error("{}: longer than {MAX_PROFILE} bytes: not a profile", .0.display())]
    TooLong(PathBuf),
    /// It is not the YAML of a profile.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// What is wrong, with line and column. Never a line of the file: it may hold the key.
        message: String,
    },
    /// It is one, and some of it makes no sense.
    #[error("{}: {}", path.display(), list(problems))]
    Wrong {
        /// Its path.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<ProfileProblem>,
    },
}

/// Reads and checks a profile.
///
/// # Errors
/// [`ProfileError`]; everything that is wrong with the contents at once.
pub fn load(path: &Path) -> Result<Profile, ProfileError> {
    let unreadable = |source| ProfileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mode = metadata.mode() & 0o7777;
    // A pipe (`postern up /dev/stdin`) has no readers but us.
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(ProfileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(MAX_PROFILE + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(ProfileError::TooLong(path.to_owned()));
    }
    parse(path, &text)
}

/// The profile as a file.
///
/// # Errors
/// It cannot be written as YAML: a fault of this program.
pub fn text(profile: &Profile) -> io::Result<String> {
    let body = serde_saphyr::to_string(profile).map_err(io::Error::other)?;
    Ok(format!(
        "# Postern profile of one device. It holds the private key: keep it 0600.\n\
         # `postern` writes it anew when the gateway changes something.\n{body}"
    ))
}

/// Writes a profile, 0600 and atomically.
///
/// # Errors
/// What the file system answered.
pub fn save(path: &Path, profile: &Profile) -> io::Result<()> {
    private_file::write(path, &text(profile)?)
}

fn parse(path: &Path, text: &str) -> Result<Profile, ProfileError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let profile: Profile = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        ProfileError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        }
    })?;
    let problems = profile.check();
    if problems.is_empty() {
        Ok(profile)
    } else {
        Err(ProfileError::Wrong {
            path: path.to_owned(),
            problems,
        })
    }
}

fn hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound {
        "; `postern join INVITATION` makes a profile"
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        "; run as its owner or as root"
    } else {
        ""
    }
}

fn list(problems: &[ProfileProblem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => many
            .iter()
            .fold(format!("{} problems", many.len()), |mut text, problem| {
                let _ = write!(text, "\n  {problem}");
                text
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const KEY: &str = "QAUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBUU=";

    fn yaml(include: &str) -> String {
        format!(
            "version: 1\nname: ana-laptop\nprivate_key: {KEY}\naddresses: [100.96.0.2]\nmtu: 1420\n\
             gateway:\n  public_key: {KEY}\n  endpoints: [\"gw.example.com:51820\"]\n  tunnel_addresses: [100.96.0.1]\n\
             include: [{include}]\n"
        )
    }

    fn refusal(text: &str) -> String {
        parse(Path::new("ana.yaml"), text)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn a_good_profile_is_read_from_a_private_file_only() {
        let path = std::env::temp_dir().join(format!("postern-profile-{}", std::process::id()));
        std::fs::write(&path, yaml("192.0.2.10/32")).expect("written");
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("owner")
        };
        for exposed in [0o644, 0o640, 0o604, 0o660] {
            mode(exposed);
            let error = load(&path).expect_err("exposed").to_string();
            assert!(
                error.contains("chmod 600") && !error.contains(KEY),
                "{error}"
            );
        }
        mode(0o600);
        let profile = load(&path).expect("a profile");
        assert_eq!(profile.include.len(), 1);
        std::fs::remove_file(&path).expect("removed");
        let error = load(&path).expect_err("gone").to_string();
        assert!(error.contains("postern join"), "{error}");
    }

    #[test]
    fn what_is_saved_is_read_again_whole() {
        let path = std::env::temp_dir().join(format!("postern-saved-{}", std::process::id()));
        let mut profile = parse(&path, &yaml("192.0.2.10/32")).expect("a profile");
        profile.preshared_key = Some(postern_proto::keys::PresharedKey([7; 32]));
        profile.next_private_key = profile.private_key.clone();
        profile.key_since = Some(1_800_000_000);
        profile.include.clear();
        save(&path, &profile).expect("saved");
        let again = load(&path).expect("private, and a profile");
        std::fs::remove_file(&path).expect("removed");
        let json = |profile: &Profile| serde_json::to_string(profile).expect("serialises");
        assert_eq!(json(&again), json(&profile));
    }

    #[test]
    fn an_error_has_its_place_and_never_the_key() {
        let good = yaml("192.0.2.10/32");
        for (broken, place) in [
            (good.replace("mtu:", "mut:"), "line 5"),
            (
                good.replace(
                    &format!("private_key: {KEY}"),
                    &format!("private_key: {}", &KEY[..40]),
                ),
                "line 3",
            ),
            (good.replace("51820", "0"), "line 8"),
            (good.replace("192.0.2.10/32", "192.0.2.300/32"), "line 10"),
            (good.replace("mtu: 1420", "mtu: 1420\nmtu: 1500"), "line 6"),
        ] {
            let error = refusal(&broken);
            assert!(error.contains(place), "{place}: {error}");
            assert!(!error.contains(&KEY[..40]), "{error}");
        }
    }

    #[test]
    fn everything_that_makes_no_sense_is_said_at_once() {
        let error = refusal(&yaml("0.0.0.0/0, 10.0.0.1/8").replace("mtu: 1420", "mtu: 100"));
        for part in [
            "3 problems",
            "mtu:",
            "include[0]",
            "include[1]",
            "10.0.0.0/8",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
