//! A transaction that was open on the old master, opened again on the new one.
//!
//! Its queue is sent when the client speaks next, not before: queued writes pass the gate like any
//! others, and are counted there, so that the next hold waits for their replies instead of finding
//! half a queue refused by a node that is being fenced. Everything travels in one go, so that a
//! long queue does not take longer than the time between two switchovers.
//!
//! **Invariant:** nothing of the queue is sent before the server has said that `MULTI` is open: it
//! would be executed. Nothing of the client passes before the whole queue has been answered.

use super::{Again, Awaited, Expect, Feed, Relay};
use crate::client::state::Stand;
use crate::resp::refusal::refusal;
use crate::resp::scan::ReplyKind;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

impl Relay<'_> {
    /// What has to happen before another request of the transaction may be passed on; `None` when
    /// it is open on this master.
    pub(super) fn reopen_transaction(&mut self) -> Option<Feed> {
        let waits = self.expects.any_of_client() || self.is_reopening();
        let open = self.transaction.as_mut()?;
        let admitted = self.session.seat.gate.is_open();
        match open.stand {
            Stand::Here | Stand::Broken => None,
            Stand::Refused if waits => Some(Feed::Wait),
            Stand::Refused => Some(Feed::Refused),
            Stand::Opening | Stand::Queueing(_) => Some(Feed::Wait),
            Stand::Away | Stand::Opened if !admitted => Some(Feed::Hold),
            Stand::Away => {
                open.stand = Stand::Opening;
                self.again(MULTI, Again::Multi);
                Some(Feed::Wait)
            }
            Stand::Opened => self.queue_again(),
        }
    }

    fn queue_again(&mut self) -> Option<Feed> {
        let open = self.transaction.as_mut()?;
        let Some(queue) = open.queue() else {
            open.stand = Stand::Broken;
            return None;
        };
        let commands = open.commands;
        self.out.extend_from_slice(queue);
        open.stand = match commands {
            0 => Stand::Here,
            left => Stand::Queueing(left),
        };
        self.session.seat.gate.admit_writes(commands);
        self.expects.extend((0..commands).map(|_| Expect {
            write: true,
            ..Expect::own(Awaited::Again(Again::Queued), true)
        }));
        (commands > 0).then_some(Feed::Wait)
    }

    /// The transaction could not be repeated.
    pub(super) fn is_broken(&self) -> bool {
        let open = self.transaction.as_ref();
        open.is_some_and(|open| open.stand == Stand::Broken)
    }

    /// The new master's answer to our `MULTI`.
    pub(super) fn reopened(&mut self, kind: ReplyKind, reply: &[u8]) {
        if let Some(open) = &mut self.transaction {
            open.stand = match kind {
                ReplyKind::Error if refusal(reply).is_some() => Stand::Refused,
                ReplyKind::Error => Stand::Broken,
                _ => Stand::Opened,
            };
        }
    }

    /// The new master's answer to a command of the queue.
    pub(super) fn requeued(&mut self, reply: &[u8]) {
        let Some(open) = &mut self.transaction else {
            return;
        };
        // A transaction in which a command failed before is refused at EXEC anyway.
        let as_before = open.failed || reply.starts_with(b"+QUEUED");
        open.stand = match open.stand {
            _ if refusal(reply).is_some() => Stand::Refused,
            Stand::Refused => Stand::Refused,
            _ if !as_before => Stand::Broken,
            Stand::Queueing(left) if left > 1 => Stand::Queueing(left - 1),
            Stand::Queueing(_) => Stand::Here,
            stand => stand,
        };
    }
}
