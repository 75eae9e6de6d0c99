//! `device add|list|show|revoke`. Through the running gateway; without one, on the store itself,
//! so that a fresh gateway can have devices before its first start.

mod change;

use super::failure::each;
use super::output::{self, Output};
use super::{Failure, Where};
use crate::admin::client::Client;
use crate::api::{CutView, DeviceAdded, DeviceState, DeviceView, NewDevice};
use crate::config::Config;
use crate::enrol::{enrol, view};
use crate::key_file;
use crate::policy_watch;
use crate::profile::{postern_yaml, preshared_text, profile, qr, wg_quick};
use crate::store::Store;
use clap::{Args, Subcommand, ValueEnum};
use postern_io::clock::Clock;
use postern_proto::keys::PublicKey;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Enrol a device and print what it needs, once.
    Add(Add),
    /// List devices.
    List {
        #[command(flatten)]
        place: Where,
        /// Revoked ones too.
        #[arg(long)]
        all: bool,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one device.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Let devices that wait for approval reach what the policy allows.
    Approve {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Deny devices, also approved ones: they reach nothing.
    Deny {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Set or unset an attribute of a device.
    Attribute(change::Attribute),
    /// Set or unset labels of a device.
    Label(change::Label),
    /// Cut devices off for ever, at once.
    Revoke {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Unique for ever, such as ana-laptop.
    name: String,
    /// Who uses it. Without one it is a machine.
    #[arg(long)]
    user: Option<String>,
    /// A group that the policy knows. May be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A label that the policy can ask for. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The device's public key, if it made its own. Without it a key pair is made here, printed
    /// once and never stored.
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Add a pre-shared key to the handshake.
    #[arg(long)]
    preshared_key: bool,
    /// What to print. With --qr the default is wg-quick.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Print it as a QR code.
    #[arg(long)]
    qr: bool,
    /// Write it to a new file that only you can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A profile for `postern up`.
    Postern,
    /// A configuration for any WireGuard client.
    WgQuick,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::Add(add) => add.obey().await,
            Verb::List { place, all, output } => list(&place, all, output).await,
            Verb::Show {
                name,
                place,
                output,
            } => show(&place, &name, output).await,
            Verb::Approve { names, place } => {
                change::decide(&place, &names, "approve", "approved").await
            }
            Verb::Deny { names, place } => change::decide(&place, &names, "deny", "denied").await,
            Verb::Attribute(attribute) => attribute.obey().await,
            Verb::Label(label) => label.obey().await,
            Verb::Revoke { names, place } => revoke(&place, &names).await,
        }
    }
}

impl Add {
    async fn obey(self) -> Result<u8, Failure> {
        let (config, client) = self.place.client()?;
        // The file comes first: a key that cannot be written down would be lost.
        let file = self.out.as_deref().map(new_file).transpose()?;
        let added = self.enrol_and_print(&config, &client, file).await;
        if added.is_err()
            && let Some(path) = &self.out
        {
            // Made a moment ago and empty; the error that matters is the other one.
            let _ = std::fs::remove_file(path);
        }
        added
    }

    async fn enrol_and_print(
        &self,
        config: &Config,
        client: &Client,
        file: Option<std::fs::File>,
    ) -> Result<u8, Failure> {
        let private = match self.public_key {
            Some(_) => None,
            None => Some(key_file::new_private_key()?),
        };
        let public_key = match (&self.public_key, &private) {
            (Some(given), _) => *given,
            (None, Some(made)) => made.public(),
            (None, None) => return Err(Failure::failed("no key")),
        };
        let preshared = if self.preshared_key {
            Some(key_file::new_preshared_key()?)
        } else {
            None
        };
        let new = NewDevice {
            name: self.name.clone(),
            user: self.user.clone(),
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            public_key,
            preshared_key: preshared.as_ref().map(preshared_text),
        };
        let added = if client.is_running().await {
            client.post("/v1/devices", &new).await?
        } else {
            say_offline();
            enrol_offline(config, &new).await?
        };
        let made = profile(&added, private, preshared);
        let text = match self.format.unwrap_or(if self.qr {
            Format::WgQuick
        } else {
            Format::Postern
        }) {
            Format::Postern => postern_yaml(&made).map_err(Failure::failed)?,
            Format::WgQuick => wg_quick(&made),
        };
        note(&added);
        if let (Some(mut file), Some(path)) = (file, &self.out) {
            match file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
            {
                Ok(()) => eprintln!("written to {}", path.display()),
                Err(error) => {
                    eprintln!(
                        "{} cannot be written ({error}); here it is:",
                        path.display()
                    );
                    output::write(&text)?;
                }
            }
        } else if !self.qr {
            output::write(&text)?;
        }
        if self.qr {
            output::say(format_args!("{}", qr(&text).map_err(Failure::failed)?))?;
        }
        Ok(0)
    }
}

async fn list(place: &Where, all: bool, output: Output) -> Result<u8, Failure> {
    let (config, client) = place.client()?;
    let mut devices: Vec<DeviceView> = if client.is_running().await {
        client.get("/v1/devices").await?
    } else {
        say_offline();
        open(&config)
            .await?
            .devices()
            .await?
            .iter()
            .map(view)
            .collect()
    };
    devices.retain(|device| all || device.state != DeviceState::Revoked);
    if output == Output::Json {
        output::json(&devices)?;
        return Ok(0);
    }
    let header = [
        "NAME",
        "USER",
        "GROUPS",
        "LABELS",
        "ADDRESS",
        "STATE",
        "ENDPOINT",
        "LAST HANDSHAKE",
    ];
    output::table(
        header,
        devices.iter().map(|device| {
            [
                device.name.clone(),
                output::or_dash(device.user.as_ref()),
                super::list_of(&device.groups),
                super::list_of(&device.labels),
                output::or_dash(device.addresses.first()),
                state(device.state).to_owned(),
                output::or_dash(device.last_endpoint),
                output::moment(device.last_handshake),
            ]
        }),
    )?;
    Ok(0)
}

async fn show(place: &Where, name: &str, output: Output) -> Result<u8, Failure> {
    let (config, client) = place.client()?;
    let device: DeviceView = if client.is_running().await {
        client.get(&device_path(name)?).await?
    } else {
        say_offline();
        view(&open(&config).await?.device(name).await?)
    };
    if output == Output::Json {
        output::json(&device)?;
        return Ok(0);
    }
    let addresses: Vec<_> = device.addresses.iter().map(ToString::to_string).collect();
    output::facts(&[
        ("name", device.name.clone()),
        ("user", output::or_dash(device.user.as_ref())),
        ("groups", super::list_of(&device.groups)),
        ("labels", super::list_of(&device.labels)),
        ("public key", device.public_key.to_string()),
        (
            "pre-shared key",
            if device.preshared_key { "yes" } else { "no" }.to_owned(),
        ),
        ("addresses", addresses.join(", ")),
        ("state", state(device.state).to_owned()),
        ("invitation", output::or_dash(device.invitation.as_ref())),
        ("session", session(&device)),
        ("posture", posture(&device)),
        ("attributes", attributes(&device)),
        ("key since", output::moment(Some(device.key_since))),
        ("next key", output::or_dash(device.next_key)),
        ("created", output::moment(Some(device.created))),
        ("approved", output::moment(device.approved)),
        ("denied", output::moment(device.denied)),
        ("revoked", output::moment(device.revoked)),
        ("endpoint", output::or_dash(device.last_endpoint)),
        ("last handshake", output::moment(device.last_handshake)),
    ])?;
    Ok(0)
}

async fn revoke(place: &Where, names: &[String]) -> Result<u8, Failure> {
    let (config, client) = place.client()?;
    let running = client.is_running().await;
    if !running {
        say_offline();
    }
    each(names, async |name| {
        if running {
            let path = device_path(name)? + "/revoke";
            let cut: CutView = client.post(&path, &()).await?;
            output::say(format_args!(
                "{name} is revoked; {} flows were cut",
                cut.flows
            ))?;
        } else {
            let store = open(&config).await?;
            store
                .revoke_device(name, Clock::now().wall.seconds())
                .await?;
            store.close().await;
            output::say(format_args!("{name} is revoked"))?;
        }
        Ok(())
    })
    .await
}

async fn enrol_offline(config: &Config, new: &NewDevice) -> Result<DeviceAdded, Failure> {
    let gateway_key = key_file::read(&config.key_file)?.public();
    let policy = policy_watch::load(&config.policy)?;
    let store = open(config).await?;
    let (_, added) = enrol(&store, config, &policy, gateway_key, new).await?;
    store.close().await;
    Ok(added)
}

async fn open(config: &Config) -> Result<Store, Failure> {
    Ok(Store::open(&config.store_path(), config.pool).await?)
}

fn say_offline() {
    eprintln!("note: no gateway is running; working on its store directly");
}

fn note(added: &DeviceAdded) {
    let device = &added.device;
    let addresses: Vec<_> = device.addresses.iter().map(ToString::to_string).collect();
    eprintln!("added {} with {}", device.name, addresses.join(" and "));
    for note in &added.notes {
        eprintln!("note: {note}");
    }
}

fn new_file(path: &Path) -> Result<std::fs::File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let help = if error.kind() == std::io::ErrorKind::AlreadyExists {
                "; nothing is overwritten: choose another name"
            } else {
                ""
            };
            Failure::failed(format!("{}: {error}{help}", path.display()))
        })
}

