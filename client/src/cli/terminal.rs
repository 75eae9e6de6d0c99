//! The person at the terminal, and the browser beside it.

use super::say;
use crate::login::Person;
use crate::owner::Owner;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Stdin, stderr and a browser.
pub(super) struct Terminal {
    /// Whether to open a browser.
    pub(super) browser: bool,
}

/// Somebody can be asked something.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal()
}

impl Person for Terminal {
    fn say(&mut self, words: &str) {
        say(words);
    }

    fn open(&mut self, url: &str) {
        let display = ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        if !self.browser || !display {
            return;
        }
        let owner = Owner::invoking();
        let mut command = Command::new("xdg-open");
        command
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Root's browser is nobody's.
        if owner.is_another() {
            command.uid(owner.uid).gid(owner.gid);
        }
        // Without it the address is on the screen.
        if let Ok(mut child) = command.spawn() {
            let _ = std::thread::Builder::new().spawn(move || child.wait());
        }
    }

    fn ask(&mut self, prompt: &str) -> Option<String> {
        let _ = write!(io::stderr(), "{prompt}");
        let _ = io::stderr().flush();
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).ok()?;
        (read > 0).then_some(line)
    }
}
