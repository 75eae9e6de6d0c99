//! `policy check|test|explain|plan|suggest|status|reload`.

mod plan;
mod suggest;

use super::output::{self, Output};
use super::{Failure, Where};
use crate::api::{ExplainRequest, Explained, PolicyStatus, Reloaded};
use crate::control::explain;
use crate::policy_watch;
use crate::store::{Store, Terms};
use clap::Subcommand;
use postern_engine::policy::Policy;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say everything that is wrong with a policy file, its own tests included.
    Check {
        /// The policy; without it, the one that gateway.yaml names.
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Where,
    },
    /// Run the tests of a policy file and show each.
    Test {
        /// The policy; without it, the one that gateway.yaml names.
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Say why somebody may or may not reach something. Exit code 0: allowed; 1: denied.
    Explain {
        /// An enrolled device; brings its user and groups.
        #[arg(long)]
        device: Option<String>,
        /// Instead of the device's user.
        #[arg(long)]
        user: Option<String>,
        /// Instead of the device's groups. May be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// ADDRESS:PORT/PROTOCOL, such as 192.0.2.10:22/tcp.
        #[arg(long)]
        to: String,
        /// Ask this policy instead of the one in force.
        #[arg(long)]
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    Plan(plan::Verb),
    Suggest(suggest::Verb),
    /// Show which policy is in force and whether the file on disk was refused.
    Status {
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
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
            Verb::Check { file, place } => check(&file_or_config(file, &place)?),
            Verb::Test {
                file,
                place,
                output,
            } => test(&file_or_config(file, &place)?, output),
            Verb::Explain {
                device,
                user,
                groups,
                to,
                file,
                place,
                output,
            } => {
                let request = ExplainRequest {
                    device,
                    user,
                    groups,
                    to,
                };
                let said = ask(&place, file.as_deref(), &request).await?;
                match output {
                    Output::Json => output::json(&said.explanation)?,
                    Output::Table => output::say(format_args!("{}", said.text))?,
                }
                Ok(u8::from(!said.allow))
            }
            Verb::Plan(verb) => verb.obey().await,
            Verb::Suggest(verb) => verb.obey().await,
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

fn check(path: &Path) -> Result<u8, Failure> {
    let policy = policy_watch::load(path)?;
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
    Ok(0)
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

async fn ask(
    place: &Where,
    file: Option<&Path>,
    request: &ExplainRequest,
) -> Result<Explained, Failure> {
    if let (Some(file), None) = (file, &request.device) {
        return Ok(explain(&policy_watch::load(file)?, None, request).await?);
    }
    let (config, client) = place.client()?;
    if file.is_none() && client.is_running().await {
        return Ok(client.post("/v1/policy/explain", request).await?);
    }
    if file.is_none() {
        eprintln!(
            "note: no gateway is running; asking {}",
            config.policy.display()
        );
    }
    let policy = policy_watch::load(file.unwrap_or(&config.policy))?;
    let store = match request.device {
        Some(_) => Some(Store::open(&config.store_path(), config.pool).await?),
        None => None,
    };
    let terms = Terms::of(&config);
    let known = store.as_ref().map(|store| (store, &terms));
    Ok(explain(&policy, known, request).await?)
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
            if status.ok {
                "is in force"
            } else {
                "IS REFUSED"
            }
            .to_owned(),
        ),
    ])?;
    for error in &status.errors {
        output::say(format_args!("\n{error}"))?;
    }
    Ok(())
}
