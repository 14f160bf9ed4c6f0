//! The client's write half: replies collect here and leave in one system call per batch.
//!
//! Lanes write to it from their own task, so in the common case a reply reaches the client
//! without waking its session. The session is woken only for what it waits for: its last owed
//! reply, room in its pipeline, a socket that takes no more, or the end of its lane.
//!
//! **Invariant:** `owed` counts the replies that lanes owe this session; at 0 everything the
//! session asked of a lane has been delivered, so it may change lanes without changing the order
//! of its replies.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};

use super::counts::Counts;
use super::state::Closed;
use super::withheld::Withheld;
use crate::shard::gate::Gate;
use crate::transport::WriteHalf;
use crate::upstream::lane::ReplySink;

/// A larger buffer is given back to the allocator once it is empty.
const KEEP_BYTES: usize = 64 * 1024;
/// Parts of replies from this size are written from where they lie.
const LARGE_PART_BYTES: usize = 16 * 1024;
/// While a client leaves this much untaken, its next requests wait.
const ROOM_BYTES: usize = 1 << 20;
/// A client that takes nothing for so long may be one that writes all of its requests before it
/// reads the first reply. Servers serve it; to wait for it would be to wait for ever.
const STALLED_AFTER: Duration = Duration::from_millis(20);
/// The share of the largest backlog up to which such a client is served: a reply of the largest
/// size still fits behind it.
const ROOM_SHARE: usize = 8;

/// Whether replies still reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    Open,
    /// The client does not take what is written to it: gone, or too slow for the limit.
    Broken(Broken),
    /// A lane that owed replies was cut; `writes` of them answered writes of unknown fate.
    Cut {
        writes: usize,
    },
}

impl OutboxState {
    /// A session whose outbox is not open has to end, for this reason.
    #[inline]
    pub fn check(self) -> Result<(), Closed> {
        match self {
            Self::Open => Ok(()),
            Self::Cut { writes: 0 } => Err(Closed::UpstreamLost),
            Self::Cut { .. } => Err(Closed::AmbiguousWrite),
            Self::Broken(Broken::Gone) => Err(Closed::ClientGone),
            Self::Broken(Broken::OutputLimit) => Err(Closed::OutputLimit),
            Self::Broken(Broken::Killed) => Err(Closed::Killed),
        }
    }
}

/// What is wrong with a client that takes no replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Gone,
    OutputLimit,
    /// Somebody ended it: `CLIENT KILL`, or the end of its user.
    Killed,
}

/// Replies on their way to one client.
#[derive(Debug)]
pub struct Outbox {
    write: WriteHalf,
    buffer: RefCell<BytesMut>,
    buffer_max: usize,
    owed: Cell<usize>,
    /// The session wants to be woken when `owed` falls to this.
    wake_at: Cell<Option<usize>>,
    /// The socket took no more; the session must wait until it does.
    blocked: Cell<bool>,
    touched: Cell<bool>,
    /// Untaken bytes up to which the client's next requests are served.
    room: Cell<usize>,
    /// Bytes that the client has taken.
    taken: Cell<u64>,
    /// Requests that have been answered, also those whose answer the client does not want.
    answered: Cell<u64>,
    /// What it had taken when its requests began to wait, and until when it is waited for.
    patience: RefCell<Option<(u64, Pin<Box<Sleep>>)>>,
    state: Cell<OutboxState>,
    /// Something was refused, or lost with its lane: it and what was answered behind it waits for
    /// the session.
    withheld: RefCell<Option<Withheld>>,
    session: RefCell<Option<Waker>>,
    gate: Rc<Gate>,
    counts: Rc<Counts>,
}

