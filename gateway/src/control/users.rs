//! People: what an admin can do about them.

use super::Control;
use crate::api::{CutView, UserView};
use crate::problem::Problem;
use postern_io::clock::Clock;

impl Control {
    /// Every user.
    ///
    /// # Errors
    /// The store failed.
    pub async fn users(&self) -> Result<Vec<UserView>, Problem> {
        let users = self.store.users().await?.into_iter();
        Ok(users.map(UserView::from).collect())
    }

    /// One user.
    ///
    /// # Errors
    /// There is none of that name, or the store failed.
    pub async fn user(&self, name: &str) -> Result<UserView, Problem> {
        Ok(self.store.user(name).await?.into())
    }

    /// Takes everything from a user: none of their devices reaches anything, live flows are cut.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be done now.
    pub async fn disable_user(&self, name: &str) -> Result<CutView, Problem> {
        self.set_user(name, true).await
    }

    /// Gives it back.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be done now.
    pub async fn enable_user(&self, name: &str) -> Result<CutView, Problem> {
        self.set_user(name, false).await
    }

    async fn set_user(&self, name: &str, disabled: bool) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        let user = self.store.set_user_disabled(name, disabled, now).await?;
        let mut all = CutView { flows: 0 };
        let mut failed = None;
        // One worker that gives no answer saves no device of another.
        for device in self.store.devices_of(&user.name).await? {
            match self.refresh(&device.record.name).await {
                Ok(cut) => all.flows += cut.flows,
                Err(problem) => failed = Some(problem),
            }
        }
        failed.map_or(Ok(all), Err)
    }
}
