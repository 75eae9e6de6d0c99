//! What the names of targets mean: asked for outside the engine, when the last answer may no
//! longer be kept. A new answer is noted in the store, compiled into the policy in force and
//! pushed to the workers; a failure keeps the last good answer, and says so.

mod address;
mod ask;
#[cfg(test)]
pub(crate) mod server;
mod table;

pub use table::{MAX_ADDRESSES, MAX_NAMES, MAX_TTL, MIN_TTL};

use crate::api::NameView;
use crate::live_config::LiveConfig;
use crate::policy_watch::PolicyKeeper;
use crate::store::{Store, StoreError};
use ask::Asker;
use postern_engine::policy::{Answers, Policy};
use postern_io::clock::Clock;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::{Family, News, Reply, Table};
use tokio::task::JoinSet;

/// Names that are asked for at the same moment.
const AT_ONCE: usize = 32;

/// How soon another policy is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often it is noted that an old answer was heard again: the disk need not know each time.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How long one name is asked for, over all servers.
const ASK_PATIENCE: Duration = Duration::from_secs(20);

/// How long a new policy waits for names that nobody asked for before.
const PATIENCE: Duration = Duration::from_secs(3);

/// What names mean. Clones see the same.
#[derive(Clone)]
pub struct Names {
    table: Arc<Mutex<Table>>,
    config: LiveConfig,
    store: Store,
}

