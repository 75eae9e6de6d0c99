//! What `join` must not forget between its first request and the profile: the device's new key.
//! The gateway binds an invitation to the first key that redeems it, so a retry after a crash or a
//! lost answer has to come with the same.

use crate::private_file;
use crate::random;
use postern_proto::invitation::Invitation;
use postern_proto::kem::KemSecret;
use postern_proto::keys::PrivateKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// A join that was begun.
pub(super) struct Pending {
    path: PathBuf,
    kept: Kept,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    private_key: String,
    kem: Vec<u8>,
    /// The last throw-away key that was tried.
    #[serde(default)]
    place: Option<u16>,
}

impl Pending {
    /// The one that was begun with this invitation, or a new one; it is on the disk when this
    /// returns.
    pub(super) fn begin(folder: &Path, invitation: &Invitation) -> io::Result<Pending> {
        let path = folder.join(format!("pending-{}.json", checksum(invitation)));
        match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                let kept = serde_json::from_str(&text).map_err(|_| {
                    io::Error::other(format!("{}: not readable; remove it", path.display()))
                })?;
                Ok(Pending { path, kept })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pending = Pending {
                    path,
                    kept: Kept {
                        private_key: PrivateKey::from_random(random::bytes()?).expose_base64(),
                        kem: random::bytes::<64>()?.to_vec(),
                        place: None,
                    },
                };
                pending.save()?;
                Ok(pending)
            }
            Err(error) => Err(error),
        }
    }

    /// The device's key.
    pub(super) fn private_key(&self) -> io::Result<PrivateKey> {
        self.kept.private_key.parse().map_err(|_| {
            io::Error::other(format!("{}: no key in it; remove it", self.path.display()))
        })
    }

    /// The secret of the post-quantum exchange.
    pub(super) fn kem(&self) -> io::Result<KemSecret> {
        let random: [u8; 64] = self.kept.kem.as_slice().try_into().map_err(|_| {
            io::Error::other(format!("{}: too short; remove it", self.path.display()))
        })?;
        Ok(KemSecret::from_random(random))
    }

    /// The throw-away key that was tried last.
    pub(super) fn place(&self) -> Option<u16> {
        self.kept.place
    }

    /// Remembers which throw-away key is tried now.
    pub(super) fn try_place(&mut self, place: u16) -> io::Result<()> {
        if self.kept.place == Some(place) {
            return Ok(());
        }
        self.kept.place = Some(place);
        self.save()
    }

    /// The profile holds everything now, or the invitation will never do.
    pub(super) fn end(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn save(&self) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_string(&self.kept)?);
        private_file::write(&self.path, &text)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.private_key.zeroize();
        self.kem.zeroize();
    }
}

/// Names the invitation without giving its secret away.
fn checksum(invitation: &Invitation) -> String {
    let digest = Sha256::new()
        .chain_update(b"postern pending join")
        .chain_update(invitation.gateway.0)
        .chain_update(invitation.secret.0)
        .finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::invitation::InvitationSecret;
    use postern_proto::keys::PublicKey;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_retry_comes_with_the_same_keys_and_another_invitation_with_others() {
        let folder = std::env::temp_dir().join(format!("postern-pending-{}", std::process::id()));
        let invitation = |secret| Invitation {
            endpoints: vec!["gw.example.com:51820".parse().expect("an endpoint")],
            gateway: PublicKey([3; 32]),
            keys: 8,
            secret: InvitationSecret([secret; 32]),
        };
        let begin = |secret| Pending::begin(&folder, &invitation(secret)).expect("begun");
        let key = |pending: &Pending| pending.private_key().expect("a key").public();
        let mut first = begin(1);
        first.try_place(5).expect("saved");
        let again = begin(1);
        assert_eq!(key(&again), key(&first));
        assert_eq!(again.place(), Some(5));
        let kem = |pending: &Pending| pending.kem().expect("kem").encapsulation_key();
        assert_eq!(kem(&again), kem(&first));
        assert_ne!(key(&begin(2)), key(&first));

        let mode = fs::metadata(&first.path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        first.end().expect("removed");
        assert_eq!(begin(1).place(), None);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
