//! A master that refuses to be one: what it did not execute is asked once more, of the next.
//! So is what only reads when the connection to the server breaks before its reply: once, each of
//! them. One that is lost a second time ends its client's connection, as the server's would have
//! been.
//!
//! The session takes back what was refused and everything behind it, tells the control path that
//! somebody should look, and waits until there is another master, or a short while: the same one
//! may have become master again. From then on the requests are like any others.

use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, Instant};

use super::{Session, Waited};
use crate::client::state::{Closed, ReplyMode};
use crate::resp::refusal::{Refusal, refusal};
use crate::resp::scan::RequestScanner;
use crate::shard::doubt::Look;

/// Between two attempts at a master that refuses and remains the master.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
pub(in crate::client) const TOO_LATE: &[u8] =
    b"-TRYAGAIN pointsman: the master changed and took a later command of this \
    connection, so this one would come out of order; it was not executed\r\n";

/// A request that has been refused, maybe more than once.
#[derive(Debug)]
pub(in crate::client) struct Refused {
    since: Instant,
    /// Requests that had been answered then. Once there are more, this one is among them.
    answered: u64,
    /// The server's words; empty when it stood behind what was refused.
    line: Bytes,
}

impl Refused {
    pub(super) fn reason(&self) -> String {
        if self.line.is_empty() {
            return String::new();
        }
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end().trim_start_matches('-');
        format!(", the server said {line:?}")
    }
}

impl Session {
    /// What can be said for certain of the request in front, which nobody has answered.
    pub(super) fn unanswered_text(&self) -> &'static str {
        match self.lost.contains(&self.outbox.answered()) {
            true => "its connection to a server broke before its reply",
            false => "it was not executed",
        }
    }

    /// Since when the request in front has been refused.
    pub(in crate::client) fn refused_since(&self) -> Option<Instant> {
        let refused = self.refused.as_ref()?;
        (refused.answered == self.outbox.answered()).then_some(refused.since)
    }

    /// Sees to what a lane has withheld, or lost.
    pub(super) async fn refused(&mut self) -> Result<(), Closed> {
        self.settle().await?;
        let Some(withheld) = self.outbox.take_withheld() else {
            return Ok(());
        };
        let is_lost = withheld.has_lost();
        if self.seat.is_alone() {
            if is_lost {
                return Err(Closed::UpstreamLost);
            }
            for reply in withheld.replies() {
                self.outbox.push(reply);
            }
            return Ok(());
        }
        let resolved = withheld.resolve(TOO_LATE);
        if !resolved.replies.is_empty() {
            self.outbox.push(&resolved.replies);
        }
        for _ in 0..resolved.told {
            self.outbox.answered_one();
        }
        if resolved.again.is_empty() {
            return Ok(());
        }
        if is_lost {
            let answered = self.outbox.answered();
            let place = |at: usize| answered + at as u64;
            let lost = place(resolved.lost.start)..place(resolved.lost.end);
            // What ends two connections may be what ends servers: nothing is asked a third time.
            if withheld.is_part_mute() || lost.start < self.lost.end {
                return Err(Closed::UpstreamLost);
            }
            self.lost = lost;
            self.seat.doubt.raise();
        }
        if resolved.mute && self.reply_mode == ReplyMode::On {
            self.reply_mode = ReplyMode::SkipNext;
        }
        let epoch = self.lane.as_ref().map_or(0, |own| own.epoch);
        self.lane_failed(&resolved.reason);
        self.ask_again(resolved.again);
        if resolved.reason.is_empty() {
            // Nobody has refused it: whoever is master is asked as soon as there is one.
            return Ok(());
        }
        self.sit_out(epoch, resolved.reason).await
    }

    /// Puts requests in front of what the client has sent since.
    pub(in crate::client) fn ask_again(&mut self, mut requests: BytesMut) {
        requests.extend_from_slice(&self.input);
        self.input = requests;
        self.scanner = RequestScanner::default();
    }

    /// Waits until the request in front, which the master of `epoch` refused with `line`, may be
    /// sent once more; or answers it, when that may not be.
    async fn sit_out(&mut self, epoch: u64, line: Bytes) -> Result<(), Closed> {
        let look = self.note_refusal(line.clone());
        match self.wait_out_refusal(epoch).await? {
            Waited::Open => {}
            Waited::BudgetSpent => {
                let text = self.budget_spent_text();
                return self.refuse_front(&text).await;
            }
        }
        let stays = self.seat.epoch() == epoch;
        let asked = self.seat.doubt.is_answered(look);
        if stays
            && asked
            && refusal(&line) == Some(Refusal::NoReplicas)
            && !self.seat.is_new_master()
        {
            // It lacks replicas, and not because the master has just changed.
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end().trim_start_matches('-').to_owned();
            return self.refuse_front(&text).await;
        }
        Ok(())
    }

    /// Takes note of a refusal, and asks for a look at the nodes.
    pub(in crate::client) fn note_refusal(&mut self, line: Bytes) -> Look {
        let since = self.refused_since().unwrap_or_else(Instant::now);
        let answered = self.outbox.answered();
        self.refused = Some(Refused {
            since,
            answered,
            line,
        });
        self.seat.counts.refused.add(1);
        self.seat.doubt.raise()
    }

    /// Waits until there is a master of another epoch, or for a short while.
    pub(in crate::client) async fn wait_out_refusal(
        &mut self,
        epoch: u64,
    ) -> Result<Waited, Closed> {
        let deadline = self.budget_from(self.refused_since());
        let again = Instant::now() + RETRY_PAUSE;
        let seat = std::rc::Rc::clone(&self.seat);
        let may_go_on = move |gate: &crate::shard::gate::Gate| {
            seat.epoch() != epoch && (gate.is_open() || gate.is_moving())
        };
        let waited = self.wait_for_master(deadline.min(again), may_go_on).await?;
        Ok(match waited {
            Waited::BudgetSpent if Instant::now() < deadline => Waited::Open,
            waited => waited,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_said_nothing_is_not_quoted() {
        let reason = |line: &'static str| {
            let (since, line) = (Instant::now(), line.into());
            let refused = Refused {
                since,
                answered: 0,
                line,
            };
            refused.reason()
        };
        assert_eq!(reason(""), "");
        assert_eq!(reason("-LOADING x\r\n"), ", the server said \"LOADING x\"");
    }
}
