//! `invite`, `invite list|revoke`. The string alone goes to stdout, so that it can be piped.

use super::failure::each;
use super::output::{self, Output};
use super::{Failure, Where, span};
use crate::api::{InvitationView, Invite, Invited};
use crate::profile::qr;
use crate::store::{Kind, Require};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// How long an invitation lives unless told otherwise.
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Verb {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    new: New,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// List invitations.
    List {
        #[command(flatten)]
        place: Where,
        /// Used, expired and revoked ones too.
        #[arg(long)]
        all: bool,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Take invitations back. Who joined by them stays.
    Revoke {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Whom it is for: one device, once.
    #[arg(long, required_unless_present_any = ["open", "machine"])]
    user: Option<String>,
    /// For many devices; nobody gets access before a login or an approval.
    #[arg(long, conflicts_with_all = ["user", "machine", "name"], requires = "require")]
    open: bool,
    /// For one device without a user, of this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "name"])]
    machine: Option<String>,
    /// A group that the policy knows. May be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A label that the policy can ask for. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// What to call the device.
    #[arg(long, value_name = "DEVICE")]
    name: Option<String>,
    /// What else has to happen before a device reaches anything.
    #[arg(long, value_enum)]
    require: Option<Required>,
    /// How many devices can join at the same moment by an open one: 1 to 256 (default 32).
    #[arg(long, requires = "open")]
    keys: Option<u16>,
    /// How many devices may join by an open one: 1 to 10000 (default 256).
    #[arg(long, requires = "open")]
    uses: Option<u32>,
    /// Until when: 30m, 24h, 7d (default 24h; 7d for an open one).
    #[arg(long, value_name = "TIME", value_parser = span)]
    expires: Option<Duration>,
    /// Draw a QR code, on stderr.
    #[arg(long)]
    qr: bool,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Required {
    /// The user logs in.
    Login,
    /// An admin approves the device.
    Approval,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self.other {
            None => self.new.obey().await,
            Some(Other::List { place, all, output }) => list(&place, all, output).await,
            Some(Other::Revoke { ids, place }) => revoke(&place, &ids).await,
        }
    }
}

impl New {
    async fn obey(self) -> Result<u8, Failure> {
        let (_, client) = self.place.client()?;
        let kind = match (self.open, &self.machine) {
            (true, _) => Kind::Open,
            (false, Some(_)) => Kind::Machine,
            (false, None) => Kind::Personal,
        };
        let life = if self.open { 7 * DAY } else { DAY };
        let invite = Invite {
            kind,
            user: self.user,
            groups: self.groups,
            labels: self.labels,
            name: self.machine.or(self.name),
            require: match self.require {
                None => Require::Nothing,
                Some(Required::Login) => Require::Login,
                Some(Required::Approval) => Require::Approval,
            },
            keys: self.keys,
            uses: self.uses,
            expires_in: self.expires.unwrap_or(life).as_secs(),
        };
        let made: Invited = client.post("/v1/invitations", &invite).await?;
        let (id, until) = (
            &made.invitation.id,
            output::moment(Some(made.invitation.expires)),
        );
        eprintln!("invitation {id}, until {until}; whoever has the string can join:");
        if self.qr {
            eprintln!("{}", qr(&made.text).map_err(Failure::failed)?);
        }
        match self.output {
            Output::Json => output::json(&made)?,
            Output::Table => output::say(&made.text)?,
        }
        Ok(0)
    }
}

async fn list(place: &Where, all: bool, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let mut invitations: Vec<InvitationView> = client.get("/v1/invitations").await?;
    invitations.retain(|one| all || one.state == crate::store::InvitationState::Open);
    if output == Output::Json {
        output::json(&invitations)?;
        return Ok(0);
    }
    let header = [
        "ID", "KIND", "FOR", "GROUPS", "LABELS", "REQUIRES", "USED", "STATE", "EXPIRES",
    ];
    output::table(
        header,
        invitations.iter().map(|one| {
            [
                one.id.clone(),
                one.kind.text().to_owned(),
                output::or_dash(one.user.as_ref().or(one.name.as_ref())),
                super::list_of(&one.groups),
                super::list_of(&one.labels),
                one.require.text().to_owned(),
                format!("{}/{}", one.used, one.uses),
                one.state.text().to_owned(),
                output::moment(Some(one.expires)),
            ]
        }),
    )?;
    Ok(0)
}

async fn revoke(place: &Where, ids: &[String]) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    each(ids, async |id| {
        let path = format!("/v1/invitations/{}/revoke", super::path_part(id));
        let revoked: InvitationView = client.post(&path, &()).await?;
        let (id, used) = (&revoked.id, revoked.used);
        output::say(format_args!(
            "{id} is {}; {used} joined by it",
            revoked.state.text()
        ))?;
        Ok(())
    })
    .await
}
