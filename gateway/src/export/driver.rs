//! Carries lines from the spool to one sink: in order, each at least once.
//!
//! ```text
//! read -> batch -> send -> acknowledged -> noted -> cursor on disk, at most once a second
//!                   | refused for ever: halve until the one line is found, park it, go on
//!                   | failed: wait, longer each time, and send again; fewer lines after the second
//! ```

use super::batch::{Batch, Lines};
use super::facts::Facts;
use super::standing::Standing;
use super::width::Width;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the cursor goes to disk, at most: what a power cut makes an exporter send again.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// How long an idle exporter sleeps without news.
const IDLE: Duration = Duration::from_secs(60);

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// A server may ask for a longer pause, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Lines refused one after the other, none taken in between, that are parked without a pause. A server
/// that refuses more has something against all of them, such as a wrong address or a switch that is
/// off: it is asked as rarely as one that fails, so that the log does not end up in a file of parked
/// lines before somebody has looked.
const REFUSED_IN_A_ROW: u32 = 1000;

/// Where lines go.
pub(super) trait Sink: Send {
    /// Hands lines over. After a failure the same lines come again, perhaps with more behind them
    /// or fewer.
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure>;

    /// Makes all that was taken last, where that is up to this side.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sink has the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// So many of them were refused for ever. Which ones, the server does not tell.
    pub(super) refused: u64,
}

/// The sink does not have the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// May work later; the server may have said when.
    Retry {
        after: Option<Duration>,
        error: String,
    },
    /// At least one of these lines will never be taken.
    Refused { error: String },
}

/// Where lines come from, and where it is noted how far they got.
pub(super) trait Source: Send {
    /// Adds the lines that follow, up to the number `synced`, until the batch has `limit` bytes.
    fn fill(&mut self, batch: &mut Batch, synced: u64, limit: usize) -> Result<(), Trouble>;

    /// Notes that the line `n`, with these bytes, is done with: a crash of the gateway does not
    /// forget it, a power cut may.
    fn note(&mut self, n: u64, line: &[u8]) -> io::Result<()>;

    /// Writes the cursor to disk, behind the line `n` with these bytes.
    fn store(&mut self, n: u64, line: &[u8]) -> io::Result<()>;

    /// Keeps a line that was refused for ever.
    fn park(&mut self, line: &[u8]) -> io::Result<()>;
}

/// Why there are no more lines.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Lines are not to be had any more. The source goes on behind them.
    Missed { from: u64, to: u64, why: String },
    /// May work later.
    Io(io::Error),
}

/// Time, chance, and news from the writer.
pub(super) trait World: Send {
    fn now(&self) -> Instant;
    fn synced(&self) -> u64;
    fn stopping(&self) -> bool;
    /// Returns when there are lines beyond `n`, when it is `until`, or when all stops.
    fn wait(&mut self, n: u64, until: Instant);
    fn random(&mut self) -> u64;
}

/// When a batch goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// When it has so many bytes,
    pub(super) bytes: usize,
    /// or when its first line has waited for so long.
    pub(super) age: Duration,
}

pub(super) struct Driver<W, R, S> {
    name: &'static str,
    limits: Limits,
    world: W,
    source: R,
    sink: S,
    standing: Arc<Standing>,
    batch: Batch,
    /// When the first line of the batch was read.
    begun: Instant,
    /// The last line that was read.
    read: u64,
    /// Lines to send at once.
    width: Width,
    /// Failures in a row.
    failures: u32,
    /// Lines parked in a row.
    parked: u32,
    /// The last line that was taken, if the cursor does not stand behind it yet.
    unsaved: Option<(u64, Vec<u8>)>,
    saved: Instant,
    warned: bool,
}

impl<W: World, R: Source, S: Sink> Driver<W, R, S> {
    /// `standing` says behind which line the source begins.
    pub(super) fn new(
        name: &'static str,
        limits: Limits,
        world: W,
        source: R,
        sink: S,
        standing: Arc<Standing>,
    ) -> Self {
        let now = world.now();
        Driver {
            name,
            limits,
            source,
            sink,
            batch: Batch::default(),
            begun: now,
            read: standing.position(),
            width: Width::default(),
            failures: 0,
            parked: 0,
            unsaved: None,
            saved: now,
            warned: false,
            world,
            standing,
        }
    }

    /// Runs until the gateway stops: then all that can go at once still goes.
    pub(super) fn run(mut self) {
        while self.turn() {}
        self.save();
    }

    /// One step. False: over.
    fn turn(&mut self) -> bool {
        // In this order: what is on disk when all stops is still sent.
        let stopping = self.world.stopping();
        if let Err(trouble) = self.fill() {
            return self.troubled(trouble, stopping);
        }
        self.save_if_due();
        let now = self.world.now();
        if self.batch.is_empty() {
            if !stopping {
                self.world.wait(self.read, self.next_save(now + IDLE));
            }
            return !stopping;
        }
        let ready = self.begun + self.limits.age;
        let full = self.batch.size() >= self.limits.bytes;
        if full || stopping || now >= ready || self.failures > 0 {
            return self.deliver(stopping);
        }
        self.world.wait(self.read, self.next_save(ready));
        true
    }

    fn fill(&mut self) -> Result<(), Trouble> {
        let synced = self.world.synced();
        if self.batch.size() >= self.limits.bytes || self.read >= synced {
            return Ok(());
        }
        let was_empty = self.batch.is_empty();
        let filled = self.source.fill(&mut self.batch, synced, self.limits.bytes);
        let all = self.batch.head(usize::MAX);
        self.read = self.read.max(all.last_n());
        if was_empty && !self.batch.is_empty() {
            self.begun = self.world.now();
            self.show_oldest();
        }
        filled
    }

