//! One connection as an async stream.

use super::{Net, broken};
use crate::stack::Id;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection. Dropped, it ends in order after what was written.
pub struct Stream {
    net: Net,
    id: Id,
}

impl Stream {
    pub(super) fn new(net: Net, id: Id) -> Stream {
        Stream { net, id }
    }

    /// Whether the handshake is over.
    pub(super) fn poll_open(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net
            .call(|inner, _| match inner.stack.is_open(self.id) {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => {
                    let wakers = inner.wakers.entry(self.id).or_default();
                    wait(&mut wakers.writer, context)
                }
                Err(error) => Poll::Ready(Err(broken(error))),
            })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.net.call(|inner, now| {
            let free = room.initialize_unfilled();
            match inner.stack.read(self.id, free, now) {
                Ok(Some(read)) => {
                    room.advance(read);
                    Poll::Ready(Ok(()))
                }
                Ok(None) => {
                    let wakers = inner.wakers.entry(self.id).or_default();
                    wait(&mut wakers.reader, context)
                }
                Err(error) => Poll::Ready(Err(broken(error))),
            }
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.net
            .call(|inner, now| match inner.stack.write(self.id, bytes, now) {
                Ok(Some(written)) => Poll::Ready(Ok(written)),
                Ok(None) => {
                    let wakers = inner.wakers.entry(self.id).or_default();
                    wait(&mut wakers.writer, context)
                }
                Err(error) => Poll::Ready(Err(broken(error))),
            })
    }

    /// What is written is on its way: nothing waits here for more.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.call(|inner, now| inner.stack.close(self.id, now));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.net.call(|inner, now| {
            inner.wakers.remove(&self.id);
            inner.stack.release(self.id, now);
        });
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.id)
    }
}

fn wait<T>(place: &mut Option<Waker>, context: &Context<'_>) -> Poll<T> {
    *place = Some(context.waker().clone());
    Poll::Pending
}
