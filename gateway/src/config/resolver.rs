//! Who says what the names of targets mean.

use std::net::SocketAddr;

/// The most servers.
pub const MAX_SERVERS: usize = 8;

/// Servers for DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// UDP and TCP; the system's if there are none.
    pub servers: Vec<SocketAddr>,
}
