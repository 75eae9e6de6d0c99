//! `policy plan`: what another policy would do to what was used.

use super::{Failure, Output, Where, output};
use crate::admin::client::Client;
use crate::api::{FlowView, MAX_FLOWS_LISTED};
use crate::config::Config;
use crate::plan::{self, Question, Read};
use crate::store::Store;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use postern_engine::policy::{Policy, PolicyErrors, TestOutcome};
use postern_history::Live;
use postern_history::diff::{self, Change, Difference, Field};
use postern_history::plan::{Example, Kind, Plan, Sums};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use postern_spool::query;
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Rows of each table for people; JSON has up to a hundred.
const ROWS: usize = 20;

/// Say what a policy would change: its rules, its tests, and every attempt of the last days judged
/// again. Exit code 2 when something that was used would no longer be allowed, or a test fails.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
    /// The policy that might come.
    new: PathBuf,
    /// Judge what was recorded since: how long ago (7d, 12h), or a time in UTC.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: String,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// All that is known of a change before it is made.
#[derive(Debug, Serialize)]
struct Report {
    /// The policy in force, by its hash.
    in_force: Option<String>,
    differences: Vec<Difference>,
    tests: Vec<TestOutcome>,
    #[serde(serialize_with = "postern_engine::record::rfc3339")]
    since: Wall,
    records: u64,
    damaged: u64,
    breaks: bool,
    #[serde(flatten)]
    plan: Plan,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let now = Clock::now().wall;
        let since = since(&self.since, now)?;
        let config = self.place.load()?;
        let source = std::fs::read_to_string(&self.new)
            .map_err(|error| Failure::usage(format!("{}: {error}", self.new.display())))?;
        let store = Store::open(&config.store_path(), config.pool).await?;
        let policy = compile(&store, &source, since, now).await?;
        let policy = policy
            .map_err(|errors| Failure::usage(format!("{}:\n{errors}", self.new.display())))?;
        let in_force = in_force(&store, &config).await?;
        let before = match &in_force {
            Some((_, text)) => compile(&store, text, since, now).await?.ok(),
            None => None,
        };
        let tests = policy.run_tests();
        let question = Question {
            policy,
            in_force: before,
            since,
            live: live(&config, since, now).await,
        };
        let bar = progress();
        let shown = shown_on(bar.clone());
        let (plan, Read { records, damaged }) =
            plan::run(&store, &config.flow_log.dir, question, shown)
                .await
                .map_err(Failure::failed)?;
        bar.finish_and_clear();
        let failed = tests.iter().any(|test| !test.passed);
        let old = in_force.as_ref().map_or("", |(_, source)| source);
        let report = Report {
            differences: diff::diff(old, &source),
            in_force: in_force.map(|(hash, _)| hash),
            tests,
            since,
            records,
            damaged,
            breaks: plan.breaks(),
            plan,
        };
        match self.output {
            Output::Json => output::json(&report)?,
            Output::Table => report.show()?,
        }
        Ok(if report.breaks || failed { 2 } else { 0 })
    }
}

/// `7d`, or a time.
pub(super) fn since(text: &str, now: Wall) -> Result<Wall, Failure> {
    query::moment(text, now.millis())
        .map(|millis| Wall(millis.saturating_mul(1_000_000)))
        .map_err(|error| Failure::usage(format!("--since: {error}")))
}

/// The flows that began before and are open. Where the gateway gives no answer, a note says so.
pub(super) async fn live(config: &Config, since: Wall, now: Wall) -> Option<Live> {
    let client = Client::new(&config.admin_socket);
    let ask = plan::before(since);
    match client.post::<Vec<FlowView>>("/v1/flows/list", &ask).await {
        Ok(flows) => Some(plan::live(flows, now)),
        Err(error) => {
            eprintln!(
                "note: flows that began before {} and are open are not known: {error}",
                output::moment(Some(since.seconds()))
            );
            None
        }
    }
}

/// Its names mean all that they meant at any time since.
pub(super) async fn compile(
    store: &Store,
    source: &str,
    since: Wall,
    now: Wall,
) -> Result<Result<Policy, PolicyErrors>, Failure> {
    let answers = plan::answers(store, since, now).await?;
    Ok(Policy::compile_for_the_past(source, &answers))
}