    fn deliver(&mut self, stopping: bool) -> bool {
        let lines = self.batch.head(self.width.lines());
        let (count, last) = (lines.len(), lines.last_n());
        let bytes = lines.bytes().len();
        match self.sink.send(lines) {
            Ok(Taken { refused }) => {
                let error = "the server refused it";
                match refused {
                    0 => {}
                    _ if count == 1 => self.park_first(error),
                    _ => self.refused(last, refused, error),
                }
                self.taken(count);
                self.parked = 0;
                self.recovered();
                self.width.taken(count);
                true
            }
            Err(Failure::Refused { .. }) if count > 1 => {
                self.width.refused(count);
                true
            }
            Err(Failure::Refused { error }) => {
                self.park_first(&error);
                self.taken(count);
                self.parked = self.parked.saturating_add(1);
                if self.parked > REFUSED_IN_A_ROW {
                    return self.failed(error, None, stopping);
                }
                self.recovered();
                true
            }
            Err(Failure::Retry { after, error }) => {
                if self.width.failed(count, bytes) {
                    let exporter = self.name;
                    let lines = self.width.lines();
                    tracing::info!(exporter, count, bytes, lines, "batches are smaller now");
                }
                self.failed(error, after, stopping)
            }
        }
    }

    /// The first `count` lines are done with.
    fn taken(&mut self, count: usize) {
        let lines = self.batch.head(count);
        if let Some((n, line)) = lines.iter().last() {
            if let Err(error) = self.source.note(n, line) {
                // The cursor follows within a second, and says so if it cannot.
                tracing::debug!(exporter = self.name, %error, "the position cannot be noted");
            }
            self.standing.advance(n);
            self.unsaved = Some((n, line.to_vec()));
        }
        self.batch.drop_head(count);
        if self.batch.is_empty() {
            // Missed lines may lie behind the last one that was sent.
            self.standing.advance(self.read);
        }
        self.show_oldest();
    }

    fn park_first(&mut self, error: &str) {
        let Some((n, line)) = self.batch.head(1).iter().next() else {
            return;
        };
        if let Err(error) = self.source.park(line) {
            tracing::warn!(exporter = self.name, n, %error, "a refused line cannot be kept");
        }
        self.refused(n, 1, error);
    }

    fn refused(&mut self, n: u64, lines: u64, error: &str) {
        self.standing.parked(lines);
        if std::mem::replace(&mut self.warned, true) {
            tracing::debug!(exporter = self.name, n, lines, error, "parked");
        } else {
            tracing::warn!(
                exporter = self.name,
                n,
                lines,
                error,
                "lines are refused for ever and parked; more of them are only counted"
            );
        }
    }

    fn troubled(&mut self, trouble: Trouble, stopping: bool) -> bool {
        match trouble {
            Trouble::Missed { from, to, why } => {
                let count = (to + 1).saturating_sub(from);
                tracing::warn!(
                    exporter = self.name,
                    from,
                    to,
                    count,
                    why,
                    "lines are missed"
                );
                self.standing.missed(count);
                self.read = self.read.max(to);
                if self.batch.is_empty() {
                    self.standing.advance(to);
                }
                true
            }
            Trouble::Io(_) if !self.batch.is_empty() => self.deliver(stopping),
            Trouble::Io(error) => self.failed(error.to_string(), None, stopping),
        }
    }

    fn failed(&mut self, error: String, after: Option<Duration>, stopping: bool) -> bool {
        if self.failures == 0 {
            let exporter = self.name;
            tracing::warn!(exporter, error, "records are not exported; will be retried");
        }
        self.standing.failing(error);
        if stopping {
            return false;
        }
        let pause = pause(self.failures, after, self.world.random());
        self.failures = self.failures.saturating_add(1);
        let until = self.world.now() + pause;
        while self.world.now() < until && !self.world.stopping() {
            let until = self.next_save(until);
            self.world.wait(u64::MAX, until);
            self.save_if_due();
        }
        true
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.standing.well();
            tracing::info!(exporter = self.name, "records are exported again");
        }
    }

    fn next_save(&self, until: Instant) -> Instant {
        match self.unsaved {
            Some(_) => until.min(self.saved + CHECKPOINT),
            None => until,
        }
    }

    fn save_if_due(&mut self) {
        if self.unsaved.is_some() && self.world.now() >= self.saved + CHECKPOINT {
            self.save();
        }
    }

    fn save(&mut self) {
        self.saved = self.world.now();
        let Some((n, line)) = &self.unsaved else {
            return;
        };
        let saved = self
            .sink
            .settle()
            .and_then(|()| self.source.store(*n, line));
        match saved {
            Ok(()) => {
                self.standing.saved(*n);
                self.unsaved = None;
            }
            Err(error) => {
                let exporter = self.name;
                tracing::warn!(exporter, %error, "the cursor cannot be stored; will be retried");
            }
        }
    }

    fn show_oldest(&self) {
        let first = self.batch.head(1).iter().next();
        let time = first.and_then(|(_, line)| Facts::of(line).millis());
        self.standing.oldest(time);
    }
}

/// Doubles with every failure in a row; half of it is chance, so that many gateways do not come
/// back together.
fn pause(failures: u32, after: Option<Duration>, random: u64) -> Duration {
    let whole = FIRST_RETRY
        .saturating_mul(1 << failures.min(16))
        .min(LAST_RETRY);
    let half = whole / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    let jitter = Duration::from_nanos(random.checked_rem(nanos).unwrap_or(0));
    let asked = after.unwrap_or_default().min(LONGEST_PAUSE);
    (half + jitter).max(asked)
}

#[cfg(test)]
mod tests;
