//! The pure gateway.
#![forbid(unsafe_code)]

pub mod policy;
