//! `policy suggest`: the tightest policy that keeps what was used.

use super::plan::{in_force, live, progress, shown_on, since};
use super::{Failure, Output, Where, output};
use crate::config::Config;
use crate::plan;
use crate::store::Store;
use clap::Args;
use postern_engine::policy::Policy;
use postern_history::Attempt;
use postern_history::suggest::{RuleUse, Suggest, Suggestion};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use postern_spool::query::{Filter, Kind, Segments, State, Verdict};

/// Print the tightest policy that keeps what was used: the rules of the policy in force, each for
/// those who used it, to where they went. Say on stderr how much of each rule that is.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
    /// Keep what was used since: how long ago (30d, 12h), or a time in UTC.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: String,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let now = Clock::now().wall;
        let since = since(&self.since, now)?;
        let config = self.place.load()?;
        let store = Store::open(&config.store_path(), config.pool).await?;
        let (_, source) = in_force(&store, &config)
            .await?
            .ok_or_else(|| Failure::failed("no policy is in force, and the file has faults"))?;
        let answers = plan::answers(&store, since, now).await?;
        let policy = Policy::compile_for_the_past(&source, &answers).map_err(Failure::failed)?;
        let live = live(&config, since, now).await.unwrap_or_default();
        let bar = progress();
        let (shown, folder) = (shown_on(bar.clone()), config.flow_log.dir.clone());
        let work = move |past| {
            let mut suggest = Suggest::new(&policy, past, since);
            for flow in &live.flows {
                suggest.attempt(&flow.attempt)?;
            }
            let each = |attempt: Attempt| suggest.attempt(&attempt);
            let read = plan::attempts(&folder, since, shown, each)?;
            Ok((suggest.finish(&source, &answers), read))
        };
        let done = plan::with_past(&store, work).await;
        let (mut found, read) = done.map_err(Failure::failed)?;
        bar.finish_and_clear();
        for rule in found.rules.iter_mut().filter(|rule| rule.last.is_none()) {
            rule.last = last_use(&config, &rule.rule, since)?;
        }
        match self.output {
            Output::Json => output::json(&found)?,
            Output::Table => {
                output::write(&found.policy)?;
                shares(&found);
            }
        }
        if read.records == 0 {
            eprintln!("note: there are no records since then: nothing was used");
        }
        match found.fault {
            Some(fault) => Err(Failure::failed(format!(
                "what was printed is no policy yet:\n{fault}"
            ))),
            None => Ok(0),
        }
    }
}

/// When a rule allowed something last, before `since`.
fn last_use(config: &Config, rule: &str, since: Wall) -> Result<Option<Wall>, Failure> {
    let filter = Filter {
        kind: Some(Kind::Flow),
        rule: Some(rule.to_owned()),
        verdict: Some(Verdict::Allow),
        state: Some(State::Open),
        until: Some(since.millis()),
        ..Filter::default()
    };
    let segments = Segments::open(&config.flow_log.dir).map_err(Failure::failed)?;
    let (found, _) = segments.newest(&filter, 1).map_err(Failure::failed)?;
    let attempt = found.first().and_then(|found| Attempt::read(&found.line));
    Ok(attempt.map(|attempt| attempt.start))
}

/// On stderr: stdout is the policy.
fn shares(found: &Suggestion) {
    let moment = |rule: &RuleUse| output::moment(rule.last.map(Wall::seconds));
    for rule in found.rules.iter().filter(|rule| rule.attempts > 0) {
        eprintln!(
            "note: {}: {} attempts by {} users, {} of {} addresses and ports ({}), last {}",
            rule.rule,
            rule.attempts,
            rule.users,
            rule.used,
            rule.width,
            percent(rule),
            moment(rule)
        );
    }
    for rule in found.rules.iter().filter(|rule| !rule.kept) {
        eprintln!("note: {}: left out; last used {}", rule.rule, moment(rule));
    }
    let gathered = found.gathered;
    if gathered.no_longer > 0 {
        eprintln!(
            "note: {} attempts were allowed then and no longer are: they are not kept",
            gathered.no_longer
        );
    }
    if gathered.unknown > 0 {
        eprintln!(
            "note: {} attempts are not kept: too little is known of who made them",
            gathered.unknown
        );
    }
}

/// `0.4 %`; what is less than a thousandth is `< 0.1 %`.
fn percent(rule: &RuleUse) -> String {
    let used = u128::try_from(rule.used).unwrap_or(u128::MAX);
    let thousandths = used.saturating_mul(1000) / rule.width.max(1);
    match thousandths {
        0 => "< 0.1 %".to_owned(),
        _ => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_width() {
        let share = |used, width| {
            percent(&RuleUse {
                used,
                width,
                ..RuleUse::default()
            })
        };
        assert_eq!(share(2, 512), "0.3 %");
        assert_eq!(share(1, 1), "100.0 %");
        assert_eq!(share(1, u128::MAX), "< 0.1 %");
    }
}
