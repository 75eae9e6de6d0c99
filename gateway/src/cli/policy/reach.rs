//! `policy reach`.

use super::super::output::{self, Output};
use super::super::{Failure, Where};
use super::then::At;
use super::who_can::word;
use crate::problem::Problem;
use clap::Args;
use postern_history::reach::{Access, Reach, reach};

/// Say where a device, or each device of a user, can go: every destination of every rule, and what
/// stands between.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
    /// Every device of this user.
    #[arg(long, required_unless_present = "device", conflicts_with = "device")]
    user: Option<String>,
    /// This device.
    #[arg(long)]
    device: Option<String>,
    /// Also what is closed whatever the user does.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Verb {
    /// Exit code 0 if something is reached, 1 if nothing is.
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let then = self.at.then(&self.place).await?;
        let subjects = match (&self.device, &self.user) {
            (Some(device), _) => vec![then.subject(device).await?],
            (None, Some(user)) => {
                let mut all = then.subjects().await?;
                all.retain(|who| {
                    who.user
                        .as_ref()
                        .is_some_and(|of| of.eq_ignore_ascii_case(user))
                });
                if all.is_empty() {
                    let what = format!("user '{user}' had no device then");
                    let help = "`postern-gateway device list` names users and devices";
                    return Err(Problem::absent(what, help).into());
                }
                all
            }
            (None, None) => Vec::new(),
        };
        let found: Vec<Reach> = subjects
            .iter()
            .map(|who| reach(&then.policy.policy, who, then.at))
            .collect();
        match self.output {
            Output::Json => output::json(&found)?,
            Output::Table => {
                for one in &found {
                    output::say(format_args!(
                        "{} at {}, {}",
                        one.subject,
                        then.at.rfc3339(),
                        then.policy_line()
                    ))?;
                    self.show(one)?;
                }
            }
        }
        let open = |one: &Reach| one.ways.iter().any(|way| way.access == Access::Allow);
        Ok(u8::from(!found.iter().any(open)))
    }

    fn show(&self, one: &Reach) -> Result<(), Failure> {
        if let Some(held) = one.held {
            output::say(format_args!("it reaches nothing: {held}"))?;
        }
        let shown = |access| self.all || access != Access::Never;
        output::table(
            [
                "ACCESS",
                "TARGET",
                "ADDRESSES AND PORTS",
                "RULE",
                "LINE",
                "BETWEEN",
            ],
            one.ways.iter().filter(|way| shown(way.access)).map(|way| {
                let between = way.between();
                [
                    word(way.access).to_owned(),
                    output::or_dash(way.target.as_ref()),
                    way.to.to_string(),
                    way.rule.clone(),
                    output::or_dash(way.line),
                    output::or_dash((!between.is_empty()).then_some(between)),
                ]
            }),
        )?;
        let never = one.ways.iter().filter(|way| way.access == Access::Never);
        let (never, more) = (never.count(), one.more);
        if !self.all && never > 0 {
            output::say(format_args!("{never} more are closed; --all shows them"))?;
        }
        if more > 0 {
            output::say(format_args!("{more} are not shown"))?;
        }
        match one.until {
            Some(until) => output::say(format_args!(
                "time alone changes nothing of it before {}",
                until.rfc3339()
            )),
            None => Ok(()),
        }
    }
}
