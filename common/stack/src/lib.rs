//! TCP inside the tunnel without a kernel.
//!
//! | module | what it knows |
//! |---|---|
//! | [`Stack`] | pure: packets and time in, packets out; connections bound to the key that decrypted them |
//! | [`limits`] | what it holds at most |
//! | [`driver`] | the same on tokio: connections as async streams |
#![forbid(unsafe_code)]

mod connection;
mod counters;
mod device;
pub mod driver;
pub mod limits;
mod stack;

pub use connection::Broken;
pub use counters::Counters;
pub use limits::Limits;
pub use stack::{CannotConnect, Config, Id, Remote, Stack};