/// The hash and the text of the policy in force; of the file where none ever was.
pub(super) async fn in_force(
    store: &Store,
    config: &Config,
) -> Result<Option<(String, String)>, Failure> {
    if let Some(change) = store
        .policy_changes()
        .await?
        .into_iter()
        .max_by_key(|c| c.id)
        && let Some(kept) = store.policy_source(&change.change.hash).await?
    {
        return Ok(Some(kept));
    }
    let text = std::fs::read_to_string(&config.policy).ok();
    Ok(text.and_then(|text| {
        let policy = Policy::parse(&text).ok()?;
        Some((policy.hash().full(), text))
    }))
}

/// On stderr, and only on a terminal.
pub(super) fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

pub(super) fn shown_on(bar: ProgressBar) -> impl FnMut(u64, u64) + Send + 'static {
    move |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    }
}

impl Report {
    fn show(&self) -> Result<(), Failure> {
        self.show_differences()?;
        self.show_tests()?;
        let plan = &self.plan;
        output::say(format_args!(
            "\n{} attempts since {}, from {} records, judged again:",
            plan.attempts,
            output::moment(Some(self.since.seconds())),
            self.records
        ))?;
        output::facts(&[
            (
                "  newly denied",
                format!(
                    "{} attempts, {} pairs of who and where to",
                    plan.newly_denied.attempts, plan.newly_denied.pairs
                ),
            ),
            (
                "  newly allowed",
                format!(
                    "{} attempts, {} pairs",
                    plan.newly_allowed.attempts, plan.newly_allowed.pairs
                ),
            ),
            (
                "  unchanged",
                format!(
                    "{}, {} of them by another rule",
                    plan.unchanged, plan.by_another_rule
                ),
            ),
        ])?;
        if let Some(open) = plan.open_flows {
            output::facts(&[(
                "  open flows",
                format!(
                    "{} of these attempts began before and are open: {} newly denied",
                    open.flows, open.newly_denied
                ),
            )])?;
        }
        let users = plan.by_user.iter();
        changes(
            "USER",
            users.map(|share| (or_dash(&share.name), share.sums)),
        )?;
        let devices = plan.by_device.iter();
        changes(
            "DEVICE",
            devices.map(|share| (or_dash(&share.name), share.sums)),
        )?;
        let rules = plan.by_rule.iter();
        changes(
            "RULE",
            rules.map(|share| (arrow(&share.was, &share.is), share.sums)),
        )?;
        examples("Newly denied:", Kind::NewlyDenied, &plan.examples)?;
        examples("Newly allowed:", Kind::NewlyAllowed, &plan.examples)?;
        self.show_shadow()?;
        self.notes();
        Ok(())
    }

    fn show_differences(&self) -> Result<(), Failure> {
        let hash = self.in_force.as_deref().and_then(|hash| hash.get(..12));
        let in_force = hash.unwrap_or("none");
        let new = self.plan.policy;
        if self.differences.is_empty() {
            return output::say(format_args!("{new} says the same as {in_force}, in force"));
        }
        output::say(format_args!("{new} in place of {in_force}, in force:"))?;
        for one in &self.differences {
            let mark = match one.change {
                Change::Added => "+",
                Change::Removed => "-",
                Change::Changed => "~",
                Change::Moved => "^",
            };
            let moved = match one.change {
                Change::Moved => " (stands elsewhere)",
                Change::Added | Change::Removed | Change::Changed => "",
            };
            output::say(format_args!("  {mark} {} {}{moved}", one.kind, one.name))?;
            for Field { field, was, is } in &one.fields {
                let (was, is) = (or_nothing(was), or_nothing(is));
                output::say(format_args!("      {field}: {}", arrow(was, is)))?;
            }
        }
        Ok(())
    }

    fn show_tests(&self) -> Result<(), Failure> {
        let failed: Vec<_> = self.tests.iter().filter(|test| !test.passed).collect();
        output::say(format_args!(
            "\n{} tests, {} failed",
            self.tests.len(),
            failed.len()
        ))?;
        for test in failed {
            output::say(format_args!(
                "  line {}: {}: expected {}, got {}",
                test.line, test.described, test.expected, test.got
            ))?;
        }
        Ok(())
    }

