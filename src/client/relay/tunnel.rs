//! The connection as a tunnel: after `PSYNC`, `SYNC` and their like it carries something else than
//! requests and replies, and the proxy passes the bytes on without a look at them.
//!
//! **Invariants:** a connection that was a tunnel is never given back. A tunnel leads to the
//! master: when the route leaves its node it is closed, and whoever is at its other end connects
//! again, as after any failover. Neither side can make the other's bytes pile up.
//!
//! A server that refuses says so with an error, and the session goes on as before: until the first
//! byte of the answer is here, nothing more of the client is passed on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::io::poll_read_buf;

use super::super::state::Closed;
use super::{Awaited, Expect, Keeps, OUT_BYTES_MAX, READ_BYTES, Relay};
use crate::client::outbox::OutboxState;

/// How far the server has gone along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    /// It has not said yet what it makes of the request.
    Asked,
    Open,
}

impl Relay<'_> {
    /// Passes on the request of `len` bytes in front. Returns when the server has refused it, and
    /// otherwise when the tunnel has ended.
    pub(super) async fn tunnel(&mut self, len: usize) -> Result<(), Closed> {
        let request = self.session.input.split_to(len);
        self.out.extend_from_slice(&request);
        self.session.seat.counts.reads.add(1);
        self.keeps = Keeps::Unknown;
        self.session.outbox.flush_now();
        let first = poll_fn(|context| self.poll_tunnel(context, Tunnel::Asked)).await?;
        if first == Some(b'-') {
            self.expects.push_back(Expect::own(Awaited::Plain, false));
            return self.deal();
        }
        self.out.extend_from_slice(&self.session.input);
        self.session.input.clear();
        self.shown.0.replicates(true);
        poll_fn(|context| self.poll_tunnel(context, Tunnel::Open)).await?;
        Ok(())
    }

    /// `Asked`: ready with the first byte of the answer. `Open`: ready only with why it ended.
    fn poll_tunnel(
        &mut self,
        context: &mut Context<'_>,
        state: Tunnel,
    ) -> Poll<Result<Option<u8>, Closed>> {
        self.session.outbox.remember(context.waker());
        self.watch.register(context.waker());
        if let Err(why) = self.may_stay_open() {
            return Poll::Ready(Err(why));
        }
        if self.session.outbox.backlog() > 0 {
            let _ = self.session.outbox.poll_flushed(context);
        }
        if let Err(why) = self.poll_tunnel_up(context, state) {
            return Poll::Ready(Err(why));
        }
        while !self.session.outbox.is_crowded() {
            if !self.link.input.is_empty() {
                if let (Tunnel::Asked, Some(first)) = (state, self.answered()) {
                    return Poll::Ready(Ok(Some(first)));
                }
                self.session.outbox.push(&self.link.input);
                self.link.input.clear();
                self.session.outbox.flush_now();
            }
            self.link.input.reserve(READ_BYTES);
            let read = Pin::new(&mut self.link.read);
            match poll_read_buf(read, context, &mut self.link.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Closed::UpstreamLost)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        // Woken by the outbox when its client has taken enough.
        Poll::Pending
    }

    fn may_stay_open(&self) -> Result<(), Closed> {
        let session = &*self.session;
        if session.outbox.state() != OutboxState::Open {
            return session.outbox.state().check();
        }
        if self.has_moved() {
            return Err(Closed::NotCarried);
        }
        if session.seat.is_stopping() {
            return Err(Closed::Shutdown);
        }
        Ok(())
    }

    /// What the server answered with; line ends alone only say that it still works at it.
    fn answered(&self) -> Option<u8> {
        let says = |byte: &&u8| !matches!(byte, b'\r' | b'\n');
        self.link.input.iter().find(says).copied()
    }

    fn poll_tunnel_up(&mut self, context: &mut Context<'_>, state: Tunnel) -> Result<(), Closed> {
        loop {
            match self.poll_out(context) {
                Poll::Ready(Err(_)) => return Err(Closed::UpstreamLost),
                Poll::Pending if self.out.len() > OUT_BYTES_MAX => return Ok(()),
                _ => {}
            }
            if state == Tunnel::Asked {
                let gone = self.session.poll_hung_up(context);
                return if gone {
                    Err(Closed::ClientGone)
                } else {
                    Ok(())
                };
            }
            if self.session.poll_read(context).is_pending() {
                return Ok(());
            }
            if self.session.eof {
                return Err(Closed::ClientGone);
            }
            self.out.extend_from_slice(&self.session.input);
            self.session.input.clear();
        }
    }
}
