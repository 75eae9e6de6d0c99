//! `policy explain`.

use super::super::output::{self, Output};
use super::super::{Failure, Where};
use super::then::At;
use crate::api::{ExplainRequest, Explained};
use crate::control::{answer, explain};
use crate::past;
use crate::policy_watch;
use crate::store::{Store, Terms};
use clap::Args;
use postern_engine::policy::{Subject, Tuple};
use postern_io::clock::Clock;
use serde_json::json;
use std::path::PathBuf;

/// Who, and where to.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
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
    at: At,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let said = match self.at.at {
            Some(_) => self.ask_the_past().await?,
            None => self.ask().await?,
        };
        match self.output {
            Output::Json => output::json(&said.explanation)?,
            Output::Table => output::say(format_args!("{}", said.text))?,
        }
        Ok(u8::from(!said.allow))
    }

    async fn ask(&self) -> Result<Explained, Failure> {
        let request = ExplainRequest {
            device: self.device.clone(),
            user: self.user.clone(),
            groups: self.groups.clone(),
            to: self.to.clone(),
        };
        if let (Some(file), None) = (&self.file, &self.device) {
            return Ok(explain(&policy_watch::load(file)?, None, &request).await?);
        }
        let (config, client) = self.place.client()?;
        if self.file.is_none() && client.is_running().await {
            return Ok(client.post("/v1/policy/explain", &request).await?);
        }
        if self.file.is_none() {
            eprintln!(
                "note: no gateway is running; asking {}",
                config.policy.display()
            );
        }
        let file = self.file.as_ref().unwrap_or(&config.policy);
        let policy = policy_watch::load(file)?;
        if policy.names().is_empty() && self.device.is_none() {
            return Ok(explain(&policy, None, &request).await?);
        }
        let store = Store::open(&config.store_path(), config.pool).await?;
        // What its names meant when they were asked for last.
        let source = std::fs::read_to_string(file)?;
        let then = past::policy_from(&store, source, Clock::now().wall).await?;
        let terms = Terms::of(&config);
        Ok(explain(&then.policy, Some((&store, &terms)), &request).await?)
    }

    /// With the policy, the facts, the names and the place on the Internet of that moment.
    async fn ask_the_past(&self) -> Result<Explained, Failure> {
        let to: Tuple = self.to.parse().map_err(Failure::usage)?;
        let mut then = self.at.then(&self.place).await?;
        if let Some(file) = &self.file {
            policy_watch::load(file)?;
            let source = std::fs::read_to_string(file)?;
            then.policy = past::policy_from(&then.store, source, then.at).await?;
        }
        then.policy.known()?;
        let mut who = Subject::default();
        let mut lines = vec![format!("at: {}", then.at.rfc3339())];
        if self.file.is_none() {
            lines.push(format!("in force: {}", then.in_force()));
        }
        let mut facts = None;
        let mut outer = None;
        if let Some(device) = &self.device {
            let found = past::subject_at(&then.store, device, then.at).await?;
            who = found.subject;
            outer = past::outer_at(&then.segments()?, device, then.at)?;
            who.standing.outer = outer.map(|(address, _)| address);
            lines.push(format!(
                "facts: {}, so since {}",
                found.row.id,
                found.row.since.rfc3339()
            ));
            lines.push(match outer {
                Some((address, seen)) => {
                    format!(
                        "on the Internet: {address}, as a record of {} says",
                        seen.rfc3339()
                    )
                }
                None => "on the Internet: nobody knows where".to_owned(),
            });
            facts = Some(json!({
                "id": found.row.id,
                "since": found.row.since.rfc3339(),
                "until": found.row.until.map(|until| until.rfc3339()),
            }));
        }
        if self.user.is_some() {
            who.user.clone_from(&self.user);
        }
        if !self.groups.is_empty() {
            who.groups.clone_from(&self.groups);
        }
        let mut said = answer(&then.policy.policy, who, &to, then.at)?;
        for line in lines {
            said.text.push_str(&format!("\n  {line}"));
        }
        let rest = [
            ("at", json!(then.at.rfc3339())),
            (
                "policy_since",
                json!(then.policy.since.map(|at| at.rfc3339())),
            ),
            (
                "policy_until",
                json!(then.policy.until.map(|at| at.rfc3339())),
            ),
            ("facts", json!(facts)),
            ("outer", json!(outer.map(|(address, _)| address))),
        ];
        for (name, value) in rest {
            if !value.is_null() {
                said.explanation[name] = value;
            }
        }
        Ok(said)
    }
}
