//! What does not work now: said to the user at once, to the log once, and kept for `status`.

use super::problem::{bad_request, login_refused};
use super::provider::{Provider, ProviderError};
use super::{Inner, lock};
use crate::device_api::DeviceProblem;
use postern_proto::device_api::ErrorCode;

impl Inner {
    /// What a provider said, in words for the user; and remembered for `status` if it is down.
    pub(super) fn told<T>(
        &self,
        provider: &Provider,
        result: Result<T, ProviderError>,
    ) -> Result<T, DeviceProblem> {
        let name = &provider.config.name;
        let what = format!("login by {name}");
        let error = match result {
            Ok(value) => {
                self.note(&what, None);
                return Ok(value);
            }
            Err(error) => error,
        };
        let problem = match &error {
            ProviderError::Down(problem) => {
                self.note(&what, Some(problem.clone()));
                DeviceProblem::new(
                    ErrorCode::Unavailable,
                    format!("{name} cannot be asked: {problem}"),
                    "try again in a minute; tell the admin if it stays so",
                )
            }
            ProviderError::NotConfigured(problem) => {
                self.note(&what, Some(problem.clone()));
                let error = format!("{name} is not configured");
                DeviceProblem::new(ErrorCode::Unavailable, error, "tell the admin")
            }
            ProviderError::CannotDo(problem) => {
                bad_request(&format!("{name}: {problem}"), "see `postern login --help`")
            }
            ProviderError::Refused(problem) => login_refused(
                &format!("{name}: {problem}"),
                "begin again, or ask the admin",
            ),
        };
        Err(problem)
    }

    /// Remembers what fails, and says so once.
    pub(super) fn note(&self, what: &str, problem: Option<String>) {
        let mut failing = lock(&self.failing);
        match problem {
            Some(problem) => {
                let before = failing.insert(what.to_owned(), problem.clone());
                if before.as_ref() != Some(&problem) {
                    tracing::warn!(what, problem, "cannot be used");
                }
            }
            None => {
                if failing.remove(what).is_some() {
                    tracing::info!(what, "works again");
                }
            }
        }
    }
}
