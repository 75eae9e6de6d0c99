//! What has to hold before a device is enrolled, and what it is told. The same with and without a
//! running daemon.

use crate::api::{DeviceAdded, DeviceView, NewDevice};
use crate::config::Config;
use crate::problem::Problem;
use crate::store::{Device, Enrolment, Store};
use ipnet::IpNet;
use postern_engine::policy::Policy;
use postern_io::clock::Clock;
use postern_proto::invitation::GUESTS;
use postern_proto::keys::PublicKey;
use postern_proto::profile::ProfileGateway;

/// Stores a device. Durable when it returns.
///
/// # Errors
/// The request or the configuration is not good for a profile; nothing was stored then.
pub async fn enrol(
    store: &Store,
    config: &Config,
    policy: &Policy,
    gateway_key: PublicKey,
    new: &NewDevice,
) -> Result<(Device, DeviceAdded), Problem> {
    if config.endpoints.is_empty() {
        return Err(Problem::refused(
            "devices cannot be told where this gateway is",
            format!("write `endpoint: HOST:PORT` in {}", config.path.display()),
        ));
    }
    if new.public_key == gateway_key {
        return Err(Problem::refused(
            "this is the gateway's own key",
            "every device has a key pair of its own",
        ));
    }
    let (include, notes) = include_list(config, policy)?;
    let preshared = match &new.preshared_key {
        Some(text) => Some(text.parse().map_err(|_| {
            Problem::refused(
                "the pre-shared key is no key",
                "write what `wg genpsk` prints",
            )
        })?),
        None => None,
    };
    let words = Enrolment::new(
        &new.name,
        new.user.as_deref(),
        &new.groups,
        new.public_key,
        preshared,
    )?
    .with_labels(&new.labels)?;
    let device = store.add_device(words, Clock::now().wall.seconds()).await?;
    let (v4, v6) = config.pool.gateway();
    let added = DeviceAdded {
        device: view(&device),
        mtu: config.mtu,
        gateway: ProfileGateway {
            public_key: gateway_key,
            endpoints: config.endpoints.clone(),
            tunnel_addresses: vec![v4.into(), v6.into()],
        },
        include,
        keepalive: config.keepalive,
        notes,
    };
    Ok((device, added))
}

/// A device as listings show it.
#[must_use]
pub fn view(device: &Device) -> DeviceView {
    let record = &device.record;
    DeviceView {
        name: record.name.clone(),
        user: record.user.clone(),
        groups: record.groups.clone(),
        labels: record.standing.labels.clone(),
        public_key: record.key,
        preshared_key: record.preshared_key.is_some(),
        addresses: vec![record.v4.into(), record.v6.into()],
        state: device.state(),
        created: record.created,
        invitation: device.invitation.clone(),
        approved: device.approved,
        denied: device.denied,
        revoked: device.revoked,
        key_since: device.key_since,
        next_key: device.next_key,
        session: None,
        posture: Vec::new(),
        attributes: Vec::new(),
        last_endpoint: record.last_endpoint,
        last_handshake: device.last_handshake,
    }
}

/// The include list of a new profile, and what had to be left out of it.
pub(crate) fn include_list(
    config: &Config,
    policy: &Policy,
) -> Result<(Vec<IpNet>, Vec<String>), Problem> {
    if let Some(list) = &config.include {
        return Ok((list.clone(), Vec::new()));
    }
    let own: [IpNet; 3] = [config.pool.v4.into(), config.pool.v6.into(), GUESTS.into()];
    let overlaps = |net: &IpNet| own.iter().any(|own| own.contains(net) || net.contains(own));
    let (left_out, include): (Vec<_>, Vec<_>) = policy
        .addresses()
        .into_iter()
        .partition(|net| overlaps(net));
    if include.is_empty() {
        return Err(Problem::refused(
            "the policy names no address, so a device would have nothing to reach",
            format!(
                "write targets in {}, or `include` in gateway.yaml",
                config.policy.display()
            ),
        ));
    }
    let notes = left_out
        .iter()
        .map(|net| {
            format!("{net} overlaps the tunnel's own addresses and is not in the include list")
        })
        .collect();
    Ok((include, notes))
}
