//! Logins: what an admin can do about them.

use super::Control;
use crate::api::{CutView, LoginView};
use crate::problem::Problem;
use postern_io::clock::Clock;

impl Control {
    /// Logins in force, or past ones too.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sessions(&self, all: bool) -> Result<Vec<LoginView>, Problem> {
        let sessions = self.store.sessions(all).await?.into_iter();
        Ok(sessions.map(LoginView::from).collect())
    }

    /// One login, in force or past.
    ///
    /// # Errors
    /// There is none of that id, or the store failed.
    pub async fn session(&self, id: &str) -> Result<LoginView, Problem> {
        Ok(self.store.session(id).await?.into())
    }

    /// Ends a login: what needs it is cut. One that has ended stays as it was.
    ///
    /// # Errors
    /// There is none of that id, or it cannot be done now.
    pub async fn revoke_session(&self, id: &str) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        let device = self.store.session(id).await?.device;
        self.store.end_session(id, "admin", now).await?;
        // Also when it had ended: the data plane may have been out of reach then.
        self.refresh(&device).await
    }
}
