//! `policy who-can`.

use super::super::output::{self, Output};
use super::super::{Failure, Where};
use super::then::At;
use crate::past;
use clap::Args;
use postern_history::reach::{Access, WhoCan, who_can};

/// Say who can reach a destination, and under which rule; and who could, if what.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
    /// ADDRESS:PORT/PROTOCOL, such as 192.0.2.10:22/tcp, or the policy's name for it.
    #[arg(long, value_name = "DESTINATION")]
    to: String,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Verb {
    /// Exit code 0 if somebody can, 1 if nobody can now.
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let then = self.at.then(&self.place).await?;
        let to = past::place_of(&then.policy.policy, &self.to)?;
        let subjects = then.subjects().await?;
        let found = who_can(&then.policy.policy, &subjects, &to, then.at);
        match self.output {
            Output::Json => output::json(&found)?,
            Output::Table => {
                output::say(format_args!(
                    "{to} at {}, {}",
                    then.at.rfc3339(),
                    then.policy_line()
                ))?;
                table(&found)?;
            }
        }
        if found.more > 0 {
            eprintln!(
                "note: {} more rows are not shown; name one address and port",
                found.more
            );
        }
        let can = found.rows.iter().any(|row| row.way.access == Access::Allow);
        Ok(u8::from(!can))
    }
}

pub(super) fn table(found: &WhoCan) -> Result<(), Failure> {
    output::table(
        ["USER", "DEVICE", "ACCESS", "RULE", "LINE", "BETWEEN"],
        found.rows.iter().map(|row| {
            let way = &row.way;
            let between = way.between();
            [
                output::or_dash(row.user.as_ref()),
                row.device.clone(),
                word(way.access).to_owned(),
                way.rule.clone(),
                output::or_dash(way.line),
                output::or_dash((!between.is_empty()).then_some(between)),
            ]
        }),
    )?;
    output::say(format_args!(
        "devices that do not get there: {}",
        found.never
    ))
}

pub(super) fn word(access: Access) -> &'static str {
    match access {
        Access::Allow => "yes",
        Access::If => "if",
        Access::Never => "no",
    }
}
