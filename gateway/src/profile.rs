//! What a device is given: a profile for `postern`, or a configuration for any WireGuard client.

use crate::api::DeviceAdded;
use postern_proto::keys::{PresharedKey, PrivateKey};
use postern_proto::profile::{PROFILE_VERSION, Profile};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::fmt::Write;
use std::time::Duration;

/// The profile of a device that was just added. `private_key` is none when the device made its
/// own.
#[must_use]
pub fn profile(
    added: &DeviceAdded,
    private_key: Option<PrivateKey>,
    preshared_key: Option<PresharedKey>,
) -> Profile {
    Profile {
        version: PROFILE_VERSION,
        name: added.device.name.clone(),
        private_key,
        addresses: added.device.addresses.clone(),
        mtu: added.mtu,
        gateway: added.gateway.clone(),
        include: added.include.clone(),
        keepalive: added
            .keepalive
            .map(|seconds| Duration::from_secs(u64::from(seconds))),
        preshared_key,
        key_since: None,
        next_private_key: None,
        next_preshared_key: None,
    }
}

/// The profile as `postern up` reads it.
///
/// # Errors
/// It cannot be written as YAML: a fault of this program.
pub fn postern_yaml(profile: &Profile) -> Result<String, serde_saphyr::ser::Error> {
    let body = serde_saphyr::to_string(profile)?;
    let key = match profile.private_key {
        Some(_) => {
            "# Holds the private key: keep it with mode 0600 and give it to one device only.\n"
        }
        None => "# Add `private_key:` with the private half of the key that was enrolled.\n",
    };
    Ok(format!(
        "# Postern profile: postern up THIS_FILE\n{key}{body}"
    ))
}

/// A standard WireGuard configuration (wg-quick(8)), for the official apps and `wg`.
#[must_use]
pub fn wg_quick(profile: &Profile) -> String {
    let mut text = String::from("[Interface]\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    match &profile.private_key {
        Some(key) => line("PrivateKey", &key.expose_base64()),
        None => line(
            "# PrivateKey",
            &"the private half of the key that was enrolled",
        ),
    }
    let addresses: Vec<_> = profile
        .addresses
        .iter()
        .map(|&a| ipnet::IpNet::from(a).to_string())
        .collect();
    line("Address", &addresses.join(", "));
    line("MTU", &profile.mtu);
    line("\n[Peer]\nPublicKey", &profile.gateway.public_key);
    if let Some(key) = &profile.preshared_key {
        line("PresharedKey", &preshared_text(key));
    }
    if let Some(endpoint) = profile.gateway.endpoints.first() {
        line("Endpoint", endpoint);
    }
    let include: Vec<_> = profile.include.iter().map(ToString::to_string).collect();
    line("AllowedIPs", &include.join(", "));
    if let Some(pause) = profile.keepalive {
        line("PersistentKeepalive", &pause.as_secs());
    }
    text
}

/// A QR code for a terminal, light on dark.
///
/// # Errors
/// The text is too long for one.
pub fn qr(text: &str) -> Result<String, qrcode::types::QrError> {
    let code = QrCode::with_error_correction_level(text, qrcode::EcLevel::L)?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}

/// A pre-shared key in base64, for the store and the device only.
#[must_use]
pub fn preshared_text(key: &PresharedKey) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(key.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DeviceState, DeviceView};
    use postern_proto::profile::ProfileGateway;

    fn added() -> DeviceAdded {
        DeviceAdded {
            device: DeviceView {
                name: "ana".into(),
                user: None,
                groups: vec!["sre".into()],
                labels: Vec::new(),
                public_key: PrivateKey::from_random([1; 32]).public(),
                preshared_key: false,
                addresses: vec![
                    "100.96.0.2".parse().expect("v4"),
                    "fd00:1::2".parse().expect("v6"),
                ],
                state: DeviceState::Active,
                created: 0,
                invitation: None,
                approved: None,
                denied: None,
                revoked: None,
                key_since: 1,
                next_key: None,
                session: None,
                posture: Vec::new(),
                attributes: Vec::new(),
                last_endpoint: None,
                last_handshake: None,
            },
            mtu: 1420,
            gateway: ProfileGateway {
                public_key: PrivateKey::from_random([2; 32]).public(),
                endpoints: vec!["vpn.example.com:51820".parse().expect("endpoint")],
                tunnel_addresses: vec!["100.96.0.1".parse().expect("v4")],
            },
            include: vec!["192.0.2.10/32".parse().expect("net")],
            keepalive: Some(25),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_profile_reads_back_and_is_good() {
        let key = PrivateKey::from_random([1; 32]);
        let secret = key.expose_base64();
        let made = profile(&added(), Some(key), Some(PresharedKey([5; 32])));
        let text = postern_yaml(&made).expect("YAML");
        let read: Profile = serde_saphyr::from_str(&text).expect("reads back");
        assert_eq!(read.check(), []);
        assert_eq!(read.private_key.expect("there").expose_base64(), secret);
        assert_eq!(read.preshared_key.expect("there").0, [5; 32]);
        assert_eq!(read.keepalive, Some(Duration::from_secs(25)));
    }

    #[test]
    fn without_the_private_half_it_says_where_it_goes() {
        let made = profile(&added(), None, None);
        assert!(
            postern_yaml(&made)
                .expect("YAML")
                .contains("Add `private_key:`")
        );
        assert!(wg_quick(&made).contains("# PrivateKey = the private half"));
    }

    #[test]
    fn wireguard_reads_its_own_words() {
        let key = PrivateKey::from_random([1; 32]);
        let secret = key.expose_base64();
        let made = profile(&added(), Some(key), None);
        let gateway = made.gateway.public_key;
        assert_eq!(
            wg_quick(&made),
            format!(
                "[Interface]\nPrivateKey = {secret}\nAddress = 100.96.0.2/32, fd00:1::2/128\n\
                 MTU = 1420\n\n[Peer]\nPublicKey = {gateway}\nEndpoint = vpn.example.com:51820\n\
                 AllowedIPs = 192.0.2.10/32\nPersistentKeepalive = 25\n"
            )
        );
    }

    #[test]
    fn a_configuration_fits_a_qr_code() {
        let made = profile(&added(), Some(PrivateKey::from_random([1; 32])), None);
        let code = qr(&wg_quick(&made)).expect("fits");
        let widths: Vec<_> = code.lines().map(|line| line.chars().count()).collect();
        assert!(widths.len() > 20 && widths.iter().all(|width| *width == widths[0]));
    }
}