impl Outbox {
    pub fn new(
        write: WriteHalf,
        buffer_max: usize,
        gate: Rc<Gate>,
        counts: Rc<Counts>,
    ) -> Rc<Self> {
        Rc::new(Self {
            write,
            buffer: RefCell::default(),
            buffer_max,
            owed: Cell::new(0),
            wake_at: Cell::new(None),
            blocked: Cell::new(false),
            touched: Cell::new(false),
            room: Cell::new(ROOM_BYTES),
            taken: Cell::new(0),
            answered: Cell::new(0),
            patience: RefCell::default(),
            state: Cell::new(OutboxState::Open),
            withheld: RefCell::default(),
            session: RefCell::default(),
            gate,
            counts,
        })
    }

    pub fn state(&self) -> OutboxState {
        self.state.get()
    }

    pub fn owed(&self) -> usize {
        self.owed.get()
    }

    /// Takes note of requests that a lane will answer here.
    pub fn owe(&self, count: usize) {
        self.set_owed(self.owed.get() + count);
    }

    #[inline]
    fn set_owed(&self, owed: usize) {
        let waiting = &self.counts.waiting;
        match (self.owed.replace(owed), owed) {
            (0, 1..) => waiting.set(waiting.get() + 1),
            (1.., 0) => waiting.set(waiting.get().saturating_sub(1)),
            _ => {}
        }
    }

    /// Whether something was refused, and the session has to see to it before anything else.
    #[inline]
    pub fn is_withheld(&self) -> bool {
        self.withheld.borrow().is_some()
    }

    /// What was refused, and everything behind it. Called with no reply owed.
    pub fn take_withheld(&self) -> Option<Withheld> {
        self.withheld.take()
    }

    /// A request has its answer.
    #[inline]
    pub fn answered_one(&self) {
        self.answered.set(self.answered.get().wrapping_add(1));
    }

    /// Requests that have been answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Bytes that the client has not taken yet; in TLS what is encrypted counts as one.
    pub fn backlog(&self) -> usize {
        self.buffer.borrow().len() + usize::from(self.write.has_unsent())
    }

    /// Whether the client leaves so much untaken that its next requests have to wait.
    pub fn is_crowded(&self) -> bool {
        self.backlog() > self.room.get()
    }

    /// Ready when the client's next requests need not wait any more: it has taken what it was sent,
    /// or takes nothing at all and there is room for more. Polled behind `poll_flushed`.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut patience = self.patience.borrow_mut();
        while self.is_crowded() {
            let begin = || (self.taken.get(), Box::pin(sleep(STALLED_AFTER)));
            let (taken, timer) = patience.get_or_insert_with(begin);
            ready!(timer.as_mut().poll(context));
            if *taken == self.taken.get() {
                let most = (self.buffer_max / ROOM_SHARE).max(ROOM_BYTES);
                self.room.set((2 * self.room.get()).min(most));
            }
            *patience = None;
        }
        *patience = None;
        Poll::Ready(())
    }

    /// Asks for a wake-up as soon as no more than `count` replies are owed.
    pub fn wake_at(&self, count: usize) {
        self.wake_at.set(Some(count));
    }

    /// The task to wake. Called at each poll of the session.
    pub fn remember(&self, waker: &Waker) {
        let mut session = self.session.borrow_mut();
        if !session.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *session = Some(waker.clone());
        }
    }

    /// Writes what the session itself answers.
    pub fn push(&self, bytes: &[u8]) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.len().saturating_add(bytes.len()) > self.buffer_max {
            drop(buffer);
            self.fail(OutboxState::Broken(Broken::OutputLimit));
            return;
        }
        buffer.extend_from_slice(bytes);
    }

    /// Writes a large part of a reply as far as the client takes it, without copying it first.
    fn push_large(&self, mut part: &[u8]) {
        if !self.blocked.get() && self.write_buffered().is_ok() {
            while let Ok(sent @ 1..) = self.write.try_write(part) {
                self.note_taken(sent);
                part = part.get(sent..).unwrap_or_default();
                if part.is_empty() {
                    return;
                }
            }
        }
        // Why no more was taken is found out by the flush that follows.
        self.push(part);
    }

    fn note_taken(&self, sent: usize) {
        self.counts.bytes_out.add(sent as u64);
        self.taken.set(self.taken.get() + sent as u64);
    }

    /// Writes as much as the client takes now.
    pub fn flush_now(&self) {
        self.touched.set(false);
        if self.blocked.get() {
            return;
        }
        match self.write_buffered() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.set(true);
                self.wake();
            }
            Err(_) => self.fail(OutboxState::Broken(Broken::Gone)),
        }
    }

    /// Ready when nothing is left to write. The session polls this whenever it waits.
    pub fn poll_flushed(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.state.get() != OutboxState::Open {
                return Poll::Ready(());
            }
            match self.write_buffered() {
                Ok(()) => {
                    self.blocked.set(false);
                    return Poll::Ready(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.set(true);
                    match self.write.poll_write_ready(context) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => self.fail(OutboxState::Broken(Broken::Gone)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Err(_) => self.fail(OutboxState::Broken(Broken::Gone)),
            }
        }
    }

    fn write_buffered(&self) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        while !buffer.is_empty() {
            let sent = self.write.try_write(&buffer)?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.note_taken(sent);
            buffer.advance(sent);
        }
        self.write.try_flush()?;
        self.room.set(ROOM_BYTES);
        if buffer.capacity() > KEEP_BYTES {
            *buffer = BytesMut::new();
        }
        Ok(())
    }

    fn fail(&self, state: OutboxState) {
        if self.state.get() == OutboxState::Open {
            self.state.set(state);
        }
        self.wake();
    }

    /// Ends the session: nothing more reaches the client.
    pub fn kill(&self) {
        self.fail(OutboxState::Broken(Broken::Killed));
    }

    /// Wakes the session, for whatever it has to look at.
    pub fn wake(&self) {
        if let Some(session) = self.session.borrow().as_ref() {
            session.wake_by_ref();
        }
    }
}

