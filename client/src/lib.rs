//! The laptop's end of Postern.
//!
//! | module | what it knows |
//! |---|---|
//! | [`state`] | pure: what enters and leaves the tunnel, how the gateway is reached, how keys change |
//! | [`prefixes`] | pure: a set of prefixes that is asked once for each packet |
//! | [`profile`] | the profile file, refused when others can read the key in it |
//! | [`private_file`], [`keeper`] | how secrets get to the disk, and who writes them |
//! | [`owner`] | whose profiles they are, and where |
//! | [`split_tunnel`] | the include list as routes, or why this host cannot have them |
//! | [`instance`] | which tunnels run here: lock, state file, socket |
//! | [`resolve`] | names to addresses, away from the packet path |
//! | [`run`] | `postern up`: set up, turn the one worker, put everything back |
//! | [`agent`] | what a running tunnel says to the gateway by itself: configuration, facts, keys |
//! | [`facts`] | what the device reports about itself |
//! | [`api`], [mod@line] | calls of the control API inside the tunnel |
//! | [`userspace`] | a tunnel for such calls alone: no root, no TUN |
//! | [`join`] | an invitation becomes a profile |
//! | [`login`] | by browser, device code or e-mail |
//! | [`door`] | where a verb finds the gateway: the tunnel that is up, or one of its own |
//! | [`control`] | the verbs of a running tunnel, over a unix socket |
//! | [`report`] | what `status` says |
//! | [`random`] | random bytes |
//! | [`cli`] | the command line |
#![forbid(unsafe_code)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod control;
pub mod door;
pub mod facts;
pub mod instance;
pub mod join;
pub mod keeper;
pub mod line;
pub mod login;
pub mod owner;
pub mod prefixes;
pub mod private_file;
pub mod profile;
pub mod random;
pub mod report;
pub mod resolve;
pub mod run;
pub mod split_tunnel;
pub mod state;
pub mod userspace;
