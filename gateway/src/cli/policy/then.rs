//! The moment that a question is about: now, or one of the past.

use super::super::{Failure, Where};
use crate::api::PolicyStatus;
use crate::config::Config;
use crate::past::{self, PolicyThen, SubjectThen};
use crate::policy_watch;
use crate::problem::Problem;
use crate::store::{Store, Terms};
use clap::Args;
use postern_engine::policy::{RuleView, Subject};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use postern_spool::query::{self, Segments};

/// When.
#[derive(Clone, Debug, Args)]
pub(super) struct At {
    /// At this moment instead of now: how long ago (15m, 2h, 7d), or a time in UTC (2026-11-22,
    /// 10:30, 2026-11-22T10:30:00Z).
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<String>,
}

/// What was in force at a moment, and where to ask for the rest.
pub(super) struct Then {
    pub(super) at: Wall,
    pub(super) policy: PolicyThen,
    pub(super) store: Store,
    pub(super) config: Config,
    /// It is about now.
    now: bool,
}

impl At {
    /// What is asked about.
    pub(super) async fn then(&self, place: &Where) -> Result<Then, Failure> {
        let (config, client) = place.client()?;
        let store = Store::open(&config.store_path(), config.pool).await?;
        let clock = Clock::now().wall;
        let Some(text) = &self.at else {
            let policy = if client.is_running().await {
                let status: PolicyStatus = client.get("/v1/policy/status").await?;
                let mut policy = past::policy_of(&store, &status.hash, clock).await?;
                policy.since = Some(Wall(status.loaded.saturating_mul(1_000_000_000)));
                policy
            } else {
                eprintln!(
                    "note: no gateway is running; asking {}",
                    config.policy.display()
                );
                // Its faults, with its tests, before the meaning of its names.
                policy_watch::load(&config.policy)?;
                let source = std::fs::read_to_string(&config.policy)?;
                past::policy_from(&store, source, clock).await?
            };
            return Ok(Then {
                at: clock,
                policy,
                store,
                config,
                now: true,
            });
        };
        let at = query::moment(text, clock.millis())
            .map_err(|error| Failure::usage(format!("--at: {error}")))?;
        let at = Wall(at.saturating_mul(1_000_000));
        if at > clock {
            eprintln!("note: that is still to come; asking with the policy and the facts of now");
        }
        let policy = past::policy_at(&store, at).await?;
        for name in &policy.forgotten {
            eprintln!(
                "note: what {name} meant then is not known any more; whom it let in is missing"
            );
        }
        Ok(Then {
            policy,
            at,
            store,
            config,
            now: false,
        })
    }
}

impl Then {
    /// How every device stood, with where it was on the Internet if the policy asks for that.
    pub(super) async fn subjects(&self) -> Result<Vec<Subject>, Failure> {
        if self.now {
            let terms = Terms::of(&self.config);
            let devices = self.store.active_devices(self.at.seconds(), &terms).await?;
            return Ok(devices.into_iter().map(past::subject_of).collect());
        }
        let then = self.past().await?;
        let mut subjects: Vec<Subject> = then.into_iter().map(|then| then.subject).collect();
        let asks = |rule: RuleView<'_>| !rule.who().outer.is_empty();
        if self.policy.policy.rules().any(asks) {
            let segments = self.segments()?;
            let outer = past::outers_at(&segments, self.at)?;
            for who in &mut subjects {
                who.standing.outer = outer.get(&who.device).copied();
            }
        }
        Ok(subjects)
    }

    /// How every device stood, by the facts of that moment.
    pub(super) async fn past(&self) -> Result<Vec<SubjectThen>, Failure> {
        let then = past::subjects_at(&self.store, self.at).await?;
        if let (true, Some(known)) = (then.is_empty(), self.store.known_since().await?)
            && self.at < known
        {
            let what = format!("nobody knows how devices stood at {}", self.at.rfc3339());
            let help = format!("it is known from {} on", known.rfc3339());
            return Err(Problem::absent(what, help).into());
        }
        Ok(then)
    }

    /// How one device stood.
    pub(super) async fn subject(&self, device: &str) -> Result<Subject, Failure> {
        if self.now {
            let terms = Terms::of(&self.config);
            let found = self.store.device(device).await?;
            if found.revoked.is_some() {
                return Err(Problem::refused(
                    format!("device '{device}' is revoked and reaches nothing"),
                    "ask about the past with --at",
                )
                .into());
            }
            let record = self.store.record(device, self.at.seconds(), &terms).await?;
            return Ok(past::subject_of(record));
        }
        let mut who = past::subject_at(&self.store, device, self.at)
            .await?
            .subject;
        let segments = self.segments()?;
        let outer = past::outer_at(&segments, device, self.at)?;
        who.standing.outer = outer.map(|(address, _)| address);
        Ok(who)
    }

    /// The log.
    pub(super) fn segments(&self) -> Result<Segments, Failure> {
        Segments::open(&self.config.flow_log.dir).map_err(Failure::failed)
    }

    /// `policy 0123456789ab, in force since …`
    pub(super) fn policy_line(&self) -> String {
        let mut line = format!("policy {}", self.policy.policy.hash());
        if self.policy.since.is_some() {
            line.push_str(&format!(", in force {}", self.in_force()));
        }
        line
    }

    /// `since … until …`
    pub(super) fn in_force(&self) -> String {
        let moment = |word: &str, at: Option<Wall>| at.map(|at| format!("{word} {}", at.rfc3339()));
        let since = moment("since", self.policy.since);
        let until = moment("until", self.policy.until);
        let both: Vec<String> = since.into_iter().chain(until).collect();
        both.join(" ")
    }
}
