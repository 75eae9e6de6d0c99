//! `session list|revoke`.

use super::failure::each;
use super::output::{self, Output};
use super::{Failure, Where, path_part};
use crate::api::{CutView, LoginView};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List logins in force.
    List {
        #[command(flatten)]
        place: Where,
        /// Past ones too.
        #[arg(long)]
        all: bool,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// End logins; what needs them is cut at once.
    Revoke {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::List { place, all, output } => list(&place, all, output).await,
            Verb::Revoke { ids, place } => revoke(&place, &ids).await,
        }
    }
}

async fn list(place: &Where, all: bool, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let sessions: Vec<LoginView> = client.get(&format!("/v1/sessions?all={all}")).await?;
    if output == Output::Json {
        output::json(&sessions)?;
        return Ok(0);
    }
    let header = ["ID", "USER", "DEVICE", "METHOD", "SINCE", "UNTIL", "ENDED"];
    output::table(
        header,
        sessions.iter().map(|session| {
            let why = session.end_reason.as_deref().unwrap_or("-");
            [
                session.id.clone(),
                session.user.clone(),
                session.device.clone(),
                session.method.clone(),
                output::moment(Some(session.since)),
                output::moment(session.until),
                output::or_dash(session.ended.map(|_| why)),
            ]
        }),
    )?;
    Ok(0)
}

async fn revoke(place: &Where, ids: &[String]) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    each(ids, async |id| {
        let path = format!("/v1/sessions/{}/revoke", path_part(id));
        let cut: CutView = client.post(&path, &()).await?;
        output::say(format_args!("{id} has ended; {} flows were cut", cut.flows))?;
        Ok(())
    })
    .await
}
