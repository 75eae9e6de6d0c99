//! Which records, and where they are.

use super::{Failure, Where};
use crate::api::{Destination, FlowFilter, FlowView};
use clap::Args;
use postern_io::clock::Clock;
use postern_spool::query::{self, Filter, Kind, Report, Segments, State, To, Verdict};
use std::path::PathBuf;
use std::str::FromStr;

/// Records that match all of it.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Select {
    /// Of this user.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Of this device.
    #[arg(long)]
    pub(super) device: Option<String>,
    /// To this destination: ADDRESS, RANGE, ADDRESS:PORT[/PROTOCOL], or the policy's name for it.
    #[arg(long, value_name = "DESTINATION")]
    pub(super) to: Option<Place>,
    /// Decided by this rule.
    #[arg(long)]
    pub(super) rule: Option<String>,
    /// `allow` or `deny`.
    #[arg(long)]
    pub(super) verdict: Option<Verdict>,
    /// `open`, `closed` or `denied`.
    #[arg(long)]
    pub(super) state: Option<State>,
    /// How the flow ended, such as `fin`, `idle`, `policy`, `killed`.
    #[arg(long, value_name = "REASON")]
    pub(super) close_reason: Option<String>,
    /// What the record is about: `flow`, `log` (the log itself) or `audit`.
    #[arg(long)]
    pub(super) kind: Option<Kind>,
    /// Written then or later: how long ago (15m, 2h, 7d), or a time in UTC (2026-11-22, 10:30,
    /// 2026-11-22T10:30:00Z).
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
}

/// The other end of a time.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Until {
    /// Written before: as --since.
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
}

/// Where the records are.
#[derive(Clone, Debug, Args)]
pub(super) struct Source {
    /// Read this folder, such as a copy of a gateway's records, instead of what gateway.yaml names.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) place: Where,
}

/// A destination, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Net(Destination),
    Target(String),
}

impl FromStr for Place {
    type Err = <Destination as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let meant_as_address = text.is_empty()
            || text.starts_with('[')
            || text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['.', ':'])
            || text.rsplit_once(':').is_some_and(|(_, port)| {
                port.starts_with(|c: char| c.is_ascii_digit()) && !port.contains(' ')
            });
        match text.parse() {
            Ok(destination) => Ok(Place::Net(destination)),
            Err(error) if meant_as_address => Err(error),
            Err(_) => Ok(Place::Target(text.to_owned())),
        }
    }
}

impl Select {
    /// For records.
    pub(super) fn filter(&self, until: &Until) -> Result<Filter, Failure> {
        let now = Clock::now().wall.millis();
        let moment = |option: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| query::moment(text, now))
                .transpose()
                .map_err(|error| Failure::usage(format!("--{option}: {error}")))
        };
        let filter = Filter {
            kind: self.kind,
            user: self.user.clone(),
            device: self.device.clone(),
            to: self.to.clone().map(To::from),
            rule: self.rule.clone(),
            verdict: self.verdict,
            state: self.state,
            close_reason: self.close_reason.clone(),
            since: moment("since", &self.since)?,
            until: moment("until", &until.until)?,
        };
        match (filter.since, filter.until) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::usage("--since must be earlier than --until"))
            }
            _ => Ok(filter),
        }
    }

    /// Whether only records can answer.
    pub(super) fn asks_the_past(&self) -> bool {
        self.since.is_some()
            || self.verdict.is_some()
            || self.state.is_some()
            || self.close_reason.is_some()
            || self.kind.is_some()
    }

    /// For live flows: what the gateway filters by, ...
    pub(super) fn live_filter(&self) -> FlowFilter {
        FlowFilter {
            id: None,
            device: self.device.clone(),
            user: self.user.clone(),
            to: match &self.to {
                Some(Place::Net(destination)) => Some(*destination),
                Some(Place::Target(_)) | None => None,
            },
            opened_before: None,
        }
    }

    /// ... and the rest of it.
    pub(super) fn is_live(&self, flow: &FlowView) -> bool {
        let target = match &self.to {
            Some(Place::Target(name)) => Some(name),
            Some(Place::Net(_)) | None => None,
        };
        self.rule.as_ref().is_none_or(|rule| *rule == flow.rule)
            && target.is_none_or(|name| flow.target.as_ref() == Some(name))
    }
}

impl From<Place> for To {
    fn from(place: Place) -> To {
        match place {
            Place::Target(name) => To::Target(name),
            Place::Net(destination) => To::Net {
                net: destination.net,
                port: destination.port,
                protocol: destination.protocol.map(|p| p.as_str().to_owned()),
            },
        }
    }
}

impl Source {
    /// The folder with the records.
    pub(super) fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(self.place.load()?.flow_log.dir),
        }
    }

    /// Its segments.
    pub(super) fn segments(&self) -> Result<Segments, Failure> {
        let folder = self.folder()?;
        let opened = match self.dir {
            Some(_) => Segments::of_copy(&folder),
            None => Segments::open(&folder),
        };
        let segments = opened.map_err(|error| {
            Failure::failed(format!("{error}; help: name the folder with --dir"))
        })?;
        if segments.is_empty() {
            eprintln!("note: there are no records in {}", folder.display());
        }
        Ok(segments)
    }
}

/// Says what was passed over.
pub(super) fn note(report: &Report) {
    if report.damaged > 0 {
        eprintln!(
            "note: {} damaged lines were passed over; `flows verify` says what is wrong",
            report.damaged
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_address_or_a_name() {
        for text in [
            "192.0.2.10",
            "192.0.2.0/24",
            "192.0.2.10:22/tcp",
            "[2001:db8::1]:22",
        ] {
            let place: Place = text.parse().expect(text);
            assert!(matches!(place, Place::Net(_)), "{text}");
        }
        for text in ["nodes", "the nodes", "3rd floor", "eu/nodes", "nodes: old"] {
            assert_eq!(text.parse(), Ok(Place::Target(text.to_owned())), "{text}");
        }
        for text in [
            "",
            "192.0.2.300",
            "192.0.2.0/33",
            "[2001:db8::1]:x",
            "nodes:22",
        ] {
            let error = text.parse::<Place>().expect_err(text).to_string();
            assert!(error.contains("write an address"), "{error}");
        }
    }

    #[test]
    fn times_are_checked_together() {
        let times = |since: &str, until: &str| {
            let select = Select {
                since: Some(since.into()),
                ..Select::default()
            };
            select.filter(&Until {
                until: Some(until.into()),
            })
        };
        assert!(times("2h", "1h").is_ok());
        for (since, until, word) in [
            ("1h", "2h", "earlier"),
            ("soon", "1h", "--since: 'soon' is no time"),
            ("1h", "soon", "--until: 'soon' is no time"),
        ] {
            let error = times(since, until).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.code(), 2);
        }
    }
}
