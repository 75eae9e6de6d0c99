//! `policy check|test|schema|explain|who-can|reach|report|plan|suggest|status|reload`.

mod change;
mod check;
mod explain;
mod plan;
mod reach;
mod report;
mod suggest;
mod then;
mod who_can;

use super::output::{self, Output};
use super::{Failure, Where};
use crate::api::{PolicyStatus, Reloaded};
use clap::Subcommand;
use postern_engine::policy::{Policy, schema};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say everything that is wrong with a policy file, its own tests included, and what may not be
    /// what somebody meant.
    Check {
        /// The policy; without it, the one that gateway.yaml names.
        file: Option<PathBuf>,
        /// Exit code 1 where there are warnings.
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Print the shape of a policy file as JSON Schema, for editors.
    Schema,
    /// Run the tests of a policy file and show each.
    Test {
        /// The policy; without it, the one that gateway.yaml names.
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Say why somebody may or may not reach something, or why they could or could not. Exit code
    /// 0: allowed; 1: denied.
    Explain(explain::Verb),
    /// Say who can reach a destination. Exit code 1: nobody.
    WhoCan(who_can::Verb),
    /// Say where a device or a user can go. Exit code 1: nowhere.
    Reach(reach::Verb),
    /// Say who could reach a target at a moment, and who did.
    Report(report::Verb),
    Plan(plan::Verb),
    Suggest(suggest::Verb),
    /// Show which policy is in force and whether the file on disk was refused.
    Status {
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    #[command(flatten)]
    Change(change::Verb),
    /// Put the file on disk in force now.
    Reload {
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::Check {
                file,
                strict,
                place,
            } => check::check(file, strict, &place).await,
            Verb::Schema => {
                output::json(&schema())?;
                Ok(0)
            }
            Verb::Test {
                file,
                place,
                output,
            } => test(&file_or_config(file, &place)?, output),
            Verb::Explain(verb) => verb.obey().await,
            Verb::WhoCan(verb) => verb.obey().await,
            Verb::Reach(verb) => verb.obey().await,
            Verb::Report(verb) => verb.obey().await,
            Verb::Plan(verb) => verb.obey().await,
            Verb::Suggest(verb) => verb.obey().await,
            Verb::Change(verb) => verb.obey().await,
            Verb::Status { place, output } => {
                let status: PolicyStatus = place.client()?.1.get("/v1/policy/status").await?;
                match output {
                    Output::Json => output::json(&status)?,
                    Output::Table => show(&status)?,
                }
                Ok(u8::from(!status.ok))
            }
            Verb::Reload { place, output } => reload(&place, output).await,
        }
    }
}

fn file_or_config(file: Option<PathBuf>, place: &Where) -> Result<PathBuf, Failure> {
    file.map_or_else(|| Ok(place.load()?.policy), Ok)
}

fn test(path: &Path, output: Output) -> Result<u8, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let policy = Policy::parse(&text)
        .map_err(|errors| Failure::usage(format!("{}:\n{errors}", path.display())))?;
    let outcomes = policy.run_tests();
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if output == Output::Json {
        output::json(&outcomes)?;
    } else {
        output::table(
            ["", "LINE", "TEST", "EXPECTED", "GOT"],
            outcomes.iter().map(|outcome| {
                [
                    if outcome.passed { "ok" } else { "FAILED" }.to_owned(),
                    outcome.line.to_string(),
                    outcome.described.clone(),
                    outcome.expected.clone(),
                    outcome.got.clone(),
                ]
            }),
        )?;
        eprintln!("{} tests, {failed} failed", outcomes.len());
    }
    Ok(u8::from(failed > 0))
}

async fn reload(place: &Where, output: Output) -> Result<u8, Failure> {
    let reloaded: Reloaded = place.client()?.1.post("/v1/policy/reload", &()).await?;
    if output == Output::Json {
        output::json(&reloaded)?;
    } else if reloaded.policy.ok {
        let what = if reloaded.changed {
            "in force"
        } else {
            "in force already"
        };
        output::say(format_args!(
            "policy {} is {what}; {} flows were cut",
            reloaded.policy.hash, reloaded.cut
        ))?;
    } else {
        show(&reloaded.policy)?;
    }
    Ok(u8::from(!reloaded.policy.ok))
}

fn show(status: &PolicyStatus) -> Result<(), Failure> {
    output::facts(&[
        ("in force", status.hash.clone()),
        ("generation", status.generation.to_string()),
        ("since", output::moment(Some(status.loaded))),
        (
            "file on disk",
            match (status.ok, status.file_in_force) {
                (false, _) => "IS REFUSED",
                (true, true) => "is in force",
                (true, false) => "DIFFERS from what is in force",
            }
            .to_owned(),
        ),
    ])?;
    if let Some(pending) = &status.pending {
        output::say(format_args!(
            "\nwaits for its confirmation until {}; then {} comes back\n`postern confirm TOKEN` on \
             a laptop keeps it; `policy rollback` takes it back now",
            output::moment(Some(pending.deadline)),
            pending.previous
        ))?;
    }
    if let Some(why) = &status.unwritten {
        output::say(format_args!("\n{why}"))?;
    }
    for error in &status.errors {
        output::say(format_args!("\n{error}"))?;
    }
    Ok(())
}
