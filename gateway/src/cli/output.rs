//! Tables for people, JSON for programs.

use super::Failure;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use postern_proto::now::Wall;
use serde::Serialize;
use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// How a listing looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes a line to stdout. A reader that left, such as `head`, wants no more and is no failure.
pub(super) fn say(text: impl Display) -> Result<(), Failure> {
    write(&format!("{text}\n"))
}

/// The same without a line end.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    say(text)
}

/// Prints rows under a header, without lines.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    say(table.trim_fmt())
}

/// Prints names and values below each other.
pub(super) fn facts(facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, value) in facts {
        say(format_args!("{:width$}{value}", format!("{name}:")))?;
    }
    Ok(())
}

/// `-` for what is not there.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Seconds since 1970 as a date and time.
pub(super) fn moment(seconds: Option<u64>) -> String {
    or_dash(seconds.map(|seconds| {
        let text = Wall(seconds.saturating_mul(1_000_000_000)).rfc3339();
        text.split('.').next().unwrap_or(&text).to_owned() + "Z"
    }))
}

/// `45s`, `12m`, `3h`, `9d`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `512 B`, `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(5 << 40)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
        );
        assert_eq!(
            [span(45), span(720), span(10_800), span(800_000)],
            ["45s", "12m", "3h", "9d"]
        );
        assert_eq!(moment(Some(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(moment(None), "-");
    }
}
