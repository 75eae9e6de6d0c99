//! A disk in memory that fails as real ones do: full, read-only, torn, slow, without power.

use crate::storage::{ReadAt, Storage, StorageFile};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// A file of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFile {
    disk: SimDisk,
    id: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// With this error, and nothing is done. A sync that fails forgets what was not synced, as
    /// kernels do.
    With(io::ErrorKind),
    /// A write that stops after so many bytes, and then fails. Another call fails at once.
    Short(usize),
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    files: Vec<Content>,
    calls: u64,
    fail: Option<(u64, u64, Fail)>,
    delay: Duration,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    /// Which bytes of `now` the next sync will write.
    dirty: Vec<bool>,
    synced: Vec<u8>,
}

impl SimDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets calls fail: those with the numbers `from..to`, counted from 0.
    pub fn fail(&self, from: u64, to: u64, how: Fail) {
        self.state().fail = Some((from, to, how));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().fail = None;
    }

    /// Each call takes this long.
    pub fn slow(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// What a power cut leaves. Of the bytes that were written and not synced, the first `keep`
    /// of each file survive; files that were created or removed and not synced are as before.
    #[must_use]
    pub fn power_cut(&self, keep: usize) -> SimDisk {
        let state = self.state();
        let mut after = State::default();
        for (name, id) in &state.durable_names {
            let content = state.content(*id);
            let mut now = content.synced.clone();
            let more = content.now.get(now.len()..).unwrap_or_default();
            now.extend_from_slice(&more[..keep.min(more.len())]);
            let id = after.files.len() as u64;
            after.files.push(Content {
                dirty: vec![false; now.len()],
                synced: now.clone(),
                now,
            });
            after.names.insert(name.clone(), id);
        }
        after.durable_names = after.names.clone();
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// The most bytes that any file has and could lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        let lengths = state.durable_names.values().map(|id| {
            let content = state.content(*id);
            content.now.len().saturating_sub(content.synced.len())
        });
        lengths.max().unwrap_or(0)
    }

    /// The files as they are now.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let content = |(name, id): (&String, &u64)| (name.clone(), state.content(*id).now.clone());
        state.names.iter().map(content).collect()
    }

    /// Replaces a file, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let id = state.files.len() as u64;
        state.files.push(Content {
            now: bytes.to_vec(),
            dirty: vec![false; bytes.len()],
            synced: bytes.to_vec(),
        });
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Copies all files into a real folder, which is emptied first.
    ///
    /// # Errors
    /// The real folder fails.
    pub fn dump(&self, dir: &Path) -> io::Result<()> {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)?;
        self.files()
            .iter()
            .try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; says how it fails.
    fn call(&self) -> (MutexGuard<'_, State>, Option<Fail>) {
        let delay = self.state().delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let fail = state
            .fail
            .filter(|(from, to, _)| (*from..*to).contains(&call))
            .map(|(_, _, how)| how);
        (state, fail)
    }

    fn simple(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.call() {
            (state, None) => Ok(state),
            (_, Some(fail)) => Err(fail.error()),
        }
    }

    fn file(&self, id: u64) -> SimFile {
        SimFile {
            disk: self.clone(),
            id,
        }
    }
}

impl Fail {
    fn error(self) -> io::Error {
        match self {
            Fail::With(kind) => kind.into(),
            Fail::Short(_) => io::ErrorKind::StorageFull.into(),
        }
    }
}

impl State {
    fn content(&self, id: u64) -> &Content {
        &self.files[usize::try_from(id).expect("an index into memory")]
    }

    fn content_mut(&mut self, id: u64) -> &mut Content {
        &mut self.files[usize::try_from(id).expect("an index into memory")]
    }
}

impl Content {
    fn resize(&mut self, len: usize) {
        self.now.resize(len, 0);
        self.dirty.resize(len, true);
    }
}

impl Storage for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.simple()?;
        let entry =
            |(name, id): (&String, &u64)| (name.clone(), state.content(*id).now.len() as u64);
        Ok(state.names.iter().map(entry).collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.simple()?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(id))
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.simple()?;
        if let Some(id) = state.names.get(name) {
            return Ok(self.file(*id));
        }
        let id = state.files.len() as u64;
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), id);
        Ok(self.file(id))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.simple()?.names.remove(name);
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.simple()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl ReadAt for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.simple()?;
        state.content(self.id).now.read_at(into, offset)
    }
}

impl StorageFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let (mut state, fail) = self.disk.call();
        let some = match fail {
            None => bytes.len(),
            Some(Fail::Short(some)) => some.min(bytes.len()),
            Some(fail @ Fail::With(_)) => return Err(fail.error()),
        };
        let content = state.content_mut(self.id);
        let from = usize::try_from(offset).expect("a test's offset");
        if content.now.len() < from + some {
            content.resize(from + some);
        }
        content.now[from..from + some].copy_from_slice(&bytes[..some]);
        content.dirty[from..from + some].fill(true);
        match fail {
            None => Ok(some),
            Some(fail) => Err(fail.error()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.simple()?;
        let len = usize::try_from(len).expect("a test's length");
        state.content_mut(self.id).resize(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fail) = self.disk.call();
        let content = state.content_mut(self.id);
        if let Some(fail) = fail {
            content.dirty.fill(false);
            return Err(fail.error());
        }
        content.synced.resize(content.now.len(), 0);
        for (at, dirty) in content.dirty.iter_mut().enumerate() {
            if std::mem::take(dirty) {
                content.synced[at] = content.now[at];
            }
        }
        Ok(())
    }
}
