//! Why `postern up` ended, and whose turn it is.

use crate::instance::InstanceError;
use crate::profile::ProfileError;
use crate::split_tunnel::Clash;
use postern_io::host::HostError;
use postern_io::tun::TunError;
use postern_io::udp::UdpError;
use std::io;

/// Why a tunnel did not come up, or ended.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The name, the folder, or one that runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The include list does not fit this host.
    #[error("this profile does not fit this host:{}", lines(.0))]
    Clash(Vec<Clash>),
    /// The gateway's key is the device's own.
    #[error("gateway.public_key is the device's own: write the gateway's")]
    OwnKey,
    /// The process may not change the network.
    #[error(
        "postern up needs CAP_NET_ADMIN: run it with sudo, or `setcap cap_net_admin+ep` the binary"
    )]
    NotPermitted,
    /// The host refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No interface.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// No sockets.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The interface is gone.
    #[error("the interface {0} was removed; everything else was put back")]
    InterfaceGone(String),
    /// Anything else.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl UpError {
    /// Whether the user has to change something that he wrote, as opposed to something that
    /// failed: exit code 2, not 1.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            UpError::Profile(ProfileError::Unreadable { .. }) => false,
            UpError::Profile(_) | UpError::Clash(_) | UpError::OwnKey => true,
            UpError::Instance(InstanceError::Name(_)) => true,
            UpError::Host(HostError::InterfaceName(_)) | UpError::Tun(TunError::BadName(_)) => true,
            UpError::Instance(_)
            | UpError::NotPermitted
            | UpError::Host(_)
            | UpError::Tun(_)
            | UpError::Udp(_)
            | UpError::InterfaceGone(_)
            | UpError::Io { .. } => false,
        }
    }
}

pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |source| UpError::Io { doing, source }
}

fn lines(clashes: &[Clash]) -> String {
    clashes.iter().map(|clash| format!("\n  {clash}")).collect()
}
