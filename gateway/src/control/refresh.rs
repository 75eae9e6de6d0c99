//! What the store says of a device comes into force.

use super::Control;
use crate::api::CutView;
use crate::problem::Problem;
use crate::store::Terms;
use postern_io::clock::Clock;

impl Control {
    /// Makes the data plane judge a device by what the store says, and tells its client. What that
    /// ends is cut when this returns. The caller holds `changing`.
    pub(super) async fn refresh(&self, name: &str) -> Result<CutView, Problem> {
        let terms = Terms::of(&self.config.get());
        let now = Clock::now().wall.seconds();
        let record = self.store.record(name, now, &terms).await?;
        let updated = self.workers.update_device(record.clone()).await;
        let cut = updated.map_err(|error| {
            let help = "the change is stored, but flows may live on as before until the gateway \
                        is restarted: restart it now";
            Problem::unable(error.to_string(), help)
        })?;
        self.tell_changed(&record);
        Ok(CutView { flows: cut.flows })
    }
}
