//! The laptop's end of Postern.
//!
//! | module | what it knows |
//! |---|---|
//! | [`state`] | pure: what enters and leaves the tunnel, how the gateway is reached |
//! | [`prefixes`] | pure: a set of prefixes that is asked once for each packet |
//! | [`profile`] | the profile file, refused when others can read the key in it |
//! | [`split_tunnel`] | the include list as routes, or why this host cannot have them |
//! | [`instance`] | which tunnels run here: lock, state file, socket |
//! | [`resolve`] | names to addresses, away from the packet path |
//! | [`run`] | `postern up`: set up, turn the one worker, put everything back |
//! | [`control`] | `status` and `down` over a unix socket |
//! | [`report`] | what `status` says |
//! | [`cli`] | the command line |
#![forbid(unsafe_code)]

pub mod cli;
pub mod control;
pub mod instance;
pub mod prefixes;
pub mod profile;
pub mod report;
pub mod resolve;
pub mod run;
pub mod split_tunnel;
pub mod state;
