//! Commands that wait on the server (`BLPOP`, `XREAD BLOCK`, `WAIT`): they go on waiting on the
//! next master, with the time they have left and in the order in which they came.
//!
//! A server that changes its role lets them go with an error and hangs up (Redis), or forgets them
//! (Kvrocks: there they are called back before the master is fenced). Either way what they had
//! taken is delivered first; then they are sent to the next master before the held writes are.
//!
//! * In one write with the command goes a `PING`. A server executes both before it answers, so the
//!   answer says that the command waits there; a release waits for that ([`Gate::receive`]). Not so
//!   on Kvrocks, which takes its own answer to what came in the same batch for a wake-up: there the
//!   command is sent alone, when nothing is owed before it.
//! * `WAIT` asks about everything before the last command of its connection. The `PING` is
//!   that command, and it comes after every write that this session has a reply for.
//! * `$` in `XREAD` means the last entry now. Sent again before any held write it means the same as
//!   before. Where the server forgets who waits, an entry may have come that was never told of;
//!   there the last entry is asked for when the command is sent, and that is where it reads on.
//! * Kvrocks wakes every reader of a stream for each entry, and answers those that find nothing
//!   twice: that there is nothing, and with an empty array (`OnWrite` of its `XREAD` and
//!   `XREADGROUP` goes on after the first answer; seen with two members of one group). A `PING`
//!   behind such an answer tells when the connection is silent; an empty array before its reply is
//!   nobody's.
//!
//! [`Gate::receive`]: crate::shard::gate::Gate::receive

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::super::session::Waited;
use super::super::state::{Blocked, Closed, ReplyMode};
use super::tracking::Tokens;
use super::{Again, Awaited, Expect, Relay};
use crate::resp::command::Pin;
use crate::resp::refusal::refusal;
use crate::resp::scan::{is_null, write_request};
use crate::shard::gate::GateState;
use crate::shard::line::Place;
use crate::upstream::trial;

/// Redis says this to blocked clients when its role changes, and hangs up.
const FORCED_UNBLOCK: &[u8] = b"-UNBLOCKED force unblock";
/// How long a command waits for its turn behind the same other one, whose client or node is slow.
const TURN_WAIT: Duration = Duration::from_millis(50);
/// How long it waits at all. Held writes go on 0.3 s after the promotion, whoever is not there yet.
const LINE_WAIT: Duration = Duration::from_millis(200);
/// Kvrocks wakes a waiting command some time after it has answered the push, on another thread, and
/// what the command has taken is lost if its connection is closed just then.
const WAKE_WAIT: Duration = Duration::from_millis(5);
/// The answer too many of a reader of streams that Kvrocks woke for nothing.
pub(super) const SPARE: &[u8] = b"*0\r\n";

/// Returns when it is this one's turn to wait on the node of `epoch`, or the line does not move: out
/// of turn is better than not at all.
async fn turn(place: &Place, epoch: u64) {
    let mut awaited = place.awaits(epoch);
    while timeout(TURN_WAIT, poll_fn(|at| place.poll_turn(epoch, at)))
        .await
        .is_err()
    {
        let first = place.awaits(epoch);
        if first == awaited {
            return;
        }
        awaited = first;
    }
}

