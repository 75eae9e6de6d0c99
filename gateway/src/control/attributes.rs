//! What admins, and programs of theirs, say of devices.

use super::Control;
use crate::api::{CutView, SetAttribute};
use crate::problem::Problem;
use crate::store::StoredAttribute;
use postern_io::clock::Clock;

impl Control {
    /// Says something of a device. Flows that a posture check now forbids are cut.
    ///
    /// # Errors
    /// The words are odd, there is no such device, or it cannot be done now.
    pub async fn set_attribute(
        &self,
        device: &str,
        attribute: &str,
        set: &SetAttribute,
        set_by: &str,
    ) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        let stored = StoredAttribute {
            name: attribute.to_owned(),
            value: set.value.clone(),
            until: set.expires_in.map(|seconds| now.saturating_add(seconds)),
            set_by: set_by.to_owned(),
        };
        self.store.set_attribute(device, &stored).await?;
        self.refresh(device).await
    }

    /// Takes it back.
    ///
    /// # Errors
    /// There is no such device or attribute, or it cannot be done now.
    pub async fn unset_attribute(&self, device: &str, attribute: &str) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        self.store.device(device).await?;
        self.store.unset_attribute(device, attribute).await?;
        self.refresh(device).await
    }
}
