//! Blocking calls to the control API for threads that have nothing else to do. One tokio thread
//! answers them all, beside its other work.

use crate::api::{self, Api, Call, CallError};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Calls that wait or are under way; the next one is told to come again.
pub const WAITING: usize = 8;

/// One call, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    call: Call,
    answer: SyncSender<Result<Value, CallError>>,
}

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Line(mpsc::Sender<Asked>);

/// The other end.
pub type Calls = mpsc::Receiver<Asked>;

impl Line {
    /// Both ends of one.
    #[must_use]
    pub fn new() -> (Line, Calls) {
        let (sender, calls) = mpsc::channel(WAITING);
        (Line(sender), calls)
    }

    /// Makes a call and waits for its answer. Not on a tokio thread.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        let silent = |why: &str| CallError::Silent(why.to_owned());
        let (answer, answered) = sync_channel(1);
        self.0
            .try_send(Asked { call, answer })
            .map_err(|_| silent("too many calls at once, or the tunnel is ending"))?;
        let patience = api::PATIENCE * 2;
        let value = answered
            .recv_timeout(patience)
            .map_err(|_| silent("the tunnel is ending"))??;
        api::read(value)
    }
}

/// Answers calls until nobody can make any more.
pub async fn answer(api: Api, mut calls: Calls) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            Some(Asked { call, answer }) = calls.recv(), if under_way.len() < WAITING => {
                let api = api.clone();
                under_way.spawn(async move {
                    let _ = answer.send(api.call(&call).await);
                });
            }
            Some(_) = under_way.join_next() => {}
            else => return,
        }
    }
}
