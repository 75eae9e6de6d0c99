//! Copies of the log for other systems. Each exporter has a thread, a cursor in the spool, and its
//! own pace: one that fails lags behind, says so, and holds up nothing else.
//!
//! ```text
//! spool --lines that are synced--> driver --batches--> sink: Loki, OTLP, file, stdout
//! ```
//!
//! Every line arrives at least once, in order, byte for byte. An exporter holds no more than a few
//! batches in memory, 2 MiB each at most (`batch_bytes`).

mod batch;
mod driver;
mod facts;
mod file;
mod head;
mod http;
mod late;
mod loki;
mod note;
mod otlp;
mod secret;
mod source;
mod standing;
mod stdout;
mod width;

pub use head::SyncedHead;

use crate::api::ExporterStatus;
use crate::config::{FlowLogConfig, PushConfig};
use crate::key_file;
use driver::{Driver, Limits, Sink, World};
use late::Late;
use postern_io::clock::Clock;
use postern_spool::Cursor;
use source::{Newer, SpoolSource};
use standing::Standing;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Batches of sinks on this machine: they cost little each.
const LOCAL: Limits = Limits {
    bytes: 256 << 10,
    age: Duration::ZERO,
};

/// All exporters that are configured, at work.
#[derive(Debug)]
pub struct Exporters {
    head: SyncedHead,
    all: Vec<Arc<Standing>>,
    /// Ends when the last thread has.
    over: Receiver<()>,
}

/// For status and retention. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ExportersHandle {
    all: Arc<[Arc<Standing>]>,
}

impl Exporters {
    /// Starts every exporter that is configured, each behind its cursor in the spool. `head` says
    /// how far they may read; lines up to `before` were there before this run.
    ///
    /// # Errors
    /// The spool cannot be read. Whatever else fails is retried: a secret, a certificate, a server.
    pub fn start(config: &FlowLogConfig, head: SyncedHead, before: u64) -> io::Result<Exporters> {
        let sinks = sinks(config);
        let (done, over) = channel();
        let mut all = Vec::with_capacity(sinks.len());
        for (name, limits, sink, has) in sinks {
            let newer = Newer {
                boot: note::boot().ok(),
                sink: has,
            };
            let (source, position, missed) =
                SpoolSource::open(&config.dir, name, head.get(), newer)
                    .map_err(io::Error::other)?;
            let standing = Arc::new(Standing::new(name, before, position));
            standing.missed(missed);
            all.push(Arc::clone(&standing));
            let world = Real(head.clone());
            let done = done.clone();
            let run = move || {
                let driver = Driver::new(name, limits, world, source, sink, standing);
                driver.run();
                drop::<Sender<()>>(done);
            };
            std::thread::Builder::new()
                .name(format!("export-{name}"))
                .spawn(run)?;
        }
        Ok(Exporters { head, all, over })
    }

    /// For status and retention.
    #[must_use]
    pub fn handle(&self) -> ExportersHandle {
        ExportersHandle {
            all: self.all.clone().into(),
        }
    }

    /// Sends what can be sent at once, stores the cursors and ends the threads. One that still
    /// waits for its server after `patience` is left alone: its cursor says where to go on.
    pub fn finish(self, patience: Duration) {
        self.head.stop();
        // Nothing is ever sent: it ends with the last thread, or with our patience.
        let _ = self.over.recv_timeout(patience);
    }
}

impl ExportersHandle {
    /// How each does, in a fixed order, when the last line written is `head`.
    #[must_use]
    pub fn status(&self, head: u64) -> Vec<ExporterStatus> {
        let now = Clock::now().wall.0 / 1_000_000;
        self.all.iter().map(|one| one.status(head, now)).collect()
    }

    /// The last line that every exporter is done with for good: up to it, retention takes nothing
    /// from anybody. None if there is no exporter.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.all.iter().map(|one| one.saved_position()).min()
    }
}

/// As [`ExportersHandle::acknowledged`], by the cursors on disk, before the exporters are started.
#[must_use]
pub fn acknowledged(config: &FlowLogConfig) -> Option<u64> {
    [
        ("loki", config.loki.is_some()),
        ("otlp", config.otlp.is_some()),
        ("file", config.file.is_some()),
        ("stdout", config.stdout),
    ]
    .into_iter()
    .filter(|(_, configured)| *configured)
    .map(|(name, _)| match Cursor::load(&config.dir, name) {
        Ok(Some(cursor)) => cursor.n,
        Ok(None) | Err(_) => 0,
    })
    .min()
}

/// What would stop the exporters from starting, one line each; for `check`.
#[must_use]
pub fn problems(config: &FlowLogConfig) -> Vec<String> {
    let loki = config.loki.as_ref().map(|loki| (&loki.push, None));
    let otlp = config.otlp.as_ref().map(|otlp| (&otlp.push, Some(otlp)));
    let check = |push: &PushConfig, otlp| secret::check(push, otlp).and(http::check(push));
    [loki, otlp]
        .into_iter()
        .flatten()
        .filter_map(|(push, otlp)| check(push, otlp).err())
        .map(|error| error.to_string())
        .collect()
}

/// With the last line that it has, where it can be asked.
type Named = (&'static str, Limits, Box<dyn Sink>, Option<Cursor>);

fn sinks(config: &FlowLogConfig) -> Vec<Named> {
    let push = |push: &PushConfig| Limits {
        bytes: push.batch_bytes,
        age: push.batch_age,
    };
    let mut sinks: Vec<Named> = Vec::new();
    if let Some(loki) = config.loki.clone() {
        let limits = push(&loki.push);
        let sink = Late::new(move || loki::Loki::new(&loki));
        sinks.push(("loki", limits, Box::new(sink), None));
    }
    if let Some(otlp) = config.otlp.clone() {
        let limits = push(&otlp.push);
        let sink = Late::new(move || otlp::Otlp::new(&otlp));
        sinks.push(("otlp", limits, Box::new(sink), None));
    }
    if let Some(file) = config.file.clone() {
        let mut now = file::RotatingFile::new(&file);
        let (sink, has): (Box<dyn Sink>, _) = match now.begin() {
            Ok(has) => (Box::new(now), has),
            Err(_) => {
                let late = Late::new(move || {
                    let mut sink = file::RotatingFile::new(&file);
                    sink.begin().map(|_| sink)
                });
                (Box::new(late), None)
            }
        };
        sinks.push(("file", LOCAL, sink, has));
    }
    if config.stdout {
        sinks.push(("stdout", LOCAL, Box::new(stdout::Stdout::default()), None));
    }
    sinks
}

impl Sink for Box<dyn Sink> {
    fn send(&mut self, lines: batch::Lines<'_>) -> Result<driver::Taken, driver::Failure> {
        (**self).send(lines)
    }

    fn settle(&mut self) -> io::Result<()> {
        (**self).settle()
    }
}

struct Real(SyncedHead);

impl World for Real {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn synced(&self) -> u64 {
        self.0.get()
    }

    fn stopping(&self) -> bool {
        self.0.is_stopping()
    }

    fn wait(&mut self, n: u64, until: Instant) {
        self.0.wait(n, until);
    }

    fn random(&mut self) -> u64 {
        // Without it, gateways come back together; no more depends on it.
        key_file::random::<8>().map_or(0, u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests;
