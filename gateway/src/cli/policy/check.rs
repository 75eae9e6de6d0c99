//! `policy check`.

use super::super::output;
use super::super::{Failure, Where};
use crate::config::Config;
use crate::policy_watch;
use crate::store::Store;
use std::path::PathBuf;

/// Faults and failed tests are errors; what may not be what somebody meant is a warning, and with
/// `strict` exit code 1.
pub(super) async fn check(
    file: Option<PathBuf>,
    strict: bool,
    place: &Where,
) -> Result<u8, Failure> {
    // A file alone is checked on any machine.
    let (path, config) = match file {
        Some(path) => (path, place.load().ok()),
        None => {
            let config = place.load()?;
            (config.policy.clone(), Some(config))
        }
    };
    let (policy, source) = policy_watch::load_with_text(&path)?;
    let warned = warn(source, config.as_ref()).await;
    let tests = policy.run_tests().len();
    output::say(format_args!(
        "{} is good: {} rules, {tests} tests passed, hash {}",
        path.display(),
        policy.len(),
        policy.hash()
    ))?;
    if tests == 0 {
        eprintln!("note: it has no `tests:`; with them a slip of the pen is refused");
    }
    Ok(u8::from(strict && warned))
}

/// Says on stderr what a good policy is warned of, by what is known here. Was there anything?
pub(super) async fn warn(source: String, config: Option<&Config>) -> bool {
    let store = match config {
        Some(config) => Store::open_to_read(&config.store_path(), config.pool)
            .await
            .ok(),
        None => None,
    };
    let warnings = policy_watch::lints(source.into(), config, store.as_ref()).await;
    for warning in &warnings {
        eprintln!("{warning}\n");
    }
    !warnings.is_empty()
}
