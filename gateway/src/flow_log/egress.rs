//! What targets saw as the source of a flow, filled into its records: the device itself where the
//! gateway routes, the kernel's choice where it masquerades.
//!
//! The kernel is asked when a flow opens: its first packet has been forwarded by then, and two
//! records of the flow say the same.

use crate::config;
use postern_engine::record::{Detail, Egress, Record};
use postern_io::host::Conntrack;
use postern_proto::flow_key::FlowKey;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// Fills the egress into records, and remembers it from the opening to the closing one.
pub struct Egresses {
    source: Source,
    /// By number of flow. Numbers ascend, so the first is about the oldest.
    open: BTreeMap<u64, Egress>,
    /// Most that `open` holds: as many as the flow table. 64 bytes each, so 4 MiB by default.
    flows: usize,
    counts: EgressCounts,
    /// The kernel's last refusal, said once until it answers again.
    refused: bool,
}

/// Opening and closing records, by whether they say what the target saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressCounts {
    /// Those that do.
    pub found: u64,
    /// Those that do not: the kernel could not be asked, or knew no such flow.
    pub missing: u64,
}

/// Who knows it.
enum Source {
    /// Nothing is translated.
    Device,
    /// The kernel translates and tells.
    Kernel(Ask),
    /// The kernel translates and does not tell.
    Unknown,
}

type Ask = Box<dyn FnMut(&[FlowKey]) -> io::Result<Vec<Option<SocketAddr>>> + Send>;

impl Egresses {
    /// Opens the kernel's connection tracker where `mode` needs it. Where it cannot be asked, this
    /// is said once and records have no egress. `flows` is the size of the flow table.
    #[must_use]
    pub fn open(mode: config::Egress, flows: usize) -> Egresses {
        let source = match mode {
            config::Egress::Routed => Source::Device,
            config::Egress::Masquerade => match Conntrack::open() {
                Ok(mut conntrack) => {
                    Source::Kernel(Box::new(move |flows| conntrack.lookup_many(flows)))
                }
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "the kernel's connection tracker cannot be asked: records have no egress_address; \
                         it takes CAP_NET_ADMIN and `modprobe nf_conntrack_netlink`"
                    );
                    Source::Unknown
                }
            },
        };
        Egresses::new(source, flows)
    }

    fn new(source: Source, flows: usize) -> Egresses {
        Egresses {
            source,
            open: BTreeMap::new(),
            flows,
            counts: EgressCounts::default(),
            refused: false,
        }
    }

    /// Fills the egress into opening and closing records, in one question to the kernel for each
    /// kind. A flow that was not found when it opened is looked for again when it closes.
    pub fn fill(&mut self, records: &mut [Record]) {
        self.fill_some(records, |record| matches!(record.detail, Detail::Open(_)));
        for record in &mut *records {
            match &record.detail {
                Detail::Open(_) => self.remember(record),
                Detail::Closed(_) => self.recall(record),
                Detail::Denied(_) => {}
            }
        }
        self.fill_some(records, |record| matches!(record.detail, Detail::Closed(_)));
        for record in records {
            match (&record.detail, record.egress) {
                (Detail::Denied(_), _) => {}
                (_, Some(_)) => self.counts.found += 1,
                (_, None) => self.counts.missing += 1,
            }
        }
    }

    /// For the metrics.
    #[must_use]
    pub fn counts(&self) -> EgressCounts {
        self.counts
    }

    /// Flows that are remembered, at most as many as the flow table holds.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.open.len()
    }

    fn fill_some(&mut self, records: &mut [Record], wanted: impl Fn(&Record) -> bool) {
        let (places, flows): (Vec<&mut Record>, Vec<FlowKey>) = records
            .iter_mut()
            .filter(|record| record.egress.is_none() && wanted(record))
            .filter_map(|record| key(record).map(|key| (record, key)))
            .unzip();
        if flows.is_empty() {
            return;
        }
        for (record, egress) in places.into_iter().zip(self.ask(&flows)) {
            record.egress = egress;
        }
    }

    fn ask(&mut self, flows: &[FlowKey]) -> Vec<Option<Egress>> {
        let ask = match &mut self.source {
            Source::Unknown => return Vec::new(),
            Source::Device => {
                let device = |flow: &FlowKey| egress(flow.client_end().into());
                return flows.iter().map(device).map(Some).collect();
            }
            Source::Kernel(ask) => ask,
        };
        match ask(flows) {
            Ok(found) => {
                self.refused = false;
                found.into_iter().map(|found| found.map(egress)).collect()
            }
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::warn!(%error, "the kernel's connection tracker does not answer: records have no egress_address");
                }
                Vec::new()
            }
        }
    }

    fn remember(&mut self, record: &Record) {
        let (Some(number), Some(egress)) = (number(record), record.egress) else {
            return;
        };
        self.open.insert(number, egress);
        // Only lost closing records can lead here; who is forgotten is asked for again.
        while self.open.len() > self.flows {
            self.open.pop_first();
        }
    }

    fn recall(&mut self, record: &mut Record) {
        if let Some(known) = number(record).and_then(|number| self.open.remove(&number)) {
            record.egress = Some(known);
        }
    }
}

fn egress(seen: SocketAddr) -> Egress {
    Egress {
        address: seen.ip(),
        port: seen.port(),
    }
}

fn number(record: &Record) -> Option<u64> {
    match &record.detail {
        Detail::Open(opened) => Some(opened.flow),
        Detail::Closed(closed) => Some(closed.flow),
        Detail::Denied(_) => None,
    }
}

fn key(record: &Record) -> Option<FlowKey> {
    Some(FlowKey::new(
        record.protocol,
        (record.src_address, record.src_port),
        (record.dst_address?, record.dst_port),
    ))
}

#[cfg(test)]
mod tests;
