//! `flows export`.

use super::select::{Select, Source, Until};
use super::{Failure, Output, output};
use clap::Args;
use postern_io::clock::Clock;
use postern_spool::proof;
use std::path::PathBuf;

/// Copies the records of a time, all of them, into a new folder that `flows verify` can check on
/// any machine.
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// From this time: how long ago (15m, 2h, 7d), or a time in UTC (2026-11-22, 10:30,
    /// 2026-11-22T10:30:00Z).
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Up to this time. [default: now]
    #[arg(
        long,
        value_name = "TIME",
        default_value = "now",
        hide_default_value = true
    )]
    until: String,
    /// A folder that does not exist yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Export {
    pub(super) fn obey(self) -> Result<u8, Failure> {
        let now = Clock::now().wall.millis();
        let select = Select {
            since: Some(self.since),
            ..Select::default()
        };
        let filter = select.filter(&Until {
            until: Some(self.until),
        })?;
        let (since, until) = (filter.since.unwrap_or(0), filter.until.unwrap_or(now));
        let folder = self.source.folder()?;
        let proof =
            proof::export(&folder, since, until, &self.out, now).map_err(Failure::failed)?;
        match self.output {
            Output::Json => output::json(&proof)?,
            Output::Table => output::facts(&[
                (
                    "exported",
                    format!(
                        "lines {} to {} into {}",
                        proof.first_n,
                        proof.last_n,
                        self.out.display()
                    ),
                ),
                ("from", proof.since),
                ("to", proof.until),
                ("head", format!("{}:{}", proof.head.n, proof.head.hash)),
                ("sha256", proof.sha256.to_string()),
            ])?,
        }
        Ok(0)
    }
}
