//! The gateway's shell: everything around the pure engine.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | gateway.yaml, proved |
//! | [`pool`] | the tunnel's addresses |
//! | [`api`] | the words of the admin API |
//! | [`worker_api`] | what control plane and data worker say to each other |
//! | [`store`] | devices, in SQLite |

pub mod api;
pub mod config;
pub mod flow_log;
pub mod init;
pub mod key_file;
pub mod plane;
pub mod pool;
pub mod store;
pub mod view;
pub mod worker;
pub mod worker_api;

#[cfg(test)]
mod scratch;
