//! The names of the Linux implementation, for operating systems that are not supported yet.

/// Findings about the host.
pub mod check {
    use crate::host::gateway::GatewayHostConfig;

    /// How bad a finding is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Severity {
        /// Works, and worth knowing.
        Note,
        /// Works for some traffic, or badly.
        Warning,
        /// Will not work.
        Error,
    }

    /// Something about the host, and what to do about it.
    #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
    pub struct Finding {
        /// How bad it is.
        pub severity: Severity,
        /// What was found.
        pub what: String,
        /// What to do.
        pub remedy: String,
    }

    impl std::fmt::Display for Finding {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}; {}", self.what, self.remedy)
        }
    }

    /// Says that the gateway is not supported here yet.
    #[must_use]
    pub fn check(_config: &GatewayHostConfig, _udp_port: Option<u16>) -> Vec<Finding> {
        vec![Finding {
            severity: Severity::Error,
            what: crate::host::HostError::NotSupported("the gateway").to_string(),
            remedy: "run it on Linux".to_owned(),
        }]
    }
}

/// Connection tracking.
pub mod conntrack {
    use postern_proto::flow_key::FlowKey;
    use std::io;
    use std::net::SocketAddr;

    /// A question to the connection tracker; never here.
    #[derive(Debug)]
    pub enum Conntrack {}

    impl Conntrack {
        /// # Errors
        /// Always.
        pub fn open() -> io::Result<Conntrack> {
            Err(io::ErrorKind::Unsupported.into())
        }
        /// # Errors
        /// Never reached.
        pub fn lookup(&mut self, _flow: FlowKey) -> io::Result<Option<SocketAddr>> {
            match *self {}
        }
        /// # Errors
        /// Never reached.
        pub fn lookup_many(&mut self, _flows: &[FlowKey]) -> io::Result<Vec<Option<SocketAddr>>> {
            match *self {}
        }
    }
}

/// A gateway's set-up.
pub mod gateway {
    use crate::host::HostError;
    use std::path::{Path, PathBuf};

    /// How allowed packets leave towards the targets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Egress {
        /// With the gateway's address.
        Masquerade,
        /// With the device's own address.
        Routed,
    }

    /// What a gateway needs from its host.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GatewayHostConfig {
        /// The TUN's name.
        pub interface: String,
        /// Where devices get their IPv4 addresses from.
        pub pool_v4: Option<ipnet::Ipv4Net>,
        /// Where devices get their IPv6 addresses from.
        pub pool_v6: Option<ipnet::Ipv6Net>,
        /// NAT or not.
        pub egress: Egress,
        /// Where to write down what stood before.
        pub state_file: PathBuf,
    }

    /// The host, set up; never here.
    #[derive(Debug)]
    pub enum GatewayHost {}

    impl GatewayHost {
        /// # Errors
        /// Always.
        pub fn set_up(_config: &GatewayHostConfig) -> Result<GatewayHost, HostError> {
            Err(HostError::NotSupported("the gateway"))
        }
        /// # Errors
        /// Never reached.
        pub fn tear_down(self) -> Result<(), HostError> {
            match self {}
        }
        /// Never reached.
        pub fn leave(self) {
            match self {}
        }
        /// # Errors
        /// Never.
        pub fn clean_up(_state_file: &Path) -> Result<bool, HostError> {
            Ok(false)
        }
    }
}

/// Capabilities.
pub mod privileges {
    /// Linux has capabilities; others are asked when they refuse.
    #[must_use]
    pub fn has_net_admin() -> bool {
        true
    }
    /// # Errors
    /// Always.
    pub fn drop_privileges() -> Result<(), crate::host::HostError> {
        Err(crate::host::HostError::NotSupported("dropping privileges"))
    }
}

/// Routes.
pub mod routes {
    use crate::host::HostError;
    use ipnet::IpNet;
    use std::net::{IpAddr, SocketAddr};

    /// One route of the main table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HostRoute {
        /// Where it leads.
        pub prefix: IpNet,
        /// The next hop.
        pub gateway: Option<IpAddr>,
        /// The interface.
        pub interface: Option<String>,
        /// Lower wins among equal prefixes.
        pub metric: u32,
    }

    /// One of the host's own addresses.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HostAddress {
        /// The address.
        pub address: IpAddr,
        /// Its interface.
        pub interface: String,
    }

    /// How the host reaches an endpoint now.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HostPath {
        /// The address that the kernel would send from.
        pub source: IpAddr,
        /// The interface that owns it.
        pub interface: Option<String>,
        /// The next hop.
        pub gateway: Option<IpAddr>,
    }

    /// # Errors
    /// Always.
    pub fn routes() -> Result<Vec<HostRoute>, HostError> {
        Err(HostError::NotSupported("listing routes"))
    }
    /// # Errors
    /// Always.
    pub fn addresses() -> Result<Vec<HostAddress>, HostError> {
        Err(HostError::NotSupported("listing addresses"))
    }
    /// # Errors
    /// Always.
    pub fn add_route(_prefix: IpNet, _interface: &str) -> Result<(), HostError> {
        Err(HostError::NotSupported("adding a route"))
    }
    /// # Errors
    /// Always.
    pub fn delete_route(_prefix: IpNet, _interface: &str) -> Result<(), HostError> {
        Err(HostError::NotSupported("deleting a route"))
    }
    /// # Errors
    /// Always.
    pub fn interface_exists(_name: &str) -> Result<bool, HostError> {
        Err(HostError::NotSupported("looking for an interface"))
    }
    /// # Errors
    /// Always.
    pub fn path_to(_remote: SocketAddr) -> Result<HostPath, HostError> {
        Err(HostError::NotSupported("looking up a route"))
    }
    /// # Errors
    /// Always.
    pub fn watch_routes(
        _except: String,
        _changed: impl FnMut() + Send + 'static,
    ) -> Result<(), HostError> {
        Err(HostError::NotSupported("watching routes"))
    }
}
