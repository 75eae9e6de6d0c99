//! Whose profiles they are: the user who calls, or the one who called sudo(8).

use rustix::process::{Gid, Uid};
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A user, and where that user's profiles are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// `$XDG_CONFIG_HOME/postern`, or `.config/postern` in the user's home. `None` for a user
    /// without a home.
    pub folder: Option<PathBuf>,
}

impl Owner {
    /// The user for whom this program runs.
    #[must_use]
    pub fn invoking() -> Owner {
        let number = |name| env::var(name).ok()?.parse::<u32>().ok();
        let sudo =
            number("SUDO_UID").filter(|uid| *uid != 0 && rustix::process::geteuid().is_root());
        if let Some(uid) = sudo {
            let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            return Owner {
                uid,
                gid: number("SUDO_GID").unwrap_or(uid),
                folder: home_of(uid, &users).map(|home| home.join(".config/postern")),
            };
        }
        Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            folder: folder(env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME")),
        }
    }

    /// Whether this process runs as another user, on this one's behalf.
    #[must_use]
    pub fn is_another(&self) -> bool {
        self.uid != rustix::process::geteuid().as_raw()
    }

    /// Makes this thread, and those that it starts later, the user's own, for good: what follows
    /// needs no privilege and writes into the user's folders. Nothing happens where it is so
    /// already.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn become_owner(&self) -> io::Result<()> {
        if !self.is_another() {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    /// The path of the profile that is called `name`.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{name}.yaml")))
    }

    /// What `postern up` was given: a path, or the name of a profile in the user's folder. A name
    /// has no slash, and a file of that name in the working directory comes first.
    #[must_use]
    pub fn find_profile(&self, given: &Path) -> PathBuf {
        let name = given.to_str().filter(|name| !name.contains('/'));
        match name.and_then(|name| self.profile(name)) {
            Some(path) if !given.exists() && path.exists() => path,
            Some(_) | None => given.to_owned(),
        }
    }
}

fn folder(config: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // A path that is not absolute is to be ignored (XDG Base Directory Specification).
    let absolute =
        |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute(config).or_else(|| Some(absolute(home)?.join(".config")));
    Some(config?.join("postern"))
}

/// Out of passwd(5).
fn home_of(uid: u32, users: &str) -> Option<PathBuf> {
    users
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse() == Ok(uid))
                .then(|| PathBuf::from(fields.get(5).copied().unwrap_or_default()))
        })
        .filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_follows_xdg_and_the_home_of_whoever_called_sudo() {
        let os = |text: &str| Some(OsString::from(text));
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder(os("/c"), os("/h")), path("/c/postern"));
        assert_eq!(folder(os("c"), os("/h")), path("/h/.config/postern"));
        assert_eq!(folder(None, None), None);

        let users = "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000:Ana,,,:/home/ana:/bin/zsh\n";
        assert_eq!(home_of(1000, users), path("/home/ana"));
        assert_eq!(home_of(1001, users), None);
        assert_eq!(home_of(7, "a:x:7:7::nohome:/bin/sh\n"), None);
    }

    #[test]
    fn up_takes_a_name_or_a_path() {
        let folder = env::temp_dir().join(format!("postern-owner-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("ana.yaml"), "").expect("written");
        let owner = Owner {
            uid: 0,
            gid: 0,
            folder: Some(folder.clone()),
        };
        let find = |given: &str| owner.find_profile(Path::new(given));
        assert_eq!(find("ana"), folder.join("ana.yaml"));
        assert_eq!(find("./ana"), Path::new("./ana"));
        assert_eq!(find("ben"), Path::new("ben"));
        assert_eq!(find("/dev/null"), Path::new("/dev/null"));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
