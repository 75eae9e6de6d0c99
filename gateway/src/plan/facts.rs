//! Facts of the store, looked up one by one for a thread that judges: how many there are does not
//! matter to its memory.

use super::PastError;
use crate::store::{FactsRow, Store, StoreError};
use postern_history::past::{Facts, InForce, MAX_READY, NoFacts, Past, Row};
use postern_proto::now::Wall;
use std::io;
use tokio::sync::{mpsc, oneshot};

type Answer = Result<Option<(FactsRow, Option<Wall>)>, StoreError>;

/// Which facts, when, and who waits for them.
#[derive(Debug)]
struct Ask {
    id: String,
    at: Wall,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Asking(mpsc::Sender<Ask>);

impl Facts for Asking {
    fn at(&mut self, id: &str, at: Wall) -> Result<Option<InForce>, NoFacts> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            id: id.to_owned(),
            at,
            answer,
        };
        let gone = || NoFacts(io::Error::other("nobody waits for the answer any more").into());
        self.0.blocking_send(ask).map_err(|_| gone())?;
        let found = answered.blocking_recv().map_err(|_| gone())?;
        let found = found.map_err(|error| NoFacts(error.into()))?;
        Ok(found.map(|(row, next)| InForce {
            row: Row {
                id: row.id,
                text: row.text.into(),
                since: row.since,
                reported: row.reported.zip(row.fresh_until),
            },
            next,
        }))
    }
}

/// Does `work`, in a thread of its own, with how devices stood as the store has it. It ends early
/// when nobody waits for it any more.
///
/// # Errors
/// Those of `work`; or it panicked.
pub async fn with_past<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(Past) -> Result<T, PastError> + Send + 'static,
) -> Result<T, PastError> {
    let (asking, mut asked) = mpsc::channel(1);
    let past = Past::looked_up(Asking(asking), MAX_READY);
    let done = tokio::task::spawn_blocking(move || work(past));
    while let Some(ask) = asked.recv().await {
        // Who asked may have ended.
        let _ = ask.answer.send(store.facts_of(&ask.id, ask.at).await);
    }
    done.await.map_err(|_| PastError::Broken)?
}
