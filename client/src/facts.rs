//! What this device reports about itself. Each source is a function of a text or a path; one that
//! cannot be read gives an absent fact, never a guess: an absent fact fails the checks that need
//! it, and the user sees which.

use postern_proto::facts::{Facts, Watched};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod disk;
mod files;
mod firewall;
mod processes;
mod system;

/// A program that is asked for a fact answers within this time, or the fact is absent.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most that is read of its answer, in bytes. Longer ones are refused: half of a list of rules
/// is no list of rules.
const MAX_ANSWER: u64 = 16 << 20;
/// The longest text that is reported, in bytes.
const MAX_TEXT: usize = 256;

/// Looks at everything now. It reads files and runs programs: not on a thread that has packets
/// to carry.
#[must_use]
pub fn gather(watched: &Watched) -> Facts {
    let mut facts = who_am_i();
    facts.serial = system::serial(Path::new("/sys/class/dmi/id/product_serial"));
    facts.disk_encryption = disk::encrypted();
    facts.firewall = firewall::on();
    facts.processes = processes::running(Path::new("/proc"), &watched.processes);
    facts.files = files::hashes(&watched.files);
    facts
}

/// The facts that cost nothing, for the request to join: what an admin sees who is to approve.
#[must_use]
pub fn who_am_i() -> Facts {
    let release = ["/etc/os-release", "/usr/lib/os-release"];
    let release = release.iter().find_map(|path| text_of(Path::new(path)));
    let (os, os_version) = system::os(&release.unwrap_or_default());
    let (kernel, hostname) = system::kernel_and_host();
    Facts {
        os,
        os_version,
        kernel,
        hostname,
        client_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..Facts::default()
    }
}

/// The start of a small file.
fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(64 << 10).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A text that may be reported: something in it, and not too long.
fn fact(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.to_owned())
}

/// What a program of the system writes, if it succeeds in time. It runs with a path of our own
/// and without the user's environment, for the laptop's owner is not who a report must convince.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let output = child.stdout.take()?;
    let reader = std::thread::spawn(move || -> io::Result<String> {
        let mut text = String::new();
        let length = output.take(MAX_ANSWER + 1).read_to_string(&mut text)?;
        if length as u64 > MAX_ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    });
    let end = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                break false;
            }
        }
    };
    let text = reader.join().ok()?.ok()?;
    ended.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_fails_or_hangs_gives_no_fact() {
        assert_eq!(ask("postern-no-such-program", &[]), None);
        assert_eq!(ask("false", &[]), None);
        assert_eq!(ask("sleep", &["60"]), None);
        assert_eq!(ask("echo", &["on"]).as_deref(), Some("on\n"));
    }

    #[test]
    fn this_host_has_a_kernel_and_a_client() {
        let facts = gather(&Watched::default());
        assert!(facts.kernel.is_some() && facts.client_version.is_some());
        assert!(facts.processes.is_empty() && facts.files.is_empty());
    }
}
