//! The control API, inside the tunnel: what a device may ask of its gateway. Stub.

mod problem;

pub use problem::DeviceProblem;
