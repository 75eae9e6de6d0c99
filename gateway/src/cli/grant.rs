//! `grant list|approve|deny|revoke`.

use super::failure::each;
use super::output::{self, Output};
use super::{Failure, Where, path_part};
use crate::api::DecideAs;
use clap::{Args, Subcommand};
use postern_proto::device_api::{GrantState, GrantView};
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List requests that wait and grants that live.
    List {
        #[command(flatten)]
        place: Where,
        /// Past ones too.
        #[arg(long)]
        all: bool,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Approve requests: access from now on, for as long as was asked.
    Approve(Decision),
    /// Deny requests.
    Deny(Decision),
    /// End grants before their time, or take requests back. What needs them is cut at once.
    Revoke(Decision),
}

#[derive(Debug, Args)]
pub(super) struct Decision {
    /// Their ids.
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Who decides. Known already where you came with ssh through your own tunnel.
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// A word to who asked; recorded.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::List { place, all, output } => list(&place, all, output).await,
            Verb::Approve(decision) => decide(decision, "approve").await,
            Verb::Deny(decision) => decide(decision, "deny").await,
            Verb::Revoke(decision) => decide(decision, "revoke").await,
        }
    }
}

async fn list(place: &Where, all: bool, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let grants: Vec<GrantView> = client.get(&format!("/v1/grants?all={all}")).await?;
    if output == Output::Json {
        output::json(&grants)?;
        return Ok(0);
    }
    let header = [
        "ID", "STATE", "USER", "DEVICE", "TARGET", "FOR", "UNTIL", "BY", "REASON",
    ];
    output::table(
        header,
        grants.iter().map(|grant| {
            [
                grant.id.clone(),
                grant.state.as_str().to_owned(),
                output::or_dash(grant.user.as_ref()),
                grant.device.clone(),
                grant.target.clone(),
                output::span(grant.seconds),
                output::moment(grant.ended.or(grant.until)),
                by(grant),
                grant.reason.clone(),
            ]
        }),
    )?;
    Ok(0)
}

fn by(grant: &GrantView) -> String {
    let glass = grant.break_glass.then_some("break-glass");
    output::or_dash(grant.decided_by.as_deref().or(glass))
}

async fn decide(decision: Decision, verb: &str) -> Result<u8, Failure> {
    let (_, client) = decision.place.client()?;
    let by = DecideAs {
        user: decision.user,
        from: came_from(std::env::var("SSH_CONNECTION").ok().as_deref()),
        reason: decision.reason,
    };
    each(&decision.ids, async |id| {
        let path = format!("/v1/grants/{}/{verb}", path_part(id));
        let grant: GrantView = client.post(&path, &by).await?;
        let who = grant.user.as_ref().unwrap_or(&grant.device);
        let until = match grant.state {
            GrantState::Live => format!(" until {}", output::moment(grant.until)),
            GrantState::Waits
            | GrantState::Denied
            | GrantState::Expired
            | GrantState::Withdrawn
            | GrantState::Over
            | GrantState::Revoked => String::new(),
        };
        output::say(format_args!(
            "{id} is {}{until}: {} for {who}",
            grant.state.as_str(),
            grant.target
        ))
    })
    .await
}

/// The first word of sshd's `SSH_CONNECTION`: the other end's address.
fn came_from(connection: Option<&str>) -> Option<IpAddr> {
    connection?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sshd_says_where_somebody_came_from() {
        let from = came_from(Some("100.96.0.2 40000 10.77.0.1 22"));
        assert_eq!(from, "100.96.0.2".parse().ok());
        assert_eq!(came_from(Some("")), None);
        assert_eq!(came_from(None), None);
    }
}
