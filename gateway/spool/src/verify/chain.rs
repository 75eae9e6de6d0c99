//! Line after line: each is whole, has the next number, and names the one before it.

use super::What;
use super::seen::Seen;
use crate::blocks::Piece;
use crate::line::{Hash, Head, Line};

/// Where a walk over a chain stands.
#[derive(Debug)]
pub(super) struct Chain {
    /// What the name of the first file says of the first line.
    first: Option<u64>,
    begun: Option<Begin>,
    head: Head,
    /// Only in a copy may a line come again.
    seen: Option<Seen>,
}

/// What a good line is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The next one.
    Next(Head),
    /// One that was there before, byte for byte.
    Again,
}

#[derive(Clone, Copy, Debug)]
struct Begin {
    n: u64,
    prev: Hash,
}

impl Chain {
    /// The files of a spool, the first of which has the line `first` first.
    pub(super) fn of_spool(first: Option<u64>) -> Chain {
        Chain {
            first,
            begun: None,
            head: Head::default(),
            seen: None,
        }
    }

    /// Lines that an exporter delivered: at least once each.
    pub(super) fn of_copy() -> Chain {
        Chain {
            seen: Some(Seen::default()),
            ..Chain::of_spool(None)
        }
    }

    /// Takes the next line.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<Step, What> {
        let line = Line::parse(bytes)?;
        let head = line.head();
        match self.begun {
            Some(_) if head.n <= self.head.n => return self.again(head),
            Some(_) => self.follow(&line)?,
            None => self.begin(&line)?,
        }
        self.head = head;
        if let Some(seen) = &mut self.seen {
            seen.add(head.hash);
        }
        Ok(Step::Next(head))
    }

    fn begin(&mut self, line: &Line<'_>) -> Result<(), What> {
        match self.first {
            Some(first) if line.n > first => return Err(What::Missing { to: line.n - 1 }),
            Some(first) if line.n < first => return Err(What::Misnamed),
            _ => {}
        }
        if line.n == 1 && line.prev != Hash::ZERO {
            return Err(What::Changed);
        }
        self.begun = Some(Begin {
            n: line.n,
            prev: line.prev,
        });
        Ok(())
    }

    fn follow(&self, line: &Line<'_>) -> Result<(), What> {
        let expected = self.expected();
        if line.n > expected {
            Err(What::Missing { to: line.n - 1 })
        } else if line.prev != self.head.hash {
            Err(What::Changed)
        } else {
            Ok(())
        }
    }

    /// Takes a line with a number that was there.
    fn again(&self, line: Head) -> Result<Step, What> {
        let known = self
            .seen
            .as_ref()
            .map(|seen| seen.back(self.head.n - line.n));
        match known {
            Some(Some(hash)) if hash == line.hash => Ok(Step::Again),
            Some(Some(_)) => Err(What::Differs),
            None if line == self.head => Err(What::Duplicated),
            Some(None) | None => Err(What::Reordered),
        }
    }

    /// Whether this is the line that should have come before.
    pub(super) fn follows(&self, piece: Option<Piece<'_>>) -> bool {
        match piece {
            Some(Piece::Line(bytes)) => {
                Line::parse(bytes).is_ok_and(|line| line.n == self.expected())
            }
            Some(Piece::Rest(_) | Piece::Long) | None => false,
        }
    }

    /// The number of the next line.
    pub(super) fn expected(&self) -> u64 {
        match self.begun {
            Some(_) => self.head.n.saturating_add(1),
            None => self.first.unwrap_or(1),
        }
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn first(&self) -> u64 {
        self.begun.map_or(0, |begin| begin.n)
    }

    pub(super) fn prev_of_first(&self) -> Hash {
        self.begun.map_or(Hash::ZERO, |begin| begin.prev)
    }

    pub(super) fn lines(&self) -> u64 {
        self.begun.map_or(0, |begin| self.head.n - begin.n + 1)
    }
}