impl Names {
    /// By what the store knew last: access does not wait for a resolver.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn new(config: LiveConfig, store: Store) -> Result<Names, StoreError> {
        let known = store.names_now().await?;
        let table = Table::new(config.get().pool, known, Clock::now());
        Ok(Names {
            table: Arc::new(Mutex::new(table)),
            config,
            store,
        })
    }

    /// What all names mean that are known.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.table().answers()
    }

    /// The names of a policy, as listings show them.
    #[must_use]
    pub fn views(&self, policy: &Policy) -> Vec<NameView> {
        self.table().views(&names_of(policy), Clock::now().wall)
    }

    /// Asks for the names of a policy to be that were never answered, so that it does not begin
    /// without them. Returns after `PATIENCE` at the latest; who is asked for after that follows
    /// when the answer comes.
    pub async fn prepare(&self, policy: &Policy) {
        let wanted = names_of(policy);
        let unknown = self.table().unknown(&wanted);
        if unknown.is_empty() {
            return;
        }
        let mut asked = JoinSet::new();
        let asker = Asker::new(&self.config.get().resolver);
        for name in unknown {
            asked.spawn(ask(asker.clone(), name));
        }
        let all = async {
            while let Some(done) = asked.join_next().await {
                if let Ok((name, reply)) = done {
                    let now = Clock::now();
                    let mut table = self.table();
                    table.also_want(&name, now.mono);
                    table.replied(&name, reply, now);
                }
            }
        };
        // Who has not answered by then is late, and follows.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        self.note(false).await;
    }

    /// Keeps names and policy together. Never returns; drop it to stop.
    pub async fn keep(&self, policy: &PolicyKeeper) {
        let mut keeper = Keeper {
            names: self,
            policy,
            seen: None,
            asker: None,
            under_way: JoinSet::new(),
            owed: false,
            noted: Clock::now().mono,
        };
        loop {
            keeper.turn().await;
        }
    }

    /// Stores what is new; with `all`, also what was heard again.
    async fn note(&self, all: bool) {
        let unnoted = self.table().unnoted(all);
        match self.store.note_names(&unnoted).await {
            Ok(()) => self.table().noted(&unnoted),
            Err(error) => tracing::warn!(%error, "what names of targets mean is not stored"),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

struct Keeper<'a> {
    names: &'a Names,
    policy: &'a PolicyKeeper,
    /// The policy whose names are asked for.
    seen: Option<Arc<Policy>>,
    /// With the configuration that it was made of. A failure makes it anew: the system's servers
    /// may be others now.
    asker: Option<(crate::config::ResolverConfig, Result<Asker, String>)>,
    under_way: JoinSet<(String, Reply)>,
    /// Workers do not have the last answers yet.
    owed: bool,
    noted: postern_proto::now::Mono,
}

impl Keeper<'_> {
    async fn turn(&mut self) {
        let now = Clock::now().mono;
        self.look_at_policy();
        self.ask_what_is_due();
        let wait = self.names.table().due().since(now).min(LOOK_EVERY);
        tokio::select! {
            Some(done) = self.under_way.join_next() => {
                self.take_in(done.ok());
                // Answers that came together are one change.
                while let Some(done) = self.under_way.try_join_next() {
                    self.take_in(done.ok());
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        self.note().await;
        if self.owed {
            match self.policy.resolved().await {
                Ok(policy) => {
                    self.owed = false;
                    self.adopt(policy);
                }
                Err(error) => tracing::warn!(
                    error,
                    "what names of targets mean is not in force yet; it is tried again"
                ),
            }
        }
    }

    /// A policy that somebody else put in force may have been compiled before the last answer.
    fn look_at_policy(&mut self) {
        let current = self.policy.current();
        match &self.seen {
            Some(seen) if Arc::ptr_eq(seen, &current) => {}
            Some(_) => {
                self.owed |= !current.names().is_empty();
                self.adopt(current);
            }
            None => self.adopt(current),
        }
    }

    fn adopt(&mut self, policy: Arc<Policy>) {
        let wanted = names_of(&policy);
        let mut table = self.names.table();
        table.want(&wanted, Clock::now().mono);
        if table.left_out() > 0 {
            tracing::warn!(
                names = wanted.len(),
                most = MAX_NAMES,
                "the policy names too many targets; the last of them mean nothing"
            );
        }
        self.seen = Some(policy);
    }

    fn ask_what_is_due(&mut self) {
        while self.under_way.len() < AT_ONCE {
            let Some(name) = self.names.table().next(Clock::now().mono) else {
                return;
            };
            let asker = self.asker();
            self.under_way.spawn(ask(asker, name));
        }
    }

    fn asker(&mut self) -> Result<Asker, String> {
        let wanted = self.names.config.get().resolver.clone();
        match &self.asker {
            Some((made_of, asker)) if *made_of == wanted => asker.clone(),
            Some(_) | None => {
                let asker = Asker::new(&wanted);
                self.asker = Some((wanted, asker.clone()));
                asker
            }
        }
    }

    /// A task that ended without an answer leaves its name asked for: that is a fault of the
    /// program, and the answer stays as it is.
    fn take_in(&mut self, done: Option<(String, Reply)>) {
        let Some((name, reply)) = done else { return };
        let mut table = self.names.table();
        let news = table.replied(&name, reply, Clock::now());
        let problem = table.problem(&name).unwrap_or_default();
        match news {
            News::None => {}
            News::Addresses => {
                let addresses = table.answers().remove(&name).unwrap_or_default();
                tracing::info!(
                    name,
                    ?addresses,
                    problem,
                    "a target's name means something else"
                );
                self.owed = true;
            }
            News::Failing => tracing::warn!(
                name,
                problem,
                "a target's name cannot be resolved; its last addresses stay"
            ),
            News::Mended => tracing::info!(name, "a target's name is resolved again"),
        }
        if !problem.is_empty() {
            self.asker = None;
        }
    }

    /// Stored before it is in force, so that a restart judges no other way.
    async fn note(&mut self) {
        let now = Clock::now();
        let all = now.mono.since(self.noted) >= NOTE_EVERY;
        self.names.note(all).await;
        if all {
            self.noted = now.mono;
            let gone = self.names.table().forget(now.mono);
            if let Err(error) = self.names.store.end_names(&gone, now.wall).await {
                tracing::warn!(%error, "names that no policy knows are still stored");
            }
        }
    }
}

async fn ask(asker: Result<Asker, String>, name: String) -> (String, Reply) {
    let answer = async {
        match asker {
            Ok(asker) => asker.ask(&name).await,
            Err(why) => failed(why),
        }
    };
    let late = |_| failed("no answer".to_owned());
    let reply = tokio::time::timeout(ASK_PATIENCE, answer).await;
    let reply = reply.unwrap_or_else(late);
    (name, reply)
}

fn failed(why: String) -> Reply {
    Reply {
        v4: Family::Failed(why.clone()),
        v6: Family::Failed(why),
    }
}

fn names_of(policy: &Policy) -> BTreeSet<String> {
    policy.names().into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
