//! What the server owes the relay, and what each reply means to it.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use super::effects::Effects;
use super::tracking::{Change, Tracking};
use super::upload::Upload;
use crate::client::state::Transaction;
use crate::resp::command::{Local, SubKind};
use crate::shard::gate::Gate;

/// Requests of one session that are kept until their replies are here.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// One reply the server owes, and what it means to the relay.
#[derive(Debug)]
pub(super) struct Expect {
    pub(super) what: Awaited,
    /// Counted at the gate as a write in flight.
    pub(super) write: bool,
    /// The client asked not to see it.
    pub(super) mute: bool,
    pub(super) kept: Kept,
    /// What an `EXEC` ends.
    pub(super) transaction: Option<Box<Transaction>>,
}

/// The client's request, for as long as the server may refuse to execute it.
#[derive(Debug)]
pub(super) enum Kept {
    /// The proxy's own.
    Own,
    /// So many bytes, behind those of the expectations before it.
    Whole(usize),
    /// A large one, in pieces.
    Pieces(Upload),
    /// It was too large.
    Gone,
}

impl Expect {
    /// A reply to a request of the proxy's own.
    pub(super) fn own(what: Awaited, mute: bool) -> Self {
        Self {
            what,
            write: false,
            mute,
            kept: Kept::Own,
            transaction: None,
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self.kept, Kept::Own) && !matches!(self.what, Awaited::Substitute(_))
    }
}

#[derive(Debug)]
pub(super) enum Awaited {
    Plain,
    /// What it leaves on the connection is not known, unless the server does not know it either.
    Sticky,
    ScriptFlush,
    Multi,
    Queued,
    /// `EXEC`, `DISCARD`, `UNWATCH`: the connection is clean after it, unless it is refused.
    Cleaning,
    /// `EXEC` of a transaction with commands in it that mean something to the session.
    Exec(Effects),
    /// `EXEC` whose reply is taken element by element: see [`super::unfold`].
    Unfolding,
    /// One of those elements.
    Element,
    /// The one that answers this `CLIENT REPLY`.
    ReplyMode(Bytes),
    /// A command about the session.
    Session(Local, Bytes),
    /// Takes back what such a command left on the connection.
    TakeBack,
    /// A command that waits on the server.
    Blocking,
    /// The last entry of a stream that is read from now on; the place of that `$`.
    LastId(usize),
    /// Confirmations of a (un)subscription, one per channel.
    Confirm(SubKind, usize),
    /// `CLIENT TRACKING`, `CLIENT CACHING`: what they ask for is done when the server agrees.
    Tracking(Box<Change>),
    /// What the server says of tracking, for the proxy; what the client asked for.
    TrackingInfo(Box<Tracking>),
    /// What was open on another master is being opened again: not for the client.
    Again(Again),
    /// Sent by the proxy; its reply is not for the client.
    Swallow,
    /// The same, and the server may owe one answer too many before it: see [`super::blocking`].
    Silence,
    /// The client gets this instead of the reply.
    Substitute(Vec<u8>),
}

impl Awaited {
    /// Whether the proxy asked by itself: a connection that is left need not answer it.
    pub(super) fn is_own(&self) -> bool {
        matches!(
            self,
            Self::Again(_) | Self::TakeBack | Self::LastId(_) | Self::Swallow | Self::Silence
        )
    }

    /// Whether what `CLIENT CACHING` said before counted for this command.
    pub(super) fn ends_caching(&self) -> bool {
        matches!(
            self,
            Self::Plain
                | Self::Cleaning
                | Self::Blocking
                | Self::Confirm(..)
                | Self::Sticky
                | Self::ScriptFlush
        )
    }
}

/// A step of opening again what was open on another master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// A mode of the connection is on.
    Mode,
    /// Tracking; when it is on, the client forgets its cache.
    Tracking,
    Caching,
    /// Confirmations of subscriptions, this many.
    Subscribed(usize),
    Monitor,
    /// The transaction, and each command of its queue.
    Multi,
    Queued,
    /// Answered when the command behind it waits on the server.
    Registered,
}

/// What the server owes, oldest first. Dropped with the relay: writes without a reply have ended
/// as far as the gate is concerned.
pub(super) struct Expects {
    queue: VecDeque<Expect>,
    /// The client's requests that they are about.
    requests: BytesMut,
    /// Only a beginning of them is kept: what is repeated is never the end of something.
    is_cut: bool,
    gate: Rc<Gate>,
}

impl Expects {
    pub(super) fn new(gate: Rc<Gate>) -> Self {
        Self {
            queue: VecDeque::new(),
            requests: BytesMut::new(),
            is_cut: false,
            gate,
        }
    }

    /// A request of the client has been sent.
    pub(super) fn sent(&mut self, request: &[u8], what: Awaited, write: bool, mute: bool) {
        self.is_cut &= !self.queue.is_empty();
        self.is_cut |= self.requests.len().saturating_add(request.len()) > KEPT_BYTES_MAX;
        let kept = if !self.is_cut {
            self.requests.extend_from_slice(request);
            Kept::Whole(request.len())
        } else {
            Kept::Gone
        };
        self.queue.push_back(Expect {
            what,
            write,
            mute,
            kept,
            transaction: None,
        });
    }

    /// The request that was sent last was the end of this.
    pub(super) fn was_end_of(&mut self, upload: Upload) {
        let Some(last) = self.queue.back_mut() else {
            return;
        };
        if let Kept::Whole(len) = last.kept {
            self.requests
                .truncate(self.requests.len().saturating_sub(len));
            self.is_cut |= !upload.is_kept();
            last.kept = if upload.is_kept() {
                Kept::Pieces(upload)
            } else {
                Kept::Gone
            };
        }
    }

    /// The oldest expectation, which has been taken out, is met.
    pub(super) fn met(&mut self, expect: &Expect) {
        if let Kept::Whole(len) = expect.kept {
            self.requests.advance(len.min(self.requests.len()));
        }
    }

    /// The same, and its request is wanted back.
    pub(super) fn take_back(&mut self, expect: &Expect) -> Option<Bytes> {
        match &expect.kept {
            Kept::Whole(len) => {
                let request = self.requests.get(..*len).map(Bytes::copy_from_slice);
                self.met(expect);
                request
            }
            Kept::Pieces(upload) => upload.whole(),
            Kept::Own | Kept::Gone => None,
        }
    }

    /// Whether the client waits for one of them.
    pub(super) fn any_of_client(&self) -> bool {
        self.queue.iter().any(|expect| !expect.is_own())
    }

    /// Whether one of them is a write that has not been answered.
    pub(super) fn any_write(&self) -> bool {
        self.queue.iter().any(|expect| expect.write)
    }

    /// Whether the client's last request under way is about its data: only such ones are refused
    /// for the node's role, and nothing about the session is sent behind them.
    pub(super) fn is_last_about_data(&self) -> bool {
        let mut asked = self.queue.iter().rev().filter(|expect| !expect.is_own());
        let last = asked.next();
        last.is_some_and(|last| !matches!(last.what, Awaited::Session(..)))
    }

    /// The connection is left: nothing is expected of it any more.
    pub(super) fn leave(&mut self) {
        let writes = self.queue.iter().filter(|expect| expect.write).count();
        self.gate.write_ended(writes);
        self.queue.clear();
        self.requests.clear();
    }
}

impl std::ops::Deref for Expects {
    type Target = VecDeque<Expect>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl std::ops::DerefMut for Expects {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.queue
    }
}

impl Drop for Expects {
    fn drop(&mut self) {
        self.gate
            .write_ended(self.queue.iter().filter(|expect| expect.write).count());
    }
}