impl Relay<'_> {
    /// Passes on a command that waits; `request` is empty when its bytes were not kept.
    pub(super) fn pass_on_blocking(&mut self, sent: &Bytes, request: Bytes, pin: Pin) {
        let seat = &self.session.seat;
        let mut blocked = Blocked {
            request,
            since: std::time::Instant::now(),
            mute: self.session.reply_mode != ReplyMode::On,
            call_back: None,
            place: Some(seat.gate.stand_in_line(self.epoch)),
            hold_number: seat.gate.hold_number(),
            last_ids: Vec::new(),
            unsent: None,
        };
        if pin == Pin::Wait {
            self.send_own(trial::request(), Awaited::Swallow);
        }
        let from_now_on = match self.session.seat.master_lets_go() {
            true => Vec::new(),
            false => blocked.from_now_on(),
        };
        if from_now_on.is_empty() {
            self.send(sent, Awaited::Blocking, false);
        } else {
            blocked.unsent = Some(sent.clone());
            if self.session.reply_mode == ReplyMode::SkipNext {
                self.session.reply_mode = ReplyMode::On;
            }
        }
        for (at, key) in from_now_on {
            let mut ask = BytesMut::new();
            write_request(&mut ask, &[b"XINFO", &b"STREAM"[..], &key]);
            blocked.last_ids.push((at, None));
            self.expect_own(&ask, Awaited::LastId(at), true);
        }
        self.blocked = Some(blocked);
        self.become_receiver();
        self.owe_call_back();
    }

    /// Sends the command that waits for the replies before it, once they are here.
    pub(super) fn send_alone(&mut self) {
        if !self.expects.is_empty() || !self.out.is_empty() {
            return;
        }
        let Some(blocked) = &mut self.blocked else {
            return;
        };
        let Some(unsent) = blocked.unsent.take() else {
            return;
        };
        let mute = blocked.mute;
        match blocked.again() {
            // It reads on from the entries that are known now.
            Some(known) if !blocked.last_ids.is_empty() => self.out.extend_from_slice(&known),
            _ => self.out.extend_from_slice(&unsent),
        }
        self.expects.push_back(Expect::own(Awaited::Blocking, mute));
        // What is not taken now is written when there is room; a broken connection is found so
        // when it is read.
        if let Ok(sent) = self.link.write.try_write(&self.out) {
            self.out.advance(sent);
        }
        self.stands_in_line();
        self.receiver_settled();
    }

    /// The command has been sent to the node of this epoch.
    fn stands_in_line(&mut self) {
        let hold_number = self.session.seat.gate.hold_number();
        if let Some(blocked) = &mut self.blocked {
            blocked.hold_number = hold_number;
            if let Some(place) = &mut blocked.place {
                place.moved_to(self.epoch);
            }
        }
    }

    /// What `XINFO STREAM` says of a stream that is read from now on.
    pub(super) fn note_last_id(&mut self, at: usize, bytes: &[u8]) {
        let id = if bytes.starts_with(b"-ERR no such key") {
            Some(Bytes::from_static(b"0-0"))
        } else {
            let mut tokens = Tokens::new(bytes);
            tokens
                .find(|token| *token == b"last-generated-id")
                .and_then(|_| tokens.next())
                .map(Bytes::copy_from_slice)
        };
        let ids = self.blocked.iter_mut().flat_map(|one| &mut one.last_ids);
        for (_, known) in ids.filter(|(place, _)| *place == at) {
            *known = id.clone();
        }
    }

    /// The command has its answer.
    pub(super) fn wait_ended(&mut self, answer: &[u8]) {
        self.blocked_ended();
        if is_null(answer) && !self.session.seat.master_lets_go() {
            self.expect_own(trial::request(), Awaited::Silence, true);
        }
    }

    /// The command waits no more.
    pub(super) fn blocked_ended(&mut self) {
        self.blocked = None;
        self.receives_less();
    }

    /// The server did not execute a blocking command because its role is changing.
    pub(super) fn was_let_go(&self, bytes: &[u8]) -> bool {
        let gate = &self.session.seat.gate;
        let sent_in = self.blocked.as_ref().map(|blocked| blocked.hold_number);
        let changing = !gate.is_open() || self.has_moved() || sent_in != Some(gate.hold_number());
        bytes.starts_with(FORCED_UNBLOCK)
            || bytes.starts_with(b"-READONLY ")
            || (changing && refusal(bytes).is_some())
    }

    /// The server's role is changing under a blocked command: the client does not learn of it
    /// when the command can be sent to the new master.
    pub(super) fn unblocked_by_server(&mut self, bytes: &Bytes, mute: bool) {
        let can_reissue = self
            .blocked
            .as_ref()
            .is_some_and(|blocked| blocked.again().is_some());
        if can_reissue && self.expects.is_empty() {
            self.refusal_line = bytes.clone();
            self.owe_again();
        } else {
            self.blocked_ended();
            if !mute {
                self.session.outbox.push(bytes);
            }
        }
    }

    /// The command has to be sent again; it keeps its place in the line.
    pub(super) fn owe_again(&mut self) {
        self.reissue = true;
        if let Some(receiver) = &self.receiver {
            receiver.let_go();
        }
        if let Some(blocked) = &mut self.blocked {
            blocked.call_back = None;
            blocked.unsent = None;
            if let Some(place) = &mut blocked.place {
                place.let_go();
            }
        }
    }

    /// Sends a blocked command to the new master, with the time it has left.
    pub(super) async fn reissue_blocked(&mut self) -> Result<(), Closed> {
        self.reissue = false;
        if self.session.seat.gate.is_open() && !self.has_moved() {
            // Somebody else has changed the server's role.
            self.session.note_refusal(self.refusal_line.clone());
            if self.session.wait_out_refusal(self.epoch).await? == Waited::BudgetSpent {
                return self.give_up_blocked();
            }
        }
        if self.session.wait_for_move(Instant::now()).await? == Waited::BudgetSpent {
            return self.give_up_blocked();
        }
        self.move_to_master().await?;
        self.find_own_target().await?;
        self.watch_lost |= std::mem::take(&mut self.watching);
        let epoch = self.epoch;
        if let Some(place) = self.blocked.as_ref().and_then(|one| one.place.as_ref()) {
            let _ = timeout(LINE_WAIT, turn(place, epoch)).await;
        }
        let mute = self.blocked.as_ref().is_some_and(|blocked| blocked.mute);
        let Some(again) = self.blocked.as_ref().and_then(Blocked::again) else {
            return self.give_up_blocked();
        };
        self.out.clear();
        if !self.session.seat.master_lets_go() {
            self.reopen();
            self.owe_call_back();
            if let Some(blocked) = &mut self.blocked {
                blocked.unsent = Some(again.freeze());
            }
            self.send_alone();
            return Ok(());
        }
        self.expect_own(trial::request(), Awaited::Again(Again::Registered), true);
        self.reopen();
        self.out.extend_from_slice(&again);
        self.expects.push_back(Expect::own(Awaited::Blocking, mute));
        let deadline = self.session.seat.limits.call_deadline();
        // A connection that is broken is found so when it is read.
        let _ = timeout(deadline, poll_fn(|context| self.poll_out(context))).await;
        self.stands_in_line();
        self.owe_call_back();
        Ok(())
    }

    /// A blocked command that can be sent again has to be called back where the server does not let
    /// it go.
    pub(super) fn owe_call_back(&mut self) {
        let seat = &self.session.seat;
        if let Some(blocked) = &mut self.blocked
            && !seat.master_lets_go()
            && blocked.again().is_some()
        {
            blocked.call_back = Some(seat.gate.owe_call_back());
        }
    }

    /// Whether a hold waits for the blocked command.
    pub(super) fn is_called_back(&self) -> bool {
        let gate = &self.session.seat.gate;
        // What waits already on the node that the release leads to stays there.
        let fence_ahead = gate.state() == GateState::Holding && !gate.is_moving();
        fence_ahead
            && self
                .blocked
                .as_ref()
                .is_some_and(|blocked| blocked.call_back.is_some())
    }

    /// Ends the connection on which a command blocks: our sending side is shut down and what the
    /// server still says is read to its end. What it has taken for the client reaches the client;
    /// otherwise the command is sent again after the hold, to whoever is master then.
    pub(super) async fn call_back(&mut self) -> Result<(), Closed> {
        let deadline = self.session.seat.limits.call_deadline();
        let _ = timeout(WAKE_WAIT, self.read_what_comes()).await;
        if self.blocked.is_none() {
            return Ok(());
        }
        let ended = timeout(deadline, self.read_to_end()).await;
        ended.unwrap_or(Err(Closed::NotCarried))?;
        self.link_ended = true;
        if self.blocked.is_some() {
            let mut asked = self.expects.iter().filter(|expect| !expect.what.is_own());
            let broken_off = self.link.scanner.mid_reply();
            if broken_off
                && self
                    .expects
                    .front()
                    .is_none_or(|first| !first.what.is_own())
            {
                return Err(Closed::UpstreamLost);
            }
            // What the client asked before it has no answer.
            if self.expects.iter().any(|expect| expect.write) {
                return Err(Closed::AmbiguousWrite);
            }
            if asked.any(|expect| !matches!(expect.what, Awaited::Blocking)) {
                return Err(Closed::UpstreamLost);
            }
            self.collected.clear();
            self.expects.leave();
            self.owe_again();
        }
        Ok(())
    }

    /// Reads until the command has its reply, or the connection ends. Dropped between two reads.
    async fn read_what_comes(&mut self) -> Result<(), Closed> {
        let _ = poll_fn(|context| self.poll_out(context)).await;
        while self.blocked.is_some() {
            match self.link.read.read_buf(&mut self.link.input).await {
                Ok(0) | Err(_) => break,
                Ok(_) => self.deal()?,
            }
        }
        Ok(())
    }

    async fn read_to_end(&mut self) -> Result<(), Closed> {
        // A connection that is broken already ends the loop below.
        let _ = poll_fn(|context| self.poll_out(context)).await;
        let _ = self.link.write.shutdown().await;
        loop {
            match self.link.read.read_buf(&mut self.link.input).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => self.deal()?,
            }
        }
    }

    fn give_up_blocked(&mut self) -> Result<(), Closed> {
        let muted = self.blocked.as_ref().is_some_and(|blocked| blocked.mute);
        self.blocked_ended();
        if !muted {
            self.session.outbox.push(
                b"-UNBLOCKED pointsman: there was no master to wait on; nothing was taken\r\n",
            );
        }
        Ok(())
    }
}
