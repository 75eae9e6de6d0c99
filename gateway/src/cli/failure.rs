//! What goes to stderr and which exit code goes with it.

use crate::admin::client::ClientError;
use crate::config::ConfigError;
use crate::init::InitError;
use crate::key_file::KeyFileError;
use crate::policy_watch::BadPolicy;
use crate::problem::Problem;
use crate::store::StoreError;
use std::fmt::{self, Display};

#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// It did not work: exit code 1.
    pub(super) fn failed(text: impl Display) -> Self {
        Failure {
            code: 1,
            text: text.to_string(),
        }
    }

    /// Wrong usage, or a bad configuration: exit code 2.
    pub(super) fn usage(text: impl Display) -> Self {
        Failure {
            code: 2,
            text: text.to_string(),
        }
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }
}

/// Does the same to each. One that fails spares no other: at the end they fail together.
pub(super) async fn each(
    names: &[String],
    mut one: impl AsyncFnMut(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut failed: Option<Failure> = None;
    for name in names {
        if let Err(failure) = one(name).await {
            failed = Some(match failed {
                Some(before) => Failure {
                    text: format!("{before}\n{failure}"),
                    ..before
                },
                None => failure,
            });
        }
    }
    failed.map_or(Ok(0), Err)
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::usage(error)
    }
}

impl From<BadPolicy> for Failure {
    fn from(error: BadPolicy) -> Self {
        Failure::usage(error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Failure::usage(error)
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        Failure::failed(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::failed(error)
    }
}

impl From<Problem> for Failure {
    fn from(error: Problem) -> Self {
        Failure::failed(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::failed(error)
    }
}
