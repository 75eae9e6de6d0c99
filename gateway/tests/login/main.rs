//! Logins against real servers: a certified OpenID provider (oidc-provider, in Node.js) and a mail
//! server (aiosmtpd, in Python). `scripts/test login` installs them and says where they are:
//!
//! | variable | what |
//! |---|---|
//! | `POSTERN_OIDC_PROVIDER` | the module `oidc-provider`, a path |
//! | `POSTERN_PYTHON` | a Python that has `aiosmtpd` |
#![allow(clippy::expect_used, missing_docs)]

mod email;
mod oidc;
mod server;

use postern_gateway::audit::Audit;
use postern_gateway::config::Config;
use postern_gateway::live_config::LiveConfig;
use postern_gateway::login::{Logins, Who};
use postern_io::clock::Clock;
use postern_proto::device_api::LoginFinish;
use postern_proto::now::Wall;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

fn logins(login: &str) -> Logins {
    let text = format!("pool_v6: fd6a:3c1e:9d20:1::/64\nname: gw-1\nlogin:\n{login}");
    let config = Config::parse(&text, Path::new("/nowhere/gateway.yaml"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    Logins::new(LiveConfig::new(config), Audit::default())
}

fn by(device: &str) -> Who<'_> {
    Who {
        device,
        user: None,
        from: None,
    }
}

/// The servers have no other clock than this machine's.
fn now() -> Wall {
    Clock::now().wall
}

fn after(now: Wall, seconds: u64) -> Wall {
    Wall(now.0 + seconds * 1_000_000_000)
}

fn finish(id: &str, code: Option<&str>) -> LoginFinish {
    LoginFinish {
        id: id.to_owned(),
        code: code.map(str::to_owned),
        state: None,
        iss: None,
    }
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "postern-login-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }

    /// A file that only we can read.
    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        postern_gateway::key_file::create(&path, text).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
