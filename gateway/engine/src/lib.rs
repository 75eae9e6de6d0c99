//! The pure gateway: who, which flow, may it, what is remembered, what is written down.
//!
//! One packet from a laptop passes the modules in this order:
//!
//! 1. `proto::peers` decrypts it: which peer is this, is it a replay, is the key young enough;
//! 2. `proto::packet` proves its structure;
//! 3. [`identity`]: whose device is that, how does it stand ([`standing`]), and is the inner source
//!    its own address;
//! 4. [`flow`]: a known flow, judged under the facts in force, goes on at once;
//! 5. [`policy`]: anything else is judged, by the device's [`posture`] too; [`gateway`] remembers the
//!    verdict;
//! 6. [`hint`]: what its first bytes say of its protocol is noticed, and changes nothing;
//! 7. [`record`]: what was decided is written down, [`denials`] keeps a scan from flooding the log;
//! 8. the packet is forwarded, or answered at once.
//!
//! There is no second road. A packet from a target needs a flow that a device opened.
//!
//! Nothing here reads a clock, a socket or a file: the same steps give the same bytes.
#![forbid(unsafe_code)]

pub mod counters;
pub mod denials;
pub mod duration;
pub mod flow;
pub mod gateway;
pub mod hint;
pub mod identity;
pub mod policy;
pub mod posture;
pub mod rate;
pub mod record;
pub mod rule_counts;
pub mod settings;
pub mod standing;
pub mod words;
