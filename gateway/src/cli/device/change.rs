//! `device approve|deny|attribute|label`. Only through the running gateway.

use super::super::failure::each;
use super::super::output;
use super::super::{Failure, Where, path_part, span};
use super::device_path;
use crate::api::{ChangeLabels, CutView, SetAttribute};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct Attribute {
    /// The device's name.
    device: String,
    #[command(subcommand)]
    change: Change,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Say something of the device that a posture check of the policy can ask for.
    Set {
        /// Its name, such as managed.
        name: String,
        /// Its value.
        value: String,
        /// For how long: 30m, 24h, 7d. Without it until it is unset.
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires: Option<Duration>,
        #[command(flatten)]
        place: Where,
    },
    /// Take it back.
    Unset {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

impl Attribute {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let device = &self.device;
        let path = |name: &str| -> Result<String, Failure> {
            Ok(format!(
                "{}/attributes/{}",
                device_path(device)?,
                path_part(name)
            ))
        };
        match self.change {
            Change::Set {
                name,
                value,
                expires,
                place,
            } => {
                let (_, client) = place.client()?;
                let set = SetAttribute {
                    value,
                    expires_in: expires.map(|expires| expires.as_secs()),
                };
                let cut: CutView = client.post(&path(&name)?, &set).await?;
                say(&format!("{name} of {device} is {}", set.value), cut)
            }
            Change::Unset { name, place } => {
                let (_, client) = place.client()?;
                let cut: CutView = client.post(&(path(&name)? + "/unset"), &()).await?;
                say(&format!("{name} of {device} is unset"), cut)
            }
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Label {
    /// The device's name.
    device: String,
    #[command(subcommand)]
    change: LabelChange,
}

#[derive(Debug, Subcommand)]
enum LabelChange {
    /// Call it so; a key that it has gets the new value.
    Set {
        /// Such as env=prod.
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Take labels away.
    Unset {
        /// Such as env, whatever its value, or env=prod.
        #[arg(required = true, value_name = "KEY[=VALUE]")]
        labels: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
}

impl Label {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let (place, wanted, done) = match self.change {
            LabelChange::Set { labels, place } => {
                let done = format!("{} has {}", self.device, labels.join(", "));
                let wanted = ChangeLabels {
                    set: labels,
                    unset: Vec::new(),
                };
                (place, wanted, done)
            }
            LabelChange::Unset { labels, place } => {
                let done = format!("{} no longer has {}", self.device, labels.join(", "));
                let wanted = ChangeLabels {
                    set: Vec::new(),
                    unset: labels,
                };
                (place, wanted, done)
            }
        };
        let (_, client) = place.client()?;
        let path = device_path(&self.device)? + "/labels";
        let cut: CutView = client.post(&path, &wanted).await?;
        say(&done, cut)
    }
}

/// `verb` is a part of the path.
pub(super) async fn decide(
    place: &Where,
    names: &[String],
    verb: &str,
    done: &str,
) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    each(names, async |name| {
        let path = format!("{}/{verb}", device_path(name)?);
        let cut: CutView = client.post(&path, &()).await?;
        say(&format!("{name} is {done}"), cut).map(|_| ())
    })
    .await
}

fn say(done: &str, cut: CutView) -> Result<u8, Failure> {
    output::say(format_args!("{done}; {} flows were cut", cut.flows))?;
    Ok(0)
}
