//! What is wrong with a policy: where, what, and what to write instead.

use serde::Serialize;
use std::fmt;

/// More than this is not read by anybody; the rest is counted. About 100 kB.
const MAX_ERRORS: usize = 100;
/// Characters of a source line that are shown.
const EXCERPT: usize = 120;

/// One fault of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyError {
    /// From 1; 0 where the fault is of the file as a whole.
    pub line: usize,
    /// From 1, in characters; 0 where the fault is of the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The line of the file, cut to what fits a terminal; control characters are shown as `?`.
    pub excerpt: String,
    #[serde(skip)]
    underline: (usize, usize),
}

/// Every fault of a policy file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct PolicyErrors(pub Vec<PolicyError>);

/// Where something stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

/// The faults found so far.
pub(super) struct Faults<'s> {
    lines: Vec<&'s str>,
    found: Vec<PolicyError>,
    dropped: usize,
}

impl<'s> Faults<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Faults {
            lines: source.lines().collect(),
            found: Vec::new(),
            dropped: 0,
        }
    }

    /// Notes a fault with what to write instead.
    pub(super) fn add(&mut self, at: Place, message: impl Into<String>, help: impl Into<String>) {
        self.note(at, message.into(), Some(help.into()));
    }

    /// Notes a fault whose message says all.
    pub(super) fn plain(&mut self, at: Place, message: impl Into<String>) {
        self.note(at, message.into(), None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.found.len() + self.dropped
    }

    /// Nothing more will be shown.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_ERRORS
    }

    pub(super) fn finish(mut self) -> PolicyErrors {
        self.found.sort_by_key(|e| (e.line, e.column));
        if self.dropped > 0 {
            let message = format!("and {} more", self.dropped);
            self.found.push(error(Place::default(), message, None, &[]));
        }
        PolicyErrors(self.found)
    }

    fn note(&mut self, at: Place, message: String, help: Option<String>) {
        if self.is_full() {
            self.dropped += 1;
        } else {
            self.found.push(error(at, message, help, &self.lines));
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show("error", f)
    }
}

impl PolicyError {
    /// As text, with a word for how bad it is.
    pub(super) fn show(&self, kind: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{kind}: {}", self.message)?;
        if self.line > 0 {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let (skip, width) = self.underline;
            let (gap, carets) = (" ".repeat(skip), "^".repeat(width));
            write!(
                f,
                "\n{margin}--> line {}, column {}",
                self.line, self.column
            )?;
            write!(
                f,
                "\n{margin} |\n{number} | {}\n{margin} | {gap}{carets}",
                self.excerpt
            )?;
            if let Some(help) = &self.help {
                write!(f, "\n{margin} = help: {help}")?;
            }
        } else if let Some(help) = &self.help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

fn error(at: Place, message: String, help: Option<String>, lines: &[&str]) -> PolicyError {
    let line = at
        .line
        .checked_sub(1)
        .and_then(|i| lines.get(i))
        .copied()
        .unwrap_or_default();
    // The fault stays in sight on a long line: a third of the excerpt stands before it.
    let before = at.column.saturating_sub(1);
    let cut = if before > EXCERPT * 2 / 3 {
        before - EXCERPT / 3
    } else {
        0
    };
    let excerpt: String = line
        .chars()
        .skip(cut)
        .take(EXCERPT)
        .map(printable)
        .collect();
    let excerpt = excerpt.trim_end().to_owned();
    let skip = before - cut;
    let room = excerpt.chars().count().saturating_sub(skip).max(1);
    PolicyError {
        line: at.line,
        column: at.column,
        message,
        help,
        excerpt,
        underline: (skip, at.width.clamp(1, room)),
    }
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '?',
        c => c,
    }
}
