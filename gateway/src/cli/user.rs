//! `user list|show|disable|enable`.

use super::failure::each;
use super::output::{self, Output};
use super::{Failure, Where, path_part};
use crate::api::{CutView, UserView};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List users.
    List {
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one user.
    Show {
        /// Their name.
        name: String,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Cut every device of a user off, at once.
    Disable {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Take that back.
    Enable {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::List { place, output } => list(&place, output).await,
            Verb::Show {
                name,
                place,
                output,
            } => show(&place, &name, output).await,
            Verb::Disable { names, place } => set(&place, &names, "disable").await,
            Verb::Enable { names, place } => set(&place, &names, "enable").await,
        }
    }
}

async fn list(place: &Where, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let users: Vec<UserView> = client.get("/v1/users").await?;
    if output == Output::Json {
        output::json(&users)?;
        return Ok(0);
    }
    output::table(
        ["NAME", "STATE", "DEVICES", "SINCE"],
        users.iter().map(|user| {
            [
                user.name.clone(),
                state(user).to_owned(),
                user.devices.to_string(),
                output::moment(Some(user.created)),
            ]
        }),
    )?;
    Ok(0)
}

async fn show(place: &Where, name: &str, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let user: UserView = client
        .get(&format!("/v1/users/{}", path_part(name)))
        .await?;
    if output == Output::Json {
        output::json(&user)?;
        return Ok(0);
    }
    output::facts(&[
        ("name", user.name.clone()),
        ("state", state(&user).to_owned()),
        ("disabled", output::moment(user.disabled)),
        ("since", output::moment(Some(user.created))),
        ("devices", user.devices.to_string()),
        ("identities", super::list_of(&user.identities)),
    ])?;
    Ok(0)
}

async fn set(place: &Where, names: &[String], verb: &str) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    each(names, async |name| {
        let path = format!("/v1/users/{}/{verb}", path_part(name));
        let cut: CutView = client.post(&path, &()).await?;
        output::say(format_args!(
            "{name} is {verb}d; {} flows were cut",
            cut.flows
        ))?;
        Ok(())
    })
    .await
}

fn state(user: &UserView) -> &'static str {
    if user.disabled.is_some() {
        "disabled"
    } else {
        "active"
    }
}
