//! What the store says of a device comes into force.

use super::Control;
use super::device::unavailable;
use crate::api::CutView;
use crate::device_api::DeviceProblem;
use crate::problem::Problem;
use crate::store::{StoreError, Terms};
use crate::worker_api::{Cut, DeviceRecord, WorkerError};
use postern_io::clock::Clock;
use postern_proto::control::Message;

/// The data plane judges by what it knew before.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotInForce {
    /// The store does not say how the device stands.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker does not say that it knows.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Control {
    /// The device's record with its standing, as the store has it now.
    pub(super) async fn as_it_stands(&self, name: &str) -> Result<DeviceRecord, StoreError> {
        let terms = Terms::of(&self.config.get());
        let now = Clock::now().wall.seconds();
        self.store.record(name, now, &terms).await
    }

    /// Makes the data plane judge a device by what the store says. What that ends is cut when this
    /// returns. The caller holds [`Control::changing`](super::Control). A revoked device has no
    /// place there, and stands no way at all from then on.
    pub(super) async fn put_in_force(&self, name: &str) -> Result<(DeviceRecord, Cut), NotInForce> {
        let record = self.as_it_stands(name).await?;
        if self.store.device(name).await?.revoked.is_some() {
            return Ok((record, Cut::default()));
        }
        let noted = self.store.noted(record, Clock::now().wall).await?;
        let record = noted.record().clone();
        let cut = self.workers.update_device(noted).await?;
        Ok((record, cut))
    }

    /// The same for an admin, and the client is told.
    pub(super) async fn refresh(&self, name: &str) -> Result<CutView, Problem> {
        let (record, cut) = self.put_in_force(name).await?;
        self.tell_changed(&record);
        Ok(CutView { flows: cut.flows })
    }

    /// Tells the device's client, if one listens, to look again.
    pub(super) fn tell_changed(&self, record: &DeviceRecord) {
        if let Err(error) = self.workers.tell(record, Message::Changed) {
            // It asks by itself, a little later.
            tracing::debug!(%error, device = record.name, "a client is not told of a change");
        }
    }
}

impl From<NotInForce> for Problem {
    fn from(error: NotInForce) -> Problem {
        match error {
            NotInForce::Store(error) => error.into(),
            NotInForce::Worker(error) => {
                let help = "the change is stored, but flows may live on as before until the \
                            gateway is restarted: restart it now";
                Problem::unable(error.to_string(), help)
            }
        }
    }
}

impl From<NotInForce> for DeviceProblem {
    fn from(error: NotInForce) -> DeviceProblem {
        match error {
            NotInForce::Store(error) => error.into(),
            NotInForce::Worker(error) => unavailable(&error),
        }
    }
}
