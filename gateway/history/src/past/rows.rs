//! Rows of facts, and where they are looked up.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_proto::now::Wall;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// How a device stood from some moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What records call it.
    pub id: Arc<str>,
    /// As [`FactsText`](crate::FactsText) wrote it.
    pub text: Arc<str>,
    /// From when.
    pub since: Wall,
    /// When the device reported last, and until when that counts.
    pub reported: Option<(Wall, Wall)>,
}

/// A row, and when the next one of its id began: the same facts at another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The row.
    pub row: Row,
    /// None: there is no later one.
    pub next: Option<Wall>,
}

/// Rows of facts cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NoFacts(pub Box<dyn Error + Send + Sync>);

/// Where rows of facts are looked up.
pub trait Facts: fmt::Debug + Send {
    /// The last row of `id` that began by `at`; where all began later, the first. None: no such
    /// facts are known.
    ///
    /// # Errors
    /// They cannot be looked up.
    fn at(&mut self, id: &str, at: Wall) -> Result<Option<InForce>, NoFacts>;
}

/// All of them, in memory. The earliest of an id first.
#[derive(Debug)]
pub(super) struct InMemory(HashMap<Arc<str>, Vec<Row>, FixedState>);

impl InMemory {
    pub(super) fn new(rows: impl IntoIterator<Item = Row>) -> InMemory {
        let mut by_id: HashMap<Arc<str>, Vec<Row>, FixedState> = HashMap::default();
        for row in rows {
            by_id.entry(row.id.clone()).or_default().push(row);
        }
        for rows in by_id.values_mut() {
            rows.sort_by_key(|row| row.since);
        }
        InMemory(by_id)
    }
}

impl Facts for InMemory {
    fn at(&mut self, id: &str, at: Wall) -> Result<Option<InForce>, NoFacts> {
        let Some(rows) = self.0.get(id) else {
            return Ok(None);
        };
        let began = rows.partition_point(|row| row.since <= at);
        let place = began.saturating_sub(1);
        Ok(rows.get(place).map(|row| InForce {
            row: row.clone(),
            next: rows.get(place + 1).map(|next| next.since),
        }))
    }
}
