//! What admins call devices.

use super::Control;
use crate::api::{ChangeLabels, CutView};
use crate::problem::Problem;

impl Control {
    /// Changes the labels of a device. Flows that are for others then are cut.
    ///
    /// # Errors
    /// The words are odd, there is no such device or label, or it cannot be done now.
    pub async fn change_labels(
        &self,
        device: &str,
        wanted: &ChangeLabels,
    ) -> Result<CutView, Problem> {
        if wanted.set.is_empty() && wanted.unset.is_empty() {
            return Err(Problem::refused(
                "no label is named",
                "write KEY=VALUE to set, KEY to unset",
            ));
        }
        let _alone = self.changing.lock().await;
        self.store
            .change_labels(device, &wanted.set, &wanted.unset)
            .await?;
        self.refresh(device).await
    }
}
