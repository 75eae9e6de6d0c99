//! The stack on tokio: one task drives it, and connections are async streams.
//!
//! All share one mutex, which is held for one call of the stack and never across an `await`.
//! [`Net::run`] sleeps until a packet, a write or a deadline; nothing polls.

mod stream;

pub use stream::Stream;

use crate::connection::Broken;
use crate::counters::Counters;
use crate::stack::{CannotConnect, Id, Remote, Stack};
use postern_proto::keys::PublicKey;
use postern_proto::now::Mono;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Takes the packets that the stack makes. Must not block; may lose a packet when it is full.
type Send = Box<dyn FnMut(&PublicKey, &[u8]) + std::marker::Send>;

/// A stack that is being driven. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// There is something to send, or an earlier deadline.
    work: Notify,
    /// The last connection has ended.
    empty: Notify,
    started: Instant,
}

struct Inner {
    stack: Stack,
    send: Send,
    wakers: BTreeMap<Id, Wakers>,
    acceptor: Option<Waker>,
    /// When [`Net::run`] comes back by itself.
    armed: Mono,
}

/// Who waits for a connection.
#[derive(Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Takes connections that others open.
pub struct Listener(Net);

/// Opens connections to one tag.
#[derive(Clone)]
pub struct Connector {
    net: Net,
    tag: PublicKey,
}

impl Net {
    /// Nothing happens before [`Net::run`] is polled.
    #[must_use]
    pub fn new(
        stack: Stack,
        send: impl FnMut(&PublicKey, &[u8]) + std::marker::Send + 'static,
    ) -> Net {
        Net(Arc::new(Shared {
            inner: Mutex::new(Inner {
                stack,
                send: Box::new(send),
                wakers: BTreeMap::new(),
                acceptor: None,
                armed: Mono::NEVER,
            }),
            work: Notify::new(),
            empty: Notify::new(),
            started: Instant::now(),
        }))
    }

    /// Drives the stack for as long as it is polled.
    pub async fn run(&self) {
        loop {
            let deadline = self.turn();
            let worked = self.0.work.notified();
            if deadline == Mono::NEVER {
                worked.await;
                continue;
            }
            if deadline <= self.now() {
                tokio::task::yield_now().await;
                continue;
            }
            let until = self.0.started + Duration::from_nanos(deadline.0);
            tokio::select! {
                () = worked => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// A packet that `tag` decrypted, which came from `outer`.
    pub fn receive(&self, tag: PublicKey, outer: Option<SocketAddr>, packet: &[u8]) {
        let now = self.now();
        let mut inner = self.lock();
        inner.stack.receive(tag, outer, packet, now);
        self.0.work.notify_one();
    }

    /// Lets connections to this port in. One listener takes them all.
    #[must_use]
    pub fn listen(&self, port: u16) -> Listener {
        self.lock().stack.listen(port);
        Listener(self.clone())
    }

    /// Opens connections whose packets `tag` encrypts and decrypts.
    #[must_use]
    pub fn connector(&self, tag: PublicKey) -> Connector {
        Connector {
            net: self.clone(),
            tag,
        }
    }

    /// Returns when there is no connection.
    pub async fn drained(&self) {
        loop {
            let empty = self.0.empty.notified();
            if self.counters().connections == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Ends every connection of a tag with a reset.
    pub fn abort_tag(&self, tag: &PublicKey) {
        let now = self.now();
        self.lock().stack.abort_tag(tag, now);
        self.0.work.notify_one();
    }

    /// What the stack counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().stack.counters()
    }

    /// Sends what there is to send, wakes who waits, and says when to come back.
    fn turn(&self) -> Mono {
        let now = self.now();
        let inner = &mut *self.lock();
        inner.stack.transmit(now, &mut inner.send);
        for id in inner.stack.take_touched() {
            if let Some(wakers) = inner.wakers.get_mut(&id) {
                [wakers.reader.take(), wakers.writer.take()]
                    .into_iter()
                    .flatten()
                    .for_each(Waker::wake);
            }
        }
        if inner.stack.has_waiting()
            && let Some(acceptor) = inner.acceptor.take()
        {
            acceptor.wake();
        }
        if inner.stack.counters().connections == 0 {
            self.0.empty.notify_waiters();
        }
        inner.armed = inner.stack.next_deadline();
        inner.armed
    }

    fn now(&self) -> Mono {
        Mono::default() + self.0.started.elapsed()
    }

    /// What is behind a poisoned lock is a stack between two calls: as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call of the stack for a connection, which may leave it with something to do earlier.
    fn call<T>(&self, call: impl FnOnce(&mut Inner, Mono) -> T) -> T {
        let now = self.now();
        let mut inner = self.lock();
        let result = call(&mut inner, now);
        if inner.stack.next_deadline() < inner.armed {
            self.0.work.notify_one();
        }
        result
    }
}

impl Listener {
    /// The next connection that somebody opens.
    pub async fn accept(&mut self) -> (Stream, Remote) {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<(Stream, Remote)> {
        let mut inner = self.0.lock();
        match inner.stack.accept() {
            Some((id, remote)) => {
                inner.wakers.insert(id, Wakers::default());
                drop(inner);
                Poll::Ready((Stream::new(self.0.clone(), id), remote))
            }
            None => {
                inner.acceptor = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Connector {
    /// A connection whose handshake is over.
    ///
    /// # Errors
    /// It was refused, nobody answered in time, or none can be opened.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let id = self.net.call(|inner, now| {
            let id = inner.stack.connect(self.tag, to, now)?;
            inner.wakers.insert(id, Wakers::default());
            Ok(id)
        });
        let id = id.map_err(cannot_connect)?;
        // From here on it is let go when nobody waits any more.
        let stream = Stream::new(self.net.clone(), id);
        poll_fn(|context| stream.poll_open(context)).await?;
        Ok(stream)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lock().stack.fmt(f)
    }
}

fn cannot_connect(error: CannotConnect) -> io::Error {
    let kind = match error {
        CannotConnect::Full => io::ErrorKind::ResourceBusy,
        CannotConnect::NoWay => io::ErrorKind::AddrNotAvailable,
    };
    io::Error::new(kind, error)
}

fn broken(error: Broken) -> io::Error {
    let kind = match error {
        Broken::Reset => io::ErrorKind::ConnectionReset,
        Broken::TimedOut => io::ErrorKind::TimedOut,
        Broken::Refused => io::ErrorKind::ConnectionRefused,
        Broken::Closed => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests;
