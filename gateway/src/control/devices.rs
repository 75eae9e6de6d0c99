//! Devices: what an admin can do about them.

use super::Control;
use crate::api::{CutView, DeviceAdded, DeviceView, NewDevice};
use crate::enrol::{enrol, view};
use crate::problem::Problem;
use crate::store::{Device, Terms};
use crate::worker_api::{DeviceRecord, RemoveReason};
use postern_io::clock::Clock;
use postern_proto::device_api::SessionView;
use postern_proto::now::Wall;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

impl Control {
    /// Enrols a device: stored first, then accepted by the worker.
    ///
    /// # Errors
    /// Nothing was changed, or the words say what was.
    pub async fn add_device(&self, new: &NewDevice) -> Result<DeviceAdded, Problem> {
        let _alone = self.changing.lock().await;
        let (config, policy) = (self.config.get(), self.policy.current());
        let (_, added) = enrol(&self.store, &config, &policy, self.public_key, new).await?;
        let terms = Terms::of(&config);
        let now = Clock::now().wall;
        // How it stands counts from the first packet: its user may be disabled.
        let record = self.store.record(&new.name, now.seconds(), &terms).await?;
        let noted = self.store.noted(record, now).await?;
        match self.workers.add_device(noted).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                self.store.forget_new_device(&new.name).await?;
                self.store.end_facts(&new.name, Clock::now().wall).await?;
                return Err(Problem::refused(reason, "nothing was stored"));
            }
            Err(error) => {
                let help = "the device is stored and will be accepted at the next start";
                return Err(Problem::unable(error.to_string(), help));
            }
        }
        self.devices.fetch_add(1, Ordering::Relaxed);
        Ok(added)
    }

    /// Every device, revoked ones included.
    ///
    /// # Errors
    /// The store failed.
    pub async fn devices(&self) -> Result<Vec<DeviceView>, Problem> {
        let terms = Terms::of(&self.config.get());
        let now = Clock::now().wall.seconds();
        let records = self.store.active_devices(now, &terms).await?;
        let mut records: HashMap<_, _> = records
            .into_iter()
            .map(|record| (record.name.clone(), record))
            .collect();
        let devices = self.store.devices().await?;
        let views = devices.iter().map(|device| {
            let record = records.remove(&device.record.name);
            self.whole_view(device, record)
        });
        Ok(views.collect())
    }

    /// One device.
    ///
    /// # Errors
    /// There is none of that name, or the store failed.
    pub async fn device(&self, name: &str) -> Result<DeviceView, Problem> {
        let device = self.store.device(name).await?;
        let terms = Terms::of(&self.config.get());
        let now = Clock::now().wall.seconds();
        let record = self.store.record(name, now, &terms).await?;
        let mut view = self.whole_view(&device, Some(record));
        let attributes = self.store.attributes(name, now).await?.into_iter();
        view.attributes = attributes.map(Into::into).collect();
        Ok(view)
    }

    /// With the login in force and the posture checks of the policy in force.
    fn whole_view(&self, device: &Device, record: Option<DeviceRecord>) -> DeviceView {
        let mut view = view(device);
        let Some(record) = record else { return view };
        view.posture = self.checks_of(&record.standing);
        view.groups = record.groups;
        view.session = record.standing.session.map(|session| SessionView {
            id: session.id.to_string(),
            method: session.method.to_string(),
            issuer: session.issuer.map(|issuer| issuer.to_string()),
            since: session.since.seconds(),
            until: session.until.map(Wall::seconds),
        });
        view
    }

    /// Revokes a device for ever: stored first, then its flows are cut. A key that was to come
    /// never does.
    ///
    /// # Errors
    /// There is none of that name, the store failed, or the worker gave no answer.
    pub async fn revoke_device(&self, name: &str) -> Result<CutView, Problem> {
        let _alone = self.changing.lock().await;
        let next = self.store.device(name).await?.next_key;
        let device = self
            .store
            .revoke_device(name, Clock::now().wall.seconds())
            .await?;
        if let Err(error) = self.store.end_facts(name, Clock::now().wall).await {
            // The next start ends them.
            tracing::warn!(%error, device = name, "the facts of a revoked device do not end");
        }
        if let Some(inside) = &self.inside {
            inside.cut(&device.record.key);
        }
        let cut = self
            .workers
            .remove_device(&device.record, RemoveReason::Revoked)
            .await;
        if let Some(next) = next {
            // The worker forgets it with the device; here the front door does.
            self.workers.strike(next).await?;
        }
        let cut = cut.map_err(|error| {
            let help = "the device is revoked in the store, but its flows may live until the \
                        gateway is restarted: restart it now";
            Problem::unable(error.to_string(), help)
        })?;
        self.devices
            .store(self.store.count_active().await?, Ordering::Relaxed);
        Ok(CutView { flows: cut.flows })
    }
}