/// Names are plain words, so they stand in a path as they are.
fn device_path(name: &str) -> Result<String, Failure> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
    if name.is_empty() || !plain {
        return Err(Failure::failed(format!(
            "there is no device '{}'\n  help: see `postern-gateway device list`",
            name.escape_debug()
        )));
    }
    Ok(format!("/v1/devices/{name}"))
}

fn session(device: &DeviceView) -> String {
    let Some(session) = &device.session else {
        return "-".to_owned();
    };
    let until = match session.until {
        Some(until) => output::moment(Some(until)),
        None => "no end by age".to_owned(),
    };
    let since = output::moment(Some(session.since));
    format!("{} by {}, {since} to {until}", session.id, session.method)
}

/// Checks that hold by name; the others with what was expected and what came.
fn posture(device: &DeviceView) -> String {
    let checks: Vec<String> = device
        .posture
        .iter()
        .map(|check| {
            if check.holds {
                return format!("{} holds", check.name);
            }
            let (expected, received) = (&check.expected, &check.received);
            format!(
                "{} fails: expected {expected}, received {received}",
                check.name
            )
        })
        .collect();
    if checks.is_empty() {
        "-".to_owned()
    } else {
        checks.join("; ")
    }
}

fn attributes(device: &DeviceView) -> String {
    let all: Vec<String> = device
        .attributes
        .iter()
        .map(|one| format!("{}={}", one.name, one.value))
        .collect();
    super::list_of(&all)
}

fn state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Active => "active",
        DeviceState::WaitsForApproval => "waits-for-approval",
        DeviceState::Denied => "denied",
        DeviceState::NeedsLogin => "needs-login",
        DeviceState::UserDisabled => "user-disabled",
        DeviceState::Revoked => "revoked",
    }
}
