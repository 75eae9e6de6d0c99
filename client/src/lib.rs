//! The laptop's end of Postern.
//!
//! | module | what it knows |
//! |---|---|
//! | [`state`] | pure: what enters and leaves the tunnel, how the gateway is reached |
//! | [`prefixes`] | pure: a set of prefixes that is asked once for each packet |
#![forbid(unsafe_code)]

pub mod prefixes;
pub mod state;
