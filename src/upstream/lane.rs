//! A connection shared by many sessions; replies are matched to requests in FIFO order.
//!
//! Sharing is what makes the proxy cheap: many unpipelined clients become one pipelined stream,
//! so both the proxy and the server make one system call for many requests. Sessions of a
//! tick append their requests ([`Lane::send`]); the lane's task, woken by the first of them, runs
//! after them and writes everything at once.
//!
//! **Invariants:** a lane carries only complete requests that give exactly one reply each and
//! leave the connection as it was. A reply without a waiter, a push, or bytes that are no RESP cut
//! the lane: from then on nobody could say whose reply is whose. A write whose lane was cut before
//! its reply is never sent again; reads are given back to their session. A lane that nobody will
//! use again waits for the replies that it owes only as long as some come. From the first refusal
//! on (an error that proves that a request was not executed) a session's replies are given to the
//! session, each with its request, instead of to its client.
//!
//! # Trade-offs
//! A large reply delays its neighbours on the lane for as long as the server takes to send it;
//! it is taken off into the session's own buffer, so a slow client delays nobody.
//!
//! Tried and left out, on two cores:
//! * sending what is queued before the end of the tick when much comes together, so that the server
//!   begins earlier: no difference with pipelines of 16, and a third less of 2 KB values when bytes are
//!   counted;
//! * handing each session its replies before the next one's are looked at: no difference.

mod task;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::connection::Connection;
use super::on_way::OnWay;
use crate::transport::WriteHalf;
pub use task::LaneTask;

/// Requests without a reply; above this the lane takes no more. Enough to keep any server busy.
const ON_WAY_BYTES_MAX: usize = 4 << 20;

/// Where a lane delivers replies: a session's outbox.
pub trait ReplySink {
    /// Takes a part, or the rest, of the reply that is due.
    fn deliver(&self, bytes: &[u8]);
    /// The reply that is due has been delivered whole. `write`: it answers a write.
    fn replied(&self, write: bool);
    /// Takes a part, or the rest, of a reply that its client must not see yet.
    fn withhold(&self, bytes: &[u8]);
    /// The reply that is being withheld is whole; it answers this.
    fn withheld(&self, request: &[u8], write: bool, mute: bool);
    /// Replies owed by a lane that was cut will never come.
    fn cut(&self, owed: usize, writes: usize);
    /// The same, and these are the `owed` requests: reads of which nothing has been answered.
    fn lost(&self, requests: &[u8], owed: usize, mute: bool);
    /// A batch of replies has been delivered: write them to the client.
    fn flush(&self);
    /// Takes note that a flush is due; `true` the first time since the last flush.
    fn mark_touched(&self) -> bool;
}

/// Replies owed in a row to one session.
#[derive(Debug)]
struct Waiter<S> {
    sink: Rc<S>,
    owed: usize,
    /// Replies that it has had.
    answered: usize,
    /// Length of all its requests, answered or not.
    bytes: usize,
    write: bool,
    /// The client asked for no reply (`CLIENT REPLY OFF`): it is read and thrown away.
    mute: bool,
    destination: Destination,
}

/// Where replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Client,
    /// Something of the session was refused: it has to see what becomes of the rest.
    Session,
}

/// Why a lane is gone, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server hung up, or the connection broke.
    Closed,
    /// A reply that nobody waits for, a push, or no RESP at all.
    OutOfStep,
    /// Nobody uses it any more, and the node has owed replies for too long.
    Silent,
}

/// A shared connection. Sessions hold it by `Rc`; its task ends when the connection does.
#[derive(Debug)]
pub struct Lane<S> {
    write: WriteHalf,
    on_way: RefCell<OnWay>,
    waiters: RefCell<VecDeque<Waiter<S>>>,
    owed: Cell<usize>,
    cut: Cell<Option<Cut>>,
    /// For how long it may be silent while it owes replies, once nobody uses it any more.
    retired: Cell<Option<Duration>>,
    task: RefCell<Option<Waker>>,
    task_woken: Cell<bool>,
    /// Sessions that wait for room, or for the lane to end.
    room: RefCell<Vec<Waker>>,
}

impl<S: ReplySink> Lane<S> {
    /// Turns a fresh connection into a lane and the task that must be spawned for it.
    pub fn new(connection: Connection) -> (Rc<Self>, LaneTask<S>) {
        let lane = Rc::new(Self {
            write: connection.write,
            on_way: RefCell::default(),
            waiters: RefCell::default(),
            owed: Cell::new(0),
            cut: Cell::new(None),
            retired: Cell::new(None),
            task: RefCell::default(),
            task_woken: Cell::new(false),
            room: RefCell::default(),
        });
        let task = LaneTask::new(&lane, connection.read, connection.input, connection.scanner);
        (lane, task)
    }

