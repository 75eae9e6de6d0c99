//! Asks for one name: A and AAAA, by the servers that gateway.yaml names, or else the system's.

use super::table::{Family, Reply};
use crate::config::ResolverConfig;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as Servers, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use std::time::Duration;

/// How long one server has for one question, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Asks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Asker(TokioResolver);

impl Asker {
    /// Reads the system's configuration where gateway.yaml has none.
    ///
    /// # Errors
    /// It cannot be read, in words.
    pub(super) fn new(config: &ResolverConfig) -> Result<Asker, String> {
        let runtime = TokioRuntimeProvider::default();
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder(runtime).map_err(|error| format!("/etc/resolv.conf: {error}"))?
        } else {
            let servers = config.servers.iter().map(|server| {
                let at = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let ways = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                NameServerConfig::new(server.ip(), true, ways)
            });
            let servers = Servers::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(servers, runtime)
        };
        set(builder.options_mut());
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Asker(resolver))
    }

    pub(super) async fn ask(&self, name: &str) -> Reply {
        // Whole: no search list is tried.
        match Name::from_ascii(format!("{name}.")) {
            Ok(whole) => {
                let (v4, v6) = tokio::join!(
                    self.family(whole.clone(), RecordType::A),
                    self.family(whole.clone(), RecordType::AAAA)
                );
                Reply { v4, v6 }
            }
            Err(error) => {
                let failed = || Family::Failed(format!("no name for DNS: {error}"));
                Reply {
                    v4: failed(),
                    v6: failed(),
                }
            }
        }
    }

    async fn family(&self, name: Name, kind: RecordType) -> Family {
        let found = match self.0.lookup(name, kind).await {
            Ok(found) => found,
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                return Family::Nothing;
            }
            Err(error) => return Family::Failed(format!("{kind}: {error}")),
        };
        let mut addresses = Vec::new();
        let mut ttl = u32::MAX;
        for record in found.answers() {
            // Of a chain of names the one that changes first.
            ttl = ttl.min(record.ttl);
            addresses.extend(record.data.ip_addr());
        }
        if addresses.is_empty() {
            return Family::Nothing;
        }
        Family::Found(addresses, Duration::from_secs(ttl.into()))
    }
}

/// The table keeps what was answered, and for how long; nothing else does, and no file of the
/// host stands above the answer.
fn set(options: &mut ResolverOpts) {
    options.timeout = PATIENCE;
    options.attempts = ATTEMPTS;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.try_tcp_on_error = true;
}

#[cfg(test)]
mod tests;
