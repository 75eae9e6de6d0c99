//! The gateway's shell: everything around the pure engine.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`], [`live_config`] | gateway.yaml, proved; what of it may change while running |
//! | [`init`], [`key_file`] | a first folder; secrets on disk |
//! | [`pool`] | the tunnel's addresses |
//! | [`store`] | devices, in SQLite |
//! | [`policy_watch`], [`file_stamp`] | the policy in force |
//! | [`plan`] | what another policy would have done to what was recorded |
//! | [`export`] | copies of the log for other systems |
//! | [`flow_log`] | records, off the packet path |
//! | [`run`] | everything started in order, ended in order |
//! | [`plane`], [`worker`], [`front_door`], [`view`] | the data plane |
//! | [`worker_api`], [`workers`] | what the control plane and one thread of the data plane say to each other; and all of them |
//! | [`control`], [`enrol`], [`problem`] | what an admin can do |
//! | [`past`] | what was in force and who stood how, at any moment |
//! | [`device_api`], [`login`] | what a device can ask, inside the tunnel; how its user proves who they are |
//! | [`audit`] | who changed what |
//! | [`api`], [`admin`] | the same over a unix socket |
//! | [`metrics`] | Prometheus and health |
//! | [`profile`] | what a device is given |
//! | [`cli`] | the verbs |
#![forbid(unsafe_code)]

pub mod admin;
pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod device_api;
pub mod enrol;
pub mod export;
pub mod file_stamp;
pub mod flow_log;
pub mod front_door;
mod https;
pub mod init;
pub mod inside;
pub mod key_file;
pub mod live_config;
pub mod login;
pub mod metrics;
pub mod names;
pub mod past;
pub mod plan;
pub mod plane;
pub mod policy_watch;
pub mod pool;
pub mod problem;
pub mod profile;
mod refusals;
pub mod run;
pub mod store;
pub mod view;
pub mod worker;
pub mod worker_api;
pub mod workers;

#[cfg(test)]
mod fake_worker;
#[cfg(test)]
mod scratch;