    /// Queues `count` whole requests, all writes or all reads, and owes `sink` their replies.
    ///
    /// The caller has checked [`Lane::is_open`] in this same tick.
    #[inline]
    pub fn send(&self, requests: &[u8], sink: &Rc<S>, count: usize, write: bool, mute: bool) {
        self.on_way.borrow_mut().push(requests);
        self.owed.set(self.owed.get() + count);
        let mut waiters = self.waiters.borrow_mut();
        match waiters.back_mut() {
            Some(last)
                if last.write == write && last.mute == mute && Rc::ptr_eq(&last.sink, sink) =>
            {
                debug_assert_eq!(last.destination, Destination::Client);
                last.owed += count;
                last.bytes += requests.len();
            }
            _ => waiters.push_back(Waiter {
                sink: Rc::clone(sink),
                owed: count,
                answered: 0,
                bytes: requests.len(),
                write,
                mute,
                destination: Destination::Client,
            }),
        }
        if !self.task_woken.replace(true)
            && let Some(task) = self.task.borrow().as_ref()
        {
            task.wake_by_ref();
        }
    }

    pub fn is_open(&self) -> bool {
        self.cut.get().is_none()
    }

    /// Replies owed to all sessions: how busy the lane is.
    pub fn owed(&self) -> usize {
        self.owed.get()
    }

    /// Whether the server is too slow for more to be queued.
    pub fn is_full(&self) -> bool {
        self.on_way.borrow().len() > ON_WAY_BYTES_MAX
    }

    /// Calls the waker once there is room again, or the lane is cut.
    pub fn wait_for_room(&self, waker: &Waker) {
        self.room.borrow_mut().push(waker.clone());
    }

    pub fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    /// Nobody will use this lane again: it closes as soon as it owes no reply, or has been silent
    /// for so long.
    pub fn retire(&self, silence_max: Duration) {
        self.retired.set(Some(silence_max));
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    /// `begun`: a part of the reply in front has been dealt out.
    fn end(&self, why: Cut, mut begun: bool) {
        if self.cut.get().is_some() {
            return;
        }
        self.cut.set(Some(why));
        self.owed.set(0);
        // The borrows end before the sinks run: one of them may look at this lane.
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        let on_way = std::mem::take(&mut *self.on_way.borrow_mut());
        let mut at = 0;
        for waiter in waiters {
            let is_whole = !std::mem::take(&mut begun) && why != Cut::OutOfStep;
            let unanswered = on_way.behind(at, waiter.bytes, waiter.answered);
            at += waiter.bytes;
            match unanswered.filter(|_| is_whole && !waiter.write) {
                Some(requests) => waiter.sink.lost(requests, waiter.owed, waiter.mute),
                None => {
                    let writes = if waiter.write { waiter.owed } else { 0 };
                    waiter.sink.cut(waiter.owed, writes);
                }
            }
        }
        self.wake_room();
    }

    fn wake_room(&self) {
        for waker in self.room.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Writes what is queued. `Pending` means that the server does not read fast enough; the
    /// task will be woken when it does.
    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_way.borrow_mut().poll_send(&self.write, context)
    }

    /// The oldest requests, of this length, have their replies.
    fn answered(&self, len: usize) -> Result<(), Cut> {
        let mut on_way = self.on_way.borrow_mut();
        let was_full = on_way.len() > ON_WAY_BYTES_MAX;
        on_way.answered(len).ok_or(Cut::OutOfStep)?;
        let has_room = on_way.len() <= ON_WAY_BYTES_MAX;
        drop(on_way);
        if was_full && has_room {
            self.wake_room();
        }
        Ok(())
    }
}

/// Requests that were refused. Cold: this happens when the master changes.
impl<S: ReplySink> Lane<S> {
    /// The session in front has been refused: it gets all replies that it is owed, this one first.
    /// `answered` bytes in front have been answered; says how many have now.
    #[cold]
    fn withhold(
        &self,
        waiters: &mut VecDeque<Waiter<S>>,
        mut answered: usize,
    ) -> Result<usize, Cut> {
        let Some(sink) = waiters.front().map(|waiter| Rc::clone(&waiter.sink)) else {
            return Err(Cut::OutOfStep);
        };
        if let Some(front) = waiters.front_mut() {
            let on_way = self.on_way.borrow();
            for _ in 0..std::mem::take(&mut front.answered) {
                let len = on_way.request(answered).ok_or(Cut::OutOfStep)?.len();
                answered += len;
                front.bytes = front.bytes.saturating_sub(len);
            }
        }
        for waiter in waiters.iter_mut() {
            if Rc::ptr_eq(&waiter.sink, &sink) {
                waiter.destination = Destination::Session;
            }
        }
        Ok(answered)
    }

    /// Gives the session the request that has just been answered, `answered` bytes from the front.
    fn take_out(&self, waiter: &mut Waiter<S>, answered: usize) -> Result<usize, Cut> {
        let on_way = self.on_way.borrow();
        let request = on_way.request(answered).ok_or(Cut::OutOfStep)?;
        waiter.sink.withheld(request, waiter.write, waiter.mute);
        waiter.bytes = waiter.bytes.saturating_sub(request.len());
        Ok(answered + request.len())
    }
}
