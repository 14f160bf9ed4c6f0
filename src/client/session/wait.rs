//! Everything that a session waits for: bytes, replies, room, the gate, a lane.
//!
//! **Invariant:** whatever it waits for, the session keeps delivering replies that its client has
//! not taken yet, and sees when the client is gone before it sends anything on its behalf.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::Interest;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use super::{OwnLane, Refused, Session};
use crate::client::links::{LaneAnswer, LaneUse};
use crate::client::outbox::OutboxState;
use crate::client::seat::INPUT_BYTES;
use crate::client::stand_in::Missed;
use crate::client::state::Closed;
use crate::resp::scan::Request;
use crate::shard::gate::Gate;
use crate::upstream::connection::DialError;

/// Between two attempts to reach a master that refuses connections.
pub(super) const REDIAL_PAUSE: Duration = Duration::from_millis(20);

/// How a wait at the gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Waited {
    Open,
    BudgetSpent,
}

impl Session {
    pub(super) async fn read_more(&mut self) -> Result<(), Closed> {
        if self.outbox.backlog() > 0 {
            self.outbox.flush_now();
        }
        if self.eof {
            self.settle().await?;
            return self.has_left();
        }
        if self.seat.is_stopping() {
            self.settle().await?;
            if self.outbox.is_withheld() {
                return Ok(());
            }
            return Err(Closed::Shutdown);
        }
        poll_fn(|context| {
            self.outbox.remember(context.waker());
            if self.outbox.state() != OutboxState::Open
                || self.seat.is_stopping()
                || self.presence.is_wanted()
                || self.outbox.is_withheld()
            {
                return Poll::Ready(());
            }
            if self.outbox.backlog() > 0 {
                let _ = self.outbox.poll_flushed(context);
            }
            self.poll_read(context)
        })
        .await;
        if self.eof {
            // Replies to what was asked before the client's half of the connection ended are
            // still delivered.
            self.settle().await?;
            return self.has_left();
        }
        Ok(())
    }

    /// The client will send no more, and has its replies unless some of them were refusals.
    fn has_left(&self) -> Result<(), Closed> {
        if self.outbox.is_withheld() {
            return Ok(());
        }
        Err(Closed::ClientGone)
    }

