//! What drives a lane: it writes what was queued, and deals out replies as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;

use super::{Cut, Destination, Lane, ReplySink};
use crate::resp::refusal::{self, Verdict};
use crate::resp::scan::{Reply, ReplyScanner};
use crate::transport::ReadHalf;

/// Room made before each read from the server.
const READ_BYTES: usize = 64 * 1024;
/// The same in the middle of a large value: fewer and larger reads, each passed on in one write.
const LARGE_READ_BYTES: usize = 512 * 1024;

/// The receiving side of a lane; [`LaneTask::run`] drives both sides.
#[derive(Debug)]
pub struct LaneTask<S> {
    lane: Rc<Lane<S>>,
    read: ReadHalf,
    input: BytesMut,
    scanner: ReplyScanner,
    touched: Vec<Rc<S>>,
    /// Runs while the lane is retired and nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<S: ReplySink> LaneTask<S> {
    /// `input`: what has been read already, as far as `scanner` has not seen it.
    pub(super) fn new(
        lane: &Rc<Lane<S>>,
        read: ReadHalf,
        input: BytesMut,
        scanner: ReplyScanner,
    ) -> Self {
        Self {
            lane: Rc::clone(lane),
            read,
            input,
            scanner,
            touched: Vec::new(),
            silence: None,
        }
    }

    /// Writes requests and deals out replies until the connection ends; says why it did.
    pub async fn run(mut self) -> Cut {
        let why = poll_fn(|context| self.poll(context)).await;
        self.flush_touched();
        self.lane.end(why, self.scanner.mid_reply());
        why
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        self.remember_task(context);
        if let Some(why) = self.lane.cut.get() {
            return Poll::Ready(why);
        }
        if let Poll::Ready(Err(_)) = self.lane.poll_flush(context) {
            return Poll::Ready(Cut::Closed);
        }
        loop {
            if self.lane.is_retired() && self.lane.owed.get() == 0 {
                return Poll::Ready(Cut::Closed);
            }
            self.make_room();
            match poll_read_buf(Pin::new(&mut self.read), context, &mut self.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Cut::Closed),
                Poll::Ready(Ok(_)) => {
                    self.silence = None;
                    let dealt = self.deal();
                    self.flush_touched();
                    if let Err(why) = dealt {
                        return Poll::Ready(why);
                    }
                }
                Poll::Pending => return self.poll_silence(context),
            }
        }
    }

    /// Without an end a frozen node that has been left would keep its writes in flight, and so
    /// every later hold from draining.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        let Some(silence_max) = self.lane.retired.get() else {
            return Poll::Pending;
        };
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(sleep(silence_max)));
        silence.as_mut().poll(context).map(|()| Cut::Silent)
    }

    fn make_room(&mut self) {
        if self.scanner.body_left() > READ_BYTES as u64 {
            self.input.reserve(LARGE_READ_BYTES);
            return;
        }
        if self.input.is_empty() && self.input.capacity() >= LARGE_READ_BYTES / 2 {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ_BYTES);
    }

    fn remember_task(&self, context: &Context<'_>) {
        self.lane.task_woken.set(false);
        let mut task = self.lane.task.borrow_mut();
        if !task
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *task = Some(context.waker().clone());
        }
    }

    /// Deals out every reply, and the beginning of one, that has been read.
    fn deal(&mut self) -> Result<(), Cut> {
        let mut waiters = self.lane.waiters.borrow_mut();
        let (mut at, mut answered) = (0, 0);
        loop {
            let rest = self.input.get(at..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let begins = !self.scanner.mid_reply();
            if begins && rest.first() == Some(&b'-') {
                match refusal::judge(rest) {
                    Verdict::Incomplete => break,
                    Verdict::Refused(_) => answered = self.lane.withhold(&mut waiters, answered)?,
                    Verdict::Other => {}
                }
            }
            let push = begins && rest.first() == Some(&b'>');
            let (len, complete) = match self.scanner.scan(rest) {
                Ok(_) if push => return Err(Cut::OutOfStep),
                Err(_) => return Err(Cut::OutOfStep),
                Ok(Reply::Complete { len, .. }) => (len, true),
                Ok(Reply::Partial { len }) => (len, false),
            };
            let Some(waiter) = waiters.front_mut() else {
                return Err(Cut::OutOfStep);
            };
            let part = rest.get(..len).unwrap_or_default();
            if waiter.destination == Destination::Session {
                waiter.sink.withhold(part);
                if complete {
                    answered = self.lane.take_out(waiter, answered)?;
                }
            } else {
                waiter.answered += usize::from(complete);
                if !waiter.mute {
                    waiter.sink.deliver(part);
                    if waiter.sink.mark_touched() {
                        self.touched.push(Rc::clone(&waiter.sink));
                    }
                }
            }
            at += len;
            if !complete {
                break;
            }
            waiter.sink.replied(waiter.write);
            self.lane.owed.set(self.lane.owed.get().saturating_sub(1));
            waiter.owed -= 1;
            if waiter.owed == 0 {
                answered += waiter.bytes;
                waiters.pop_front();
            }
        }
        drop(waiters);
        self.input.advance(at);
        self.lane.answered(answered)
    }

    fn flush_touched(&mut self) {
        for sink in self.touched.drain(..) {
            sink.flush();
        }
    }
}
