//! How many lines go at once: fewer when a server does not take so many, more again when it does.

/// Failures in a row after which less is sent: one may be chance.
const FAILURES: u32 = 2;

/// Requests of a size that works before more is tried again; twice as many each time that fails.
const CALM: u32 = 32;
const LONGEST_CALM: u32 = 4096;

/// A batch of no more bytes is small enough for every server: its failures say nothing about size.
const SMALL: usize = 64 << 10;

/// Starts without a bound.
#[derive(Debug)]
pub(super) struct Width {
    lines: usize,
    /// More than so many has failed where fewer worked.
    ceiling: usize,
    /// Most lines that were taken since the last time that less was sent.
    worked: usize,
    failures: u32,
    calm: u32,
    /// Successes at the ceiling that raise it.
    patience: u32,
}

impl Default for Width {
    fn default() -> Self {
        Width {
            lines: usize::MAX,
            ceiling: usize::MAX,
            worked: 0,
            failures: 0,
            calm: 0,
            patience: CALM,
        }
    }
}

impl Width {
    /// Lines to send at once, at least 1.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// So many were taken.
    pub(super) fn taken(&mut self, count: usize) {
        self.failures = 0;
        self.worked = self.worked.max(count);
        if self.lines < self.ceiling {
            self.lines = self.lines.saturating_mul(2).min(self.ceiling);
        } else if self.ceiling < usize::MAX && count == self.ceiling {
            self.calm += 1;
            if self.calm >= self.patience {
                self.calm = 0;
                self.ceiling = self.ceiling.saturating_mul(2);
                self.lines = self.ceiling;
            }
        }
    }

    /// A line among so many is refused for ever: it is looked for.
    pub(super) fn refused(&mut self, count: usize) {
        self.failures = 0;
        self.lines = (count / 2).max(1);
    }

    /// So many lines failed, `bytes` in all. Returns whether the size is the reason, as far as can
    /// be told.
    pub(super) fn failed(&mut self, count: usize, bytes: usize) -> bool {
        self.failures += 1;
        if self.failures < FAILURES || count < 2 {
            return false;
        }
        self.failures = 0;
        self.lines = count / 2;
        // A server that is down fails at every size, one that takes less only above it.
        let too_large = (1..count).contains(&self.worked) && bytes > SMALL;
        if too_large {
            self.patience = if self.ceiling < usize::MAX {
                (self.patience * 2).min(LONGEST_CALM)
            } else {
                CALM
            };
            self.ceiling = self.lines.max(self.worked);
            self.lines = self.ceiling;
            self.calm = 0;
        }
        self.worked = 0;
        too_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = 1000;

    /// Sends batches of up to `full` lines to a server that takes no more than `most` of them.
    fn run(width: &mut Width, full: usize, most: usize, requests: usize) -> Vec<(usize, bool)> {
        (0..requests)
            .map(|_| {
                let count = width.lines().min(full);
                if count <= most {
                    width.taken(count);
                } else {
                    width.failed(count, count * LINE);
                }
                (count, count <= most)
            })
            .collect()
    }

    #[test]
    fn a_size_that_fails_twice_is_halved_down_to_one_line() {
        let mut width = Width::default();
        let sent = run(&mut width, 8, 0, 9);
        let sizes: Vec<_> = sent.iter().map(|(count, _)| *count).collect();
        assert_eq!(sizes, [8, 8, 4, 4, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn a_server_with_a_limit_is_rarely_asked_for_more() {
        let mut width = Width::default();
        let sent = run(&mut width, 8000, 5000, 2000);
        let failed = sent.iter().filter(|(_, taken)| !taken).count();
        assert!((4..30).contains(&failed), "{failed}");
        let lines: usize = sent.iter().filter(|(_, taken)| *taken).map(|s| s.0).sum();
        assert!(lines > 1900 * 4000, "{lines}");
    }

    #[test]
    fn a_limit_that_is_gone_is_found_out() {
        let mut width = Width::default();
        run(&mut width, 8000, 900, 100);
        let sent = run(&mut width, 8000, usize::MAX, 20_000);
        assert_eq!(sent.last(), Some(&(8000, true)));
    }

    #[test]
    fn after_an_outage_full_batches_go_again_soon() {
        let mut width = Width::default();
        // The last one looks like a limit: what failed is larger than what worked.
        for (full, outage, soon) in [(8000, 60, 14), (3, 60, 14), (8000, 3, 40)] {
            run(&mut width, full, 0, outage);
            run(&mut width, full, usize::MAX, 1);
            run(&mut width, full, 0, 2);
            let sent = run(&mut width, full, usize::MAX, soon);
            assert_eq!(sent.last(), Some(&(full, true)));
        }
    }

    #[test]
    fn the_search_for_a_refused_line_leaves_nothing_behind() {
        let mut width = Width::default();
        run(&mut width, 8000, 5000, 100);
        let before = width.lines();
        for count in [4000, 2000, 1000, 2] {
            width.refused(count);
        }
        assert_eq!(width.lines(), 1);
        run(&mut width, 8000, 5000, 12);
        assert_eq!(width.lines(), before);
    }
}
