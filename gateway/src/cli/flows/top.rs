//! `flows top`.

use super::select::{Select, Source, Until, note};
use super::{Failure, Output, output};
use clap::Args;
use postern_spool::query::{By, MAX_KEYS, Of, Sums, top};
use serde_json::{Value, json};

/// Adds up the records that match all of it.
#[derive(Debug, Args)]
pub(in crate::cli) struct Top {
    /// What counts: `bytes`, `packets` (of closed flows), `flows` (attempts) or `denials`.
    #[arg(long, default_value_t = By::Bytes)]
    by: By,
    /// Whose: each `user`, `device`, `target`, `destination` or `rule`.
    #[arg(long, default_value_t = Of::User)]
    of: Of,
    /// So many, the largest.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    until: Until,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Top {
    pub(super) fn obey(self) -> Result<u8, Failure> {
        let filter = self.select.filter(&self.until)?;
        let segments = self.source.segments()?;
        let found =
            top(&segments, &filter, self.by, self.of, self.limit).map_err(Failure::failed)?;
        match self.output {
            Output::Json => output::json(&self.object(&found))?,
            Output::Table => self.table(&found)?,
        }
        if found.other != Sums::default() {
            eprintln!(
                "note: there are more than {MAX_KEYS} of them; what did not fit is in (other), and \
                 each has at least what is shown"
            );
        }
        note(&found.report);
        Ok(0)
    }

    fn table(&self, found: &postern_spool::query::Top) -> Result<(), Failure> {
        let key = self.of.as_str().to_uppercase();
        let total = found.total.of(self.by);
        let mut rows: Vec<[String; 8]> = found
            .rows
            .iter()
            .map(|row| line(row.key.as_deref().unwrap_or("-"), &row.sums, self.by, total))
            .collect();
        for (name, sums, shown) in [
            (
                format!("({} more)", found.hidden),
                &found.hidden_sums,
                found.hidden > 0,
            ),
            (
                "(other)".to_owned(),
                &found.other,
                found.other != Sums::default(),
            ),
            ("(total)".to_owned(), &found.total, true),
        ] {
            if shown {
                rows.push(line(&name, sums, self.by, total));
            }
        }
        let header = [
            &key,
            "SHARE",
            "FLOWS",
            "DENIED",
            "OUT",
            "IN",
            "PACKETS OUT",
            "PACKETS IN",
        ];
        output::table(header, rows)
    }

    fn object(&self, found: &postern_spool::query::Top) -> Value {
        let rows: Vec<Value> = found
            .rows
            .iter()
            .map(|row| {
                let mut object = sums(&row.sums);
                object[self.of.as_str()] = json!(row.key);
                object
            })
            .collect();
        json!({
            "by": self.by.as_str(),
            "of": self.of.as_str(),
            "rows": rows,
            "hidden": found.hidden,
            "other": sums(&found.other),
            "total": sums(&found.total),
            "damaged": found.report.damaged,
        })
    }
}

fn line(name: &str, sums: &Sums, by: By, total: u64) -> [String; 8] {
    // Tenths of a percent; no total is near the end of the range.
    let share = u128::from(sums.of(by)) * 1000 / u128::from(total.max(1));
    [
        name.to_owned(),
        format!("{}.{}%", share / 10, share % 10),
        sums.attempts.to_string(),
        sums.denials.to_string(),
        output::size(sums.bytes_out),
        output::size(sums.bytes_in),
        sums.packets_out.to_string(),
        sums.packets_in.to_string(),
    ]
}

fn sums(sums: &Sums) -> Value {
    json!({
        "flows": sums.attempts,
        "denials": sums.denials,
        "bytes_out": sums.bytes_out,
        "bytes_in": sums.bytes_in,
        "packets_out": sums.packets_out,
        "packets_in": sums.packets_in,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_counts() {
        let sums = Sums {
            attempts: 8,
            denials: 3,
            bytes_out: 1024,
            bytes_in: 512,
            packets_out: 10,
            packets_in: 9,
        };
        assert_eq!(
            line("ana", &sums, By::Bytes, 12_288).join(" | "),
            "ana | 12.5% | 8 | 3 | 1.0 KiB | 512 B | 10 | 9"
        );
        assert_eq!(line("ana", &sums, By::Denials, 3)[1], "100.0%");
        assert_eq!(line("ana", &Sums::default(), By::Flows, 0)[1], "0.0%");
    }
}