    /// Reads once. An idle session keeps no buffer.
    pub(in crate::client) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.input.capacity() == 0 {
            self.input = self.seat.take_buffer();
        } else {
            self.input.reserve(INPUT_BYTES);
        }
        let result = poll_read_buf(Pin::new(&mut self.read), context, &mut self.input);
        if self.input.is_empty() {
            self.seat.give_back_buffer(std::mem::take(&mut self.input));
        }
        match result {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.eof = true;
                Poll::Ready(())
            }
            Poll::Ready(Ok(read)) => {
                self.seat.counts.bytes_in.add(read as u64);
                self.seat.stir.stir();
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the client has ended its half of the connection, seen without reading what it sent
    /// before: that may be more than is kept.
    pub(in crate::client) fn poll_hung_up(&self, context: &mut Context<'_>) -> bool {
        let ready = pin!(self.read.ready(Interest::READABLE));
        matches!(ready.poll(context), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Waits until no lane owes a reply.
    pub(in crate::client) async fn settle(&mut self) -> Result<(), Closed> {
        self.wait_for_replies(0).await
    }

    pub(super) async fn make_room(&mut self) -> Result<(), Closed> {
        if let Some(own) = self.lane.clone()
            && own.lane.is_full()
        {
            poll_fn(|context| {
                if own.lane.is_open() && own.lane.is_full() {
                    own.lane.wait_for_room(context.waker());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
        }
        self.wait_for_replies(self.seat.limits.pipeline_max / 2)
            .await
    }

    /// Waits until at most `owed` replies are owed and the client has taken most of what it
    /// was sent.
    async fn wait_for_replies(&mut self, owed: usize) -> Result<(), Closed> {
        self.outbox.flush_now();
        poll_fn(|context| {
            self.outbox.remember(context.waker());
            if self.outbox.state() != OutboxState::Open {
                return Poll::Ready(());
            }
            if self.outbox.backlog() > 0 {
                let _ = self.outbox.poll_flushed(context);
            }
            let settled = self.outbox.owed() <= owed;
            if settled && self.outbox.poll_room(context).is_ready() {
                return Poll::Ready(());
            }
            if !settled {
                self.outbox.wake_at(owed);
            }
            Poll::Pending
        })
        .await;
        self.outbox.state().check()
    }

    /// Waits until the gate opens, or there is a master. What the client sends meanwhile is
    /// read up to a limit, so that its hanging up is seen: a held write of a client that is
    /// gone is dropped.
    pub(super) async fn hold(&mut self) -> Result<(), Closed> {
        match self.wait_at_gate(self.refused_since()).await? {
            Waited::Open => Ok(()),
            Waited::BudgetSpent => {
                let text = self.budget_spent_text();
                self.refuse_front(&text).await
            }
        }
    }

    pub(in crate::client) fn budget_spent_text(&self) -> String {
        let why = self.refused.as_ref().map(Refused::reason);
        format!(
            "TRYAGAIN pointsman: no master took this command within {} ms{}; {}",
            self.seat.limits.hold_budget.as_millis(),
            why.unwrap_or_default(),
            self.unanswered_text()
        )
    }

    fn no_master_text(&self) -> String {
        let fate = self.unanswered_text();
        format!("TRYAGAIN pointsman: there is no master now; {fate}")
    }

    /// Waits until writes are admitted and there is a master, at most the hold budget.
    pub(in crate::client) async fn wait_at_gate(
        &mut self,
        since: Option<Instant>,
    ) -> Result<Waited, Closed> {
        let deadline = self.budget_from(since);
        self.wait_for_master(deadline, |gate| gate.is_open()).await
    }

    /// The same, and goes on as soon as those who receive are being moved.
    pub(in crate::client) async fn wait_for_move(
        &mut self,
        since: Instant,
    ) -> Result<Waited, Closed> {
        let deadline = self.budget_from(Some(since));
        let may_move = |gate: &Gate| gate.is_open() || gate.is_moving();
        self.wait_for_master(deadline, may_move).await
    }

    pub(super) fn budget_from(&self, since: Option<Instant>) -> Instant {
        since.unwrap_or_else(Instant::now) + self.seat.limits.hold_budget
    }

    pub(super) async fn wait_for_master(
        &mut self,
        deadline: Instant,
        may_go_on: impl Fn(&Gate) -> bool,
    ) -> Result<Waited, Closed> {
        let watch = self.seat.gate.watch();
        watch.write_waits();
        let budget = sleep_until(deadline);
        tokio::pin!(budget);
        self.outbox.flush_now();
        let waited = poll_fn(|context| {
            self.outbox.remember(context.waker());
            watch.register(context.waker());
            if self.poll_hung_up(context) {
                return Poll::Ready(Err(Closed::GoneWhileHeld));
            }
            if may_go_on(&self.seat.gate) && self.seat.has_master() {
                return Poll::Ready(Ok(Waited::Open));
            }
            // What stands before it has to be seen to first.
            if self.outbox.state() != OutboxState::Open || self.outbox.is_withheld() {
                return Poll::Ready(Ok(Waited::Open));
            }
            if self.outbox.backlog() > 0 {
                let _ = self.outbox.poll_flushed(context);
            }
            while self.input.len() < self.seat.limits.session_buffer_bytes_max {
                if self.poll_read(context).is_pending() {
                    break;
                }
                if self.eof {
                    return Poll::Ready(Err(Closed::GoneWhileHeld));
                }
            }
            budget
                .as_mut()
                .poll(context)
                .map(|()| Ok(Waited::BudgetSpent))
        })
        .await;
        self.outbox.state().check()?;
        waited
    }

    /// Answers the request in front, which was not sent, with an error.
    pub(in crate::client) async fn refuse_front(&mut self, text: &str) -> Result<(), Closed> {
        self.settle().await?;
        if self.outbox.is_withheld() {
            // What stood before it has to be seen to first.
            return Ok(());
        }
        match self.scanner.scan(&self.input, &self.seat.limits.request) {
            Ok(Request::Complete { len, .. } | Request::Blank { len }) => {
                self.input.advance(len);
                self.say(format!("-{text}\r\n").as_bytes());
                Ok(())
            }
            // A large request of which only the beginning is here cannot be skipped.
            Ok(Request::Incomplete) | Err(_) => {
                self.outbox.push(format!("-{text}\r\n").as_bytes());
                Err(Closed::NotCarried)
            }
        }
    }

    /// Opens the lane of a session that has just become a user. When that fails, the session's next
    /// command says why.
    pub(super) async fn lane_ahead(&mut self) {
        if !std::mem::take(&mut self.lane_due) || self.lane.is_some() {
            return;
        }
        let Some((epoch, links)) = self.seat.master() else {
            return;
        };
        let lane_use = LaneUse::Reads;
        let answer = self.seat.lane(&links, &self.identity, lane_use, true).await;
        if let Ok(LaneAnswer::Open(lane)) = answer {
            self.lane = Some(OwnLane {
                lane,
                links,
                lane_use,
                epoch,
            });
        }
    }

    pub(super) async fn find_lane(
        &mut self,
        lane_use: LaneUse,
        budget: Duration,
    ) -> Result<(), Closed> {
        if lane_use == LaneUse::StandIn {
            return self.find_stand_in().await;
        }
        let since = Instant::now();
        loop {
            let Some((epoch, links)) = self.seat.master() else {
                if self.stands_in_for(self.seat.epoch(), Missed::Unreached) {
                    return Ok(());
                }
                let waited = self.wait_for_master(since + budget, Gate::is_open);
                if waited.await? == Waited::BudgetSpent {
                    let text = match budget.is_zero() {
                        true => self.no_master_text(),
                        false => self.budget_spent_text(),
                    };
                    return self.refuse_front(&text).await;
                }
                continue;
            };
            let answer = self
                .seat
                .lane(&links, &self.identity, lane_use, self.proven);
            match answer.await {
                Ok(LaneAnswer::Open(lane)) => {
                    self.proven = true;
                    self.lane = Some(OwnLane {
                        lane,
                        links,
                        lane_use,
                        epoch,
                    });
                    return Ok(());
                }
                Ok(LaneAnswer::NoAuth(line)) => {
                    self.noauth = Some(line);
                    return Ok(());
                }
                Err(error) => {
                    if error.is_nodes() && self.stands_in_for(epoch, Missed::Unreached) {
                        return Ok(());
                    }
                    if let Some(text) = self.dial_failed(error, since, budget).await {
                        return self.refuse_front(&text).await;
                    }
                }
            }
        }
    }

    /// Brings the scripts that the request of `len` bytes in front asks for.
    pub(super) async fn scripts(&mut self, len: usize) -> Result<(), Closed> {
        let request = Bytes::copy_from_slice(self.input.get(..len).unwrap_or_default());
        match self.bring_scripts(&request).await? {
            None => Ok(()),
            Some(text) => self.refuse_front(&text).await,
        }
    }

    /// After a failed dial: `None` when it is worth trying again, otherwise the text to refuse
    /// the command with.
    pub(in crate::client) async fn dial_failed(
        &self,
        error: DialError,
        since: Instant,
        budget: Duration,
    ) -> Option<String> {
        if let DialError::Refused { reply, .. } = &error {
            let line = String::from_utf8_lossy(reply);
            return Some(line.trim_end().trim_start_matches('-').to_owned());
        }
        if since.elapsed() >= budget {
            return Some(format!(
                "TRYAGAIN pointsman: {error}; {}",
                self.unanswered_text()
            ));
        }
        sleep(REDIAL_PAUSE).await;
        None
    }
}
