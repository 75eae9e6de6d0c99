//! Who did most of it.

use super::fields::Fields;
use super::filter::Filter;
use super::scan::{Report, Segments, Unreadable};
use super::words::{By, Kind, Of, State};
use std::collections::HashMap;
use std::fmt::Write;

/// Different keys that one thread adds up apart; more are added up together. At 200 bytes for each:
/// 20 MiB a thread.
pub const MAX_KEYS: usize = 100_000;

/// What was added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Flows opened and refusals.
    pub attempts: u64,
    /// Refusals.
    pub denials: u64,
    /// Of closed flows, device to target.
    pub bytes_out: u64,
    /// Of closed flows, target to device.
    pub bytes_in: u64,
    /// Of closed flows, device to target.
    pub packets_out: u64,
    /// Of closed flows, target to device.
    pub packets_in: u64,
}

/// One key's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// The user, device, ...; none for records that name none.
    pub key: Option<String>,
    /// Its share.
    pub sums: Sums,
}

/// The largest shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// The largest first; equal ones by name. Keys with nothing of what counts are left out.
    pub rows: Vec<TopRow>,
    /// Keys that are not in `rows`.
    pub hidden: usize,
    /// Their share.
    pub hidden_sums: Sums,
    /// Everything.
    pub total: Sums,
    /// The share of records that could not be told apart, because there are more than
    /// [`MAX_KEYS`]. If it is not empty, the shares of keys are at least what they say.
    pub other: Sums,
    /// How the scan went.
    pub report: Report,
}

/// Adds up what `filter` selects, and returns the `limit` largest shares.
///
/// # Errors
/// A segment cannot be read.
pub fn top(
    segments: &Segments,
    filter: &Filter,
    by: By,
    of: Of,
    limit: usize,
) -> Result<Top, Unreadable> {
    let filter = Filter {
        kind: filter.kind.or(Some(Kind::Flow)),
        ..filter.clone()
    };
    let (tallies, report) = segments.fold(&filter, |tally: &mut Tally, fields| {
        tally.add(of, fields);
    })?;
    let mut all = Tally::default();
    for tally in tallies {
        all.merge(tally);
    }
    let mut top = Top {
        total: all.other,
        other: all.other,
        report,
        ..Top::default()
    };
    let mut rows: Vec<TopRow> = all
        .keys
        .into_iter()
        .map(|(key, sums)| TopRow {
            key: (!key.is_empty()).then_some(key),
            sums,
        })
        .collect();
    for row in &rows {
        top.total.add(&row.sums);
    }
    rows.retain(|row| row.sums.of(by) > 0);
    rows.sort_by(|a, b| b.sums.of(by).cmp(&a.sums.of(by)).then(a.key.cmp(&b.key)));
    for row in rows.drain(limit.min(rows.len())..) {
        top.hidden += 1;
        top.hidden_sums.add(&row.sums);
    }
    top.rows = rows;
    Ok(top)
}

impl Sums {
    /// The one that counts.
    #[must_use]
    pub fn of(&self, by: By) -> u64 {
        match by {
            By::Bytes => self.bytes_out.saturating_add(self.bytes_in),
            By::Packets => self.packets_out.saturating_add(self.packets_in),
            By::Flows => self.attempts,
            By::Denials => self.denials,
        }
    }

    fn add(&mut self, other: &Sums) {
        for (to, from) in [
            (&mut self.attempts, other.attempts),
            (&mut self.denials, other.denials),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.packets_out, other.packets_out),
            (&mut self.packets_in, other.packets_in),
        ] {
            *to = to.saturating_add(from);
        }
    }

    fn record(fields: &Fields<'_>) -> Sums {
        let denied = fields.state.as_deref() == Some(State::Denied.as_str());
        Sums {
            attempts: fields.attempts(),
            denials: if denied { fields.count } else { 0 },
            bytes_out: fields.bytes_out,
            bytes_in: fields.bytes_in,
            packets_out: fields.packets_out,
            packets_in: fields.packets_in,
        }
    }
}

/// The sums of one thread.
#[derive(Debug, Default)]
struct Tally {
    keys: HashMap<String, Sums>,
    other: Sums,
    /// Room for a key that is put together.
    scratch: String,
}

impl Tally {
    fn add(&mut self, of: Of, fields: &Fields<'_>) {
        let key = match of {
            Of::User => fields.user.as_deref(),
            Of::Device => fields.device.as_deref(),
            Of::Target => fields.target.as_deref(),
            Of::Rule => fields.rule.as_deref(),
            Of::Destination => {
                self.scratch.clear();
                destination(fields, &mut self.scratch);
                Some(self.scratch.as_str())
            }
        };
        let sums = Sums::record(fields);
        place(
            &mut self.keys,
            &mut self.other,
            key.unwrap_or_default(),
            &sums,
        );
    }

    fn merge(&mut self, other: Tally) {
        self.other.add(&other.other);
        // In an order of its own, so that the same keys find room each time.
        let mut keys: Vec<_> = other.keys.into_iter().collect();
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, sums) in keys {
            place(&mut self.keys, &mut self.other, &key, &sums);
        }
    }
}

fn place(keys: &mut HashMap<String, Sums>, other: &mut Sums, key: &str, sums: &Sums) {
    if let Some(known) = keys.get_mut(key) {
        known.add(sums);
    } else if keys.len() < MAX_KEYS {
        keys.insert(key.to_owned(), *sums);
    } else {
        other.add(sums);
    }
}

/// `192.0.2.10:22/tcp`; `*` for a scan of many addresses.
pub(super) fn destination(fields: &Fields<'_>, to: &mut String) {
    let address = fields.dst_address.as_deref().unwrap_or("*");
    let protocol = fields.protocol.as_deref().unwrap_or("?");
    // Writing to a text cannot fail.
    let _ = if address.contains(':') {
        write!(to, "[{address}]:{}/{protocol}", fields.dst_port)
    } else {
        write!(to, "{address}:{}/{protocol}", fields.dst_port)
    };
}
