//! Whose key it is.

use super::Control;
use crate::device_api::DeviceProblem;
use postern_proto::keys::PublicKey;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Whoever holds an invitation.
    Guest {
        /// Which.
        invitation: String,
    },
    /// An enrolled device.
    Device {
        /// Its name.
        name: String,
    },
}

impl Control {
    /// Whose key this is; none for nobody's.
    ///
    /// # Errors
    /// The store failed.
    pub async fn who_is(&self, key: &PublicKey) -> Result<Option<Asker>, DeviceProblem> {
        if let Some(device) = self.store.device_by_key(key).await? {
            return Ok(device.revoked.is_none().then_some(Asker::Device {
                name: device.record.name,
            }));
        }
        let invitation = self.store.invitation_of(key).await?;
        Ok(invitation.map(|found| Asker::Guest {
            invitation: found.id,
        }))
    }
}
