//! Names to addresses, away from the packet path: a look-up can take half a minute.

use postern_io::poll::Waker;
use postern_proto::profile::HostPort;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A thread that looks up the gateway's endpoints when asked.
#[derive(Debug)]
pub struct Resolver {
    ask: SyncSender<()>,
    /// One result for each question that was taken up.
    pub results: Receiver<Resolved>,
}

/// What a look-up brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Every address, in the order in which to try.
    pub endpoints: Vec<SocketAddr>,
    /// What could not be looked up, and why.
    pub failures: Vec<String>,
}

impl Resolver {
    /// Starts the thread; `waker` is woken for each result.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(endpoints: Vec<HostPort>, waker: Waker) -> io::Result<Resolver> {
        let (ask, asked) = sync_channel(1);
        let (sender, results) = sync_channel(1);
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                for () in asked {
                    if sender.send(resolve(&endpoints)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        Ok(Resolver { ask, results })
    }

    /// Asks for a look-up. One that is under way is enough.
    pub fn ask(&self) {
        let _ = self.ask.try_send(());
    }
}

/// Those that are addresses already.
#[must_use]
pub fn literals(endpoints: &[HostPort]) -> Vec<SocketAddr> {
    endpoints
        .iter()
        .filter_map(|endpoint| Some(SocketAddr::new(endpoint.host.parse().ok()?, endpoint.port)))
        .collect()
}

/// The gateway's new list. The endpoint that `answered` last stays on it as the last entry until
/// it is one of those that the new list was `looked_up` to: a typo must not lock a device out.
#[must_use]
pub fn with_proven(
    mut list: Vec<HostPort>,
    answered: SocketAddr,
    looked_up: &[SocketAddr],
) -> Vec<HostPort> {
    if !looked_up.contains(&answered) && !literals(&list).contains(&answered) {
        list.push(HostPort {
            host: answered.ip().to_string(),
            port: answered.port(),
        });
    }
    list
}

/// Looks them all up; it can take half a minute.
#[must_use]
pub fn resolve(endpoints: &[HostPort]) -> Resolved {
    let mut resolved = Resolved {
        endpoints: Vec::new(),
        failures: Vec::new(),
    };
    for endpoint in endpoints {
        match (endpoint.host.as_str(), endpoint.port).to_socket_addrs() {
            Ok(addresses) => {
                for address in addresses {
                    if !resolved.endpoints.contains(&address) {
                        resolved.endpoints.push(address);
                    }
                }
            }
            Err(error) => resolved
                .failures
                .push(format!("{}: {error}", endpoint.host)),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_that_answers_stays_until_a_new_one_has_answered() {
        let answered: SocketAddr = "[2001:db8::1]:51820".parse().expect("an address");
        let moved: SocketAddr = "203.0.113.9:51820".parse().expect("an address");
        let list = |texts: &[&str]| -> Vec<HostPort> {
            let parse = |text: &&str| text.parse().expect("an endpoint");
            texts.iter().map(parse).collect()
        };
        let typo = list(&["gw.exmaple.com:51820"]);
        let kept = list(&["gw.exmaple.com:51820", "[2001:db8::1]:51820"]);
        assert_eq!(with_proven(typo.clone(), answered, &[]), kept);
        assert_eq!(with_proven(typo.clone(), answered, &[moved]), kept);
        // It answers at one that the new list leads to, or names.
        assert_eq!(with_proven(typo.clone(), moved, &[moved]), typo);
        let named = list(&["203.0.113.9:51820"]);
        assert_eq!(with_proven(named.clone(), moved, &[]), named);
    }

    #[test]
    fn addresses_need_no_look_up_and_come_once_in_order() {
        let list = [
            "203.0.113.5:51820",
            "[2001:db8::1]:51820",
            "203.0.113.5:51820",
        ]
        .map(|text| text.parse().expect("an endpoint"));
        let waker = Waker::new().expect("an eventfd");
        let resolver = Resolver::start(list.to_vec(), waker).expect("a thread");
        resolver.ask();
        let resolved = resolver.results.recv().expect("a result");
        assert_eq!(resolved.failures, Vec::<String>::new());
        assert_eq!(
            literals(&list),
            [
                resolved.endpoints[0],
                resolved.endpoints[1],
                resolved.endpoints[0]
            ]
        );
        let texts: Vec<String> = resolved.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["203.0.113.5:51820", "[2001:db8::1]:51820"]);
    }
}
