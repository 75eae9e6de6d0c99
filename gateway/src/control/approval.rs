//! Devices that wait for an admin's word.

use super::Control;
use crate::api::CutView;
use crate::problem::Problem;
use postern_io::clock::Clock;

impl Control {
    /// Approves a device: from now on policy decides.
    ///
    /// # Errors
    /// There is none of that name that may connect, or it cannot be done now.
    pub async fn approve_device(&self, name: &str) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        self.store.approve_device(name, now).await?;
        self.refresh(name).await
    }

    /// Denies a device, also one that was approved: it reaches nothing, and its flows are cut.
    ///
    /// # Errors
    /// There is none of that name that may connect, or it cannot be done now.
    pub async fn deny_device(&self, name: &str) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        self.store.deny_device(name, now).await?;
        self.refresh(name).await
    }
}
