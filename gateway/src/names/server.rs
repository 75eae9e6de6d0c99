//! A server for DNS that knows what a test tells it.

use crate::config::ResolverConfig;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Ends when dropped.
pub(crate) struct Server {
    at: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<Record>>,
    refuse: bool,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let at = socket.local_addr().expect("bound");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let known = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..size]) else {
                    continue;
                };
                let answer = known
                    .lock()
                    .expect("no test panics with it")
                    .answer(question);
                let _ = socket
                    .send_to(&answer.to_vec().expect("encodes"), from)
                    .await;
            }
        });
        Server { at, zone, task }
    }

    pub(crate) fn config(&self) -> ResolverConfig {
        ResolverConfig {
            servers: vec![self.at],
        }
    }

    /// Addresses of one family, in place of those before.
    pub(crate) fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|one| one.parse().expect("address"))
            .collect();
        let v4 = addresses.iter().all(IpAddr::is_ipv4);
        let mut zone = self.zone();
        let records = zone.records.entry(name.to_owned()).or_default();
        records.retain(|record| record.data.ip_addr().is_some_and(|one| one.is_ipv4() != v4));
        records.extend(addresses.into_iter().map(|address| {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            };
            Record::from_rdata(Name::from_ascii(name).expect("name"), ttl, data)
        }));
    }

    pub(crate) fn alias(&self, name: &str, ttl: u32, to: &str) {
        let data = RData::CNAME(CNAME(Name::from_ascii(to).expect("name")));
        let record = Record::from_rdata(Name::from_ascii(name).expect("name"), ttl, data);
        self.zone().records.insert(name.to_owned(), vec![record]);
    }

    /// Whether it answers nobody.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.zone().refuse = refuse;
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no test panics with it")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Zone {
    fn answer(&self, mut message: Message) -> Message {
        message.metadata.message_type = MessageType::Response;
        message.edns = None;
        if self.refuse {
            message.metadata.response_code = ResponseCode::Refused;
            return message;
        }
        let question = message.queries[0].clone();
        let mut name = question.name().to_ascii().to_lowercase();
        let mut known = false;
        while let Some(records) = self.records.get(&name) {
            known = true;
            let Some(RData::CNAME(to)) = records.first().map(|record| &record.data) else {
                let kind = question.query_type();
                let fit = records.iter().filter(|record| record.record_type() == kind);
                message.add_answers(fit.cloned());
                break;
            };
            message.add_answer(records[0].clone());
            name = to.0.to_ascii();
        }
        if !known {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        message
    }
}