    fn show_shadow(&self) -> Result<(), Failure> {
        if self.plan.shadow.is_empty() {
            return Ok(());
        }
        let word = |allow: bool| if allow { "allow" } else { "deny" }.to_owned();
        output::say("\nIf the rules in `mode: shadow` were enforced:")?;
        output::table(
            ["RULE", "WOULD", "IN FORCE", "ATTEMPTS"],
            self.plan.shadow.iter().map(|share| {
                [
                    share.rule.clone(),
                    word(share.allow),
                    word(share.live),
                    share.attempts.to_string(),
                ]
            }),
        )
    }

    fn notes(&self) {
        let plan = &self.plan;
        let not = &plan.not_judged;
        eprintln!(
            "note: each attempt is judged at its own time, windows and ends of rules included"
        );
        if plan.approximate > 0 {
            eprintln!(
                "note: {} attempts rest on what their records say, because how the device stood is not known",
                plan.approximate
            );
        }
        if not.unknown > 0 {
            eprintln!(
                "note: {} attempts are not judged: too little is known of who made them",
                not.unknown
            );
        }
        if not.allowed > 0 {
            eprintln!(
                "note: {} that were not judged were allowed; `policy_change.max_newly_denied` counts them as denied",
                not.allowed
            );
        }
        if plan.open_flows.is_some_and(|open| open.more) {
            eprintln!(
                "note: of the flows that are open only the oldest {MAX_FLOWS_LISTED} were judged"
            );
        }
        if not.scans > 0 {
            eprintln!(
                "note: {} attempts are not judged: their records stand for many addresses",
                not.scans
            );
        }
        for (reason, attempts) in &not.refused {
            eprintln!(
                "note: {attempts} attempts are not judged: refused with {reason}, under any policy"
            );
        }
        if self.damaged > 0 {
            eprintln!(
                "note: {} damaged lines were passed over; `flows verify` says what is wrong",
                self.damaged
            );
        }
        if self.breaks {
            eprintln!(
                "note: exit code 2: what is newly denied was used; allow it before `policy apply`"
            );
        } else if self.tests.iter().any(|test| !test.passed) {
            eprintln!("note: exit code 2: a test fails, so `policy apply` refuses it");
        }
    }
}

/// Those with a change.
fn changes(key: &str, rows: impl Iterator<Item = (String, Sums)>) -> Result<(), Failure> {
    let changed = |sums: &Sums| sums.newly_denied + sums.newly_allowed > 0;
    let mut rows = rows.filter(|(_, sums)| changed(sums)).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    output::say("")?;
    output::table(
        [key, "NEWLY DENIED", "NEWLY ALLOWED", "UNCHANGED"],
        rows.take(ROWS).map(|(name, sums)| {
            [
                name,
                sums.newly_denied.to_string(),
                sums.newly_allowed.to_string(),
                sums.unchanged.to_string(),
            ]
        }),
    )
}

fn examples(title: &str, kind: Kind, all: &[Example]) -> Result<(), Failure> {
    let mut some = all.iter().filter(|one| one.change == kind).peekable();
    if some.peek().is_none() {
        return Ok(());
    }
    output::say(format_args!("\n{title}"))?;
    output::table(
        ["LAST", "ATTEMPTS", "WHO", "TO", "RULE", "NEAREST"],
        some.take(ROWS).map(|one| {
            let device = one.device.as_deref();
            let who = match (one.user.as_deref(), device) {
                (Some(user), Some(device)) => format!("{user} on {device}"),
                (user, device) => or_dash(&user.or(device).map(str::to_owned)),
            };
            let last = match one.open {
                0 => output::moment(Some(one.time.seconds())),
                _ => "open".to_owned(),
            };
            [
                last,
                one.attempts.to_string(),
                who,
                one.to.to_string(),
                arrow(&one.was, &one.is),
                or_dash(&one.nearest),
            ]
        }),
    )
}

fn arrow(was: &str, is: &str) -> String {
    if was == is {
        was.to_owned()
    } else {
        format!("{was} -> {is}")
    }
}

fn or_dash(name: &Option<String>) -> String {
    output::or_dash(name.as_ref())
}

fn or_nothing(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("nothing")
}
