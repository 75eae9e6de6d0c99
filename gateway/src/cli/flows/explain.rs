//! `flows explain`: why then, with the inputs as they were.

use super::select::Source;
use super::{Failure, Output, output};
use crate::past::{self, Judged, Key};
use crate::store::Store;
use clap::{ArgGroup, Args};
use postern_history::inputs::Input;
use std::str::FromStr;

/// The exit code when the record says something else than it gives when judged again.
const DISAGREES: u8 = 3;

/// Says why an attempt was allowed or refused, and judges it again with the policy and the facts
/// that its record names. Exit code 3: the record says something else.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["flow", "seq", "line"]))]
pub(in crate::cli) struct Explain {
    /// The flow, by its number.
    flow: Option<u64>,
    /// Of this run. [default: the newest that has such a flow]
    #[arg(long, requires = "flow")]
    boot: Option<String>,
    /// A record by its place, such as that of a refusal, which has no flow.
    #[arg(long, value_name = "WORKER:BOOT:SEQ")]
    seq: Option<Seq>,
    /// A record by the number of its line, `n`.
    #[arg(long, value_name = "N")]
    line: Option<u64>,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seq {
    worker: u8,
    boot: String,
    seq: u64,
}

/// Text that is no [`Seq`].
#[derive(Debug, thiserror::Error)]
#[error("write WORKER:BOOT:SEQ, three fields of the record, such as 0:4:17")]
struct NotASeq;

impl FromStr for Seq {
    type Err = NotASeq;

    fn from_str(text: &str) -> Result<Self, NotASeq> {
        let (worker, rest) = text.split_once(':').ok_or(NotASeq)?;
        let (boot, seq) = rest.rsplit_once(':').ok_or(NotASeq)?;
        if boot.is_empty() {
            return Err(NotASeq);
        }
        Ok(Seq {
            worker: worker.parse().map_err(|_| NotASeq)?,
            boot: boot.to_owned(),
            seq: seq.parse().map_err(|_| NotASeq)?,
        })
    }
}

impl Explain {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let key = match (self.flow, self.seq, self.line) {
            (Some(flow), _, _) => Key::Flow(flow, self.boot),
            (None, Some(at), _) => Key::Seq(at.worker, at.boot, at.seq),
            (None, None, Some(line)) => Key::Line(line),
            (None, None, None) => return Err(Failure::usage("name a flow, --seq or --line")),
        };
        let config = self.source.place.load()?;
        let folder = self.source.folder()?;
        let segments = self.source.segments()?;
        let found = past::find(&folder, &segments, &key)?;
        if !found.other_boots.is_empty() {
            eprintln!(
                "note: earlier runs have a flow of that number too; --boot names one of {}",
                found.other_boots.join(", ")
            );
        }
        let store = Store::open(&config.store_path(), config.pool).await?;
        let judged = past::judge_again(&store, &found).await?;
        match self.output {
            Output::Json => output::json(&judged)?,
            Output::Table => output::say(words(&judged))?,
        }
        Ok(if judged.agrees { 0 } else { DISAGREES })
    }
}

fn words(judged: &Judged) -> String {
    let Judged { record, again, .. } = judged;
    let verdict = if judged.recorded.allow {
        "allow"
    } else {
        "deny"
    };
    let mut lines = vec![format!("{verdict}: {} to {}", judged.subject, judged.to)];
    lines.push(match record.flow {
        Some(flow) => format!(
            "  record: flow {flow} of run {}, worker {}, number {}, line {}",
            record.boot, record.worker, record.seq, record.n
        ),
        None => format!(
            "  record: number {} of worker {} in run {}, line {}",
            record.seq, record.worker, record.boot, record.n
        ),
    });
    lines.push(format!("  at: {}", record.start.rfc3339()));
    if record.count > 1 {
        lines.push(format!(
            "  it stands for {} attempts; this is the first",
            record.count
        ));
    }
    if let Some(reason) = &judged.recorded.deny_reason {
        lines.push(format!("  reason: {reason}"));
    }
    if let Some(held) = judged.held {
        lines.push(format!("  held: {held}"));
    }
    let policy = judged.policy.get(..12).unwrap_or(&judged.policy);
    match &judged.rule_text {
        Some(rule) => {
            lines.push(format!(
                "  rule: {} (line {} of policy {policy})",
                judged.recorded.rule, rule.line
            ));
            lines.extend(rule.text.iter().map(|line| format!("      {line}")));
        }
        None => lines.push(format!(
            "  rule: {} (policy {policy})",
            judged.recorded.rule
        )),
    }
    lines.extend(judged.inputs.iter().map(input));
    if let Some(grant) = &judged.grant {
        let how = if grant.break_glass {
            "break-glass"
        } else {
            "grant"
        };
        lines.push(format!(
            "  {how}: {} until {}: {}",
            grant.id,
            grant.until.rfc3339(),
            grant.reason
        ));
    }
    if let Some(near) = &judged.nearest {
        lines.push(format!(
            "  nearest rule that would have allowed: {} (line {})",
            near.rule.rule, near.rule.line
        ));
        lines.extend(near.text.iter().map(|line| format!("      {line}")));
        lines.extend(near.inputs.iter().map(input));
        let failed = near.rule.failed.iter();
        lines.extend(failed.map(|one| format!("    - {}", one.sentence)));
    }
    lines.push(format!(
        "  facts: {}, so since {}",
        judged.facts.id,
        judged.facts.since.rfc3339()
    ));
    if let Some(outer) = judged.outer {
        lines.push(format!("  on the Internet: {outer}"));
    }
    if let Some(end) = &judged.end {
        lines.push(format!(
            "  ended: {} {} (line {})",
            end.time, end.close_reason, end.n
        ));
        if let Some(failed) = &end.failed_condition {
            lines.push(format!("    - {failed}"));
        }
        if let Some(rule) = &end.last_rule {
            lines.push(format!("    - by then rule \"{rule}\" allowed it"));
        }
    }
    lines.push(if judged.agrees {
        "  judged again: the same".to_owned()
    } else {
        let reason = again.deny_reason.as_deref().unwrap_or("allowed");
        let verdict = if again.allow { "allow" } else { "deny" };
        format!(
            "  JUDGED AGAIN: {verdict} by rule \"{}\" ({reason}), which is not what the record \
             says",
            again.rule
        )
    });
    lines.join("\n")
}

fn input(one: &Input) -> String {
    let sign = if one.holds { "+" } else { "-" };
    format!("    {sign} asks {}; had {}", one.asks, one.had)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written() {
        let seq: Seq = "3:41:17".parse().expect("a place");
        assert_eq!((seq.worker, seq.boot.as_str(), seq.seq), (3, "41", 17));
        for text in ["", "3:17", "3::17", "x:41:17", "3:41:", "300:41:17"] {
            let error = text.parse::<Seq>().expect_err(text).to_string();
            assert!(error.contains("0:4:17"), "{error}");
        }
    }
}