impl ReplySink for Outbox {
    #[inline]
    fn deliver(&self, bytes: &[u8]) {
        if self.state.get() != OutboxState::Open {
            return;
        }
        if bytes.len() < LARGE_PART_BYTES {
            self.push(bytes);
        } else {
            self.push_large(bytes);
        }
    }

    #[inline]
    fn replied(&self, write: bool) {
        if write {
            self.gate.write_ended(1);
        }
        self.answered_one();
        let owed = self.owed.get().saturating_sub(1);
        self.set_owed(owed);
        if self.wake_at.get().is_some_and(|at| owed <= at) {
            self.wake_at.set(None);
            self.wake();
        }
    }

    fn withhold(&self, bytes: &[u8]) {
        let mut withheld = self.withheld.borrow_mut();
        let withheld = withheld.get_or_insert_default();
        if withheld.reply_bytes().saturating_add(bytes.len()) <= self.buffer_max {
            return withheld.part(bytes);
        }
        self.fail(OutboxState::Broken(Broken::OutputLimit));
    }

    fn withheld(&self, request: &[u8], write: bool, mute: bool) {
        if let Some(withheld) = self.withheld.borrow_mut().as_mut() {
            withheld.whole(request, write, mute);
        }
        // It is replied to as far as the lane goes, and not as far as the client does.
        self.answered.set(self.answered.get().wrapping_sub(1));
        // It waits for the last of them.
        self.wake_at(0);
    }

    fn cut(&self, owed: usize, writes: usize) {
        self.gate.write_ended(writes);
        self.set_owed(self.owed.get().saturating_sub(owed));
        self.fail(OutboxState::Cut { writes });
    }

    fn lost(&self, requests: &[u8], owed: usize, mute: bool) {
        let mut withheld = self.withheld.borrow_mut();
        withheld.get_or_insert_default().lost(requests, mute);
        drop(withheld);
        self.set_owed(self.owed.get().saturating_sub(owed));
        self.wake();
    }

    #[inline]
    fn flush(&self) {
        self.flush_now();
    }

    #[inline]
    fn mark_touched(&self) -> bool {
        !self.touched.replace(true)
    }
}
