//! The policy file: read, checked, replaced as a whole.

use postern_engine::policy::{Policy, PolicyHash};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a policy file cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:\n{}", path.display(), problems.join("\n\n"))]
pub struct BadPolicy {
    /// The file.
    pub path: PathBuf,
    /// Everything wrong with it, each with its place and what to write instead.
    pub problems: Vec<String>,
}

/// Reads, compiles and tests a policy file.
///
/// # Errors
/// It cannot be read, has faults, or one of its tests fails; all of that is listed.
pub fn load(path: &Path) -> Result<Policy, BadPolicy> {
    load_with_text(path).map(|(policy, _)| policy)
}

/// The same, with the text that it was compiled from.
///
/// # Errors
/// As those of [`load`].
pub fn load_with_text(path: &Path) -> Result<(Policy, String), BadPolicy> {
    let bad = |problems| BadPolicy {
        path: path.to_owned(),
        problems,
    };
    let text = read(path).map_err(|why| bad(vec![why]))?;
    let policy = check(&text, false).map_err(bad)?;
    Ok((policy, text))
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

/// Compiles and tests a policy.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(text: &str, require_tests: bool) -> Result<Policy, Vec<String>> {
    let policy = Policy::parse(text).map_err(|errors| {
        let each = errors.0.iter().map(ToString::to_string);
        each.collect::<Vec<_>>()
    })?;
    let outcomes = policy.run_tests();
    if require_tests && outcomes.is_empty() {
        return Err(vec![
            "it has no `tests:`, and gateway.yaml says `policy_change: { require_tests: true }`\n  \
             help: write at least one test for what must stay possible"
                .to_owned(),
        ]);
    }
    let failed: Vec<_> = outcomes
        .into_iter()
        .filter(|test| !test.passed)
        .map(|test| {
            let (line, what) = (test.line, test.described);
            format!(
                "line {line}: test failed: {what}: expected {}, got {}",
                test.expected, test.got
            )
        })
        .collect();
    if failed.is_empty() {
        Ok(policy)
    } else {
        Err(failed)
    }
}

/// What a policy with this text is named by.
pub(super) fn hash(text: &str) -> String {
    PolicyHash::of(text).full()
}

/// Makes a file hold `text`: all of it or as before, also when the power fails. Mode and, where
/// that is allowed, owner stay. A link stays one.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let real = match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        other => other?,
    };
    let fresh = beside(&real, "new");
    // What a crash left half written.
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        if let Ok(before) = std::fs::metadata(&real) {
            // Only root can give a file away.
            let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
            file.set_permissions(PermissionsExt::from_mode(before.mode() & 0o7777))?;
        }
        file.sync_all()?;
        std::fs::rename(&fresh, &real)?;
        File::open(folder(&real))?.sync_all()
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

/// Edits that are kept; further ones take the place of the last.
const MAX_ASIDE: u32 = 100;

/// Keeps an edit that is about to be overwritten, as `policy.yaml.edited`, or `.edited.2` and so
/// on. None: it is kept already.
pub(super) fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let text = std::fs::read(path)?;
    let mut aside = beside(path, "edited");
    for number in 2..=MAX_ASIDE {
        match std::fs::read(&aside) {
            Ok(kept) if kept == text => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Ok(_) | Err(_) => aside = beside(path, &format!("edited.{number}")),
        }
    }
    std::fs::copy(path, &aside)?;
    Ok(Some(aside))
}

/// Why a file that cannot be written cannot, and what to do.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> String {
    let known = [
        (
            ErrorKind::ResourceBusy,
            "mount its folder into the container, not the file alone",
        ),
        (ErrorKind::ReadOnlyFilesystem, "mount it writable"),
        (
            ErrorKind::PermissionDenied,
            "let the gateway's user write its folder",
        ),
    ];
    let help = known.iter().find(|(kind, _)| *kind == error.kind());
    let help = help.map_or("mend that", |(_, help)| help);
    format!("{} cannot be written: {error}; {help}", path.display())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
