//! `policy apply|confirm|rollback|history|show|diff`.
//!
//! Exit codes: 0 done (`diff`: no difference), 1 not done (`diff`: they differ), 2 wrong usage or
//! a bad policy.

use super::{Failure, Output, Where, output};
use crate::api::{
    Applied, ApplyPolicy, ConfirmPolicy, Confirmed, Force, PolicyChangeView, PolicySource,
    PolicyStatus, RollBack,
};
use crate::cli::{path_part, span};
use crate::policy_watch;
use clap::{Args, Subcommand};
use postern_history::diff::{self, Change, Difference};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// Put a policy in force and into the policy file.
    Apply {
        /// The policy; without it, the file that gateway.yaml names.
        new: Option<PathBuf>,
        /// Take it back by itself, unless somebody confirms it within this time, such as 2m.
        #[arg(long, value_name = "TIME", value_parser = span)]
        confirm_within: Option<Duration>,
        #[command(flatten)]
        who: Who,
    },
    /// Keep the policy that waits. `postern confirm TOKEN` on a laptop shows that its tunnel lives.
    Confirm {
        /// What `apply` printed.
        #[arg(required_unless_present = "here")]
        token: Option<String>,
        /// Confirm from here, without a token: nobody has shown that a tunnel lives.
        #[arg(long, conflicts_with = "token")]
        here: bool,
        #[command(flatten)]
        to: To,
    },
    /// Put the policy before in force again, or take back the one that waits.
    Rollback {
        /// This one instead: the first digits of its hash.
        #[arg(long, value_name = "HASH")]
        to: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Show which policy was in force since when, and who changed it.
    History(To),
    /// Print a policy that is kept: the first digits of its hash, `current` or `file`.
    Show {
        /// Which.
        hash: String,
        #[command(flatten)]
        to: To,
    },
    /// Compare two policies, rule by rule and line by line. Exit code 1 if they differ.
    Diff {
        /// A hash, `current`, `file`, or a path.
        a: String,
        /// The same.
        b: String,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct To {
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Who {
    /// Who you are: the change is refused if it cuts a live flow of this user. Without it, the
    /// user of the device that your SSH comes from.
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// Do it although it cuts your flows, or denies too much.
    #[arg(long, requires = "reason")]
    force: bool,
    /// Why; it is recorded.
    #[arg(long, value_name = "TEXT", requires = "force")]
    reason: Option<String>,
    #[command(flatten)]
    to: To,
}

#[derive(Serialize)]
struct Differences {
    a: String,
    b: String,
    differences: Vec<Difference>,
    text: String,
}

impl Verb {
    pub(in crate::cli) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::Apply {
                new,
                confirm_within,
                who,
            } => {
                let (config, client) = who.to.place.client()?;
                let path = new.unwrap_or_else(|| config.policy.clone());
                let source = text(&path)?;
                // Faults are said here, where the file is, and before anybody is asked.
                policy_watch::check(&source, false)
                    .map_err(|problems| policy_watch::BadPolicy { path, problems })?;
                super::check::warn(source.clone(), Some(&config)).await;
                let ask = ApplyPolicy {
                    source,
                    confirm_within: confirm_within.map(|wait| wait.as_secs()),
                    with: who.force(),
                };
                let applied: Applied = client.post("/v1/policy/apply", &ask).await?;
                let code = tell(&applied, who.to.output)?;
                if confirm_within.is_some() && !applied.changed {
                    eprintln!(
                        "no change waits: the watch put it in force already; apply a copy of it, \
                         or set policy_change.watch: false"
                    );
                    return Ok(1);
                }
                Ok(code)
            }
            Verb::Confirm { token, here: _, to } => {
                let ask = ConfirmPolicy { token };
                let client = to.place.client()?.1;
                let done: Confirmed = client.post("/v1/policy/confirm", &ask).await?;
                match to.output {
                    Output::Json => output::json(&done)?,
                    Output::Table => output::say(format_args!("policy {} stays", done.hash))?,
                }
                Ok(0)
            }
            Verb::Rollback { to, who } => {
                let ask = RollBack {
                    to,
                    with: who.force(),
                };
                let client = who.to.place.client()?.1;
                let done: Applied = client.post("/v1/policy/rollback", &ask).await?;
                tell(&done, who.to.output)
            }
            Verb::History(to) => history(&to).await,
            Verb::Show { hash, to } => {
                let found = kept(&to, &hash).await?;
                match to.output {
                    Output::Json => output::json(&found)?,
                    Output::Table => output::write(&found.source)?,
                }
                Ok(0)
            }
            Verb::Diff { a, b, to } => compare(&a, &b, &to).await,
        }
    }
}

impl Who {
    fn force(&self) -> Force {
        Force {
            user: self.user.clone(),
            ssh: std::env::var("SSH_CONNECTION").ok(),
            reason: self.reason.clone(),
        }
    }
}

fn tell(applied: &Applied, to: Output) -> Result<u8, Failure> {
    if to == Output::Json {
        output::json(applied)?;
        return Ok(0);
    }
    let hash = &applied.policy.hash;
    if !applied.changed {
        output::say(format_args!("policy {hash} is in force already"))?;
        return Ok(0);
    }
    let (cut, previous) = (applied.cut, &applied.previous);
    output::say(format_args!(
        "policy {hash} is in force; {cut} flows were cut"
    ))?;
    output::say(format_args!("before: {previous}"))?;
    if let Some(denied) = applied.newly_denied {
        output::say(format_args!(
            "of the recorded attempts of the last week it denies {denied} that were allowed"
        ))?;
    }
    if let Some(unknown) = applied.not_judged.filter(|unknown| *unknown > 0) {
        output::say(format_args!(
            "of {unknown} more, damaged lines included, nobody can say"
        ))?;
    }
    match &applied.checked {
        Some(who) => output::say(format_args!(
            "{} of the flows that were cut were those of {who}",
            applied.own_flows.len()
        ))?,
        None => eprintln!("note: nobody's flows were looked after; --as USER says who you are"),
    }
    if let (Some(token), Some(pending)) = (&applied.token, &applied.policy.pending) {
        let until = output::moment(Some(pending.deadline));
        output::say(format_args!(
            "\nConfirm it by {until} on a laptop whose tunnel is up, or it is taken back:\n\n    \
             postern confirm {token}"
        ))?;
    }
    file_note(&applied.policy)
}

fn file_note(status: &PolicyStatus) -> Result<u8, Failure> {
    if let Some(why) = &status.unwritten {
        output::say(format_args!("\nFILE AND POLICY DISAGREE: {why}"))?;
    }
    Ok(0)
}

async fn history(to: &To) -> Result<u8, Failure> {
    let client = to.place.client()?.1;
    let all: Vec<PolicyChangeView> = client.get("/v1/policy/history").await?;
    if to.output == Output::Json {
        output::json(&all)?;
        return Ok(0);
    }
    let row = |one: &PolicyChangeView| {
        [
            output::moment(Some(one.at)),
            one.hash.get(..12).unwrap_or(&one.hash).to_owned(),
            one.how.as_str().to_owned(),
            one.made_by.clone(),
            one.cut.to_string(),
            output::or_dash(one.reason.as_ref()),
        ]
    };
    output::table(
        ["SINCE", "POLICY", "HOW", "BY", "CUT", "REASON"],
        all.iter().map(row),
    )?;
    Ok(0)
}

async fn compare(a: &str, b: &str, to: &To) -> Result<u8, Failure> {
    let (old, new) = (one_of(to, a).await?, one_of(to, b).await?);
    let text = similar::TextDiff::from_lines(&old, &new)
        .unified_diff()
        .header(a, b)
        .to_string();
    let found = Differences {
        a: a.to_owned(),
        b: b.to_owned(),
        differences: diff::diff(&old, &new),
        text,
    };
    match to.output {
        Output::Json => output::json(&found)?,
        Output::Table => {
            for one in &found.differences {
                output::say(sentence(one))?;
            }
            if !found.differences.is_empty() {
                output::say("")?;
            }
            output::write(&found.text)?;
        }
    }
    Ok(u8::from(old != new))
}

/// `~ rule ssh to the nodes: from.groups was [sre], is [sre, oncall]`.
fn sentence(one: &Difference) -> String {
    let sign = match one.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
        Change::Moved => '>',
    };
    let fields = one.fields.iter().map(|field| {
        let or_nothing = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let (was, is) = (or_nothing(&field.was), or_nothing(&field.is));
        format!("\n    {}: {was} => {is}", field.field)
    });
    format!(
        "{sign} {} {}{}",
        one.kind,
        one.name,
        fields.collect::<String>()
    )
}

/// The text of a policy that is named in any way. A path comes first where it is one.
async fn one_of(to: &To, name: &str) -> Result<String, Failure> {
    if name.contains(['/', '.']) || Path::new(name).is_file() {
        return text(Path::new(name));
    }
    Ok(kept(to, name).await?.source)
}

async fn kept(to: &To, which: &str) -> Result<PolicySource, Failure> {
    let path = format!("/v1/policy/source/{}", path_part(which));
    Ok(to.place.client()?.1.get(&path).await?)
}

fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
