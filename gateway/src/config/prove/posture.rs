//! `posture`.

use super::super::identity::PostureConfig;
use super::super::raw::RawPosture;
use super::super::{Problem, units};
use super::{line_of, say, within};
use std::time::Duration;

const REPORT_EVERY: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3600);

/// One lost report, or a late one, is no flip.
const REPORTS_UNTIL_STALE: u32 = 3;

pub(super) fn posture(p: &mut Vec<Problem>, raw: RawPosture) -> PostureConfig {
    let report_every = within(
        p,
        "posture.report_every",
        raw.report_every,
        REPORT_EVERY,
        "60s",
        units::duration,
        |every| {
            let fits = (SHORTEST..=LONGEST).contains(&every);
            (!fits).then(|| "is outside 10s to 1h".to_owned())
        },
    );
    let line = raw.stale_after.as_ref().map_or(0, line_of);
    let stale_after = within(
        p,
        "posture.stale_after",
        raw.stale_after,
        report_every * REPORTS_UNTIL_STALE,
        "3m",
        units::duration,
        |_| None,
    );
    if stale_after < report_every {
        let problem = format!(
            "{} s is shorter than posture.report_every, {} s",
            stale_after.as_secs(),
            report_every.as_secs()
        );
        let help = "write a longer time, or remove the line for three reports";
        say(p, line, "posture.stale_after", problem, help);
    }
    PostureConfig {
        report_every,
        stale_after,
    }
}
