//! The commands of a transaction whose replies mean something to the session.
//!
//! **Invariant:** they are limited in number and in bytes, like the queue that they stand in. A
//! queue past its limit is only not carried to another master; without these the proxy would not
//! know what the session is, so past their limit the transaction fails.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::state::QUEUE_BYTES_MAX;
use crate::resp::command::{Local, SubKind};

/// Such commands in one transaction.
const EFFECTS_MAX: usize = 10_000;

/// A command that was queued in a transaction, whose reply means something to the session.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its place in the queue, and in `EXEC`'s reply.
    at: usize,
    pub(super) effect: Effect,
    /// As the client sent it.
    pub(super) request: Bytes,
}

/// What such a command does when `EXEC` runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is about the session, and its reply is told in the session's words.
    Session(Local),
    /// `CLIENT REPLY`.
    Replies,
    Subscribe(SubKind),
    Unsubscribe(SubKind),
    ScriptFlush,
}

impl Effect {
    /// Whether it answers with more or less than one reply.
    fn unfolds(self) -> bool {
        !matches!(self, Self::Session(_) | Self::ScriptFlush)
    }
}

/// All of them in one transaction, in their order.
#[derive(Debug, Default)]
pub(in crate::client) struct Effects {
    queued: VecDeque<Queued>,
    /// Of their requests, those that have been taken out included.
    bytes: usize,
}

impl Effects {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whether the reply to `EXEC` has more or fewer parts than it says.
    pub(super) fn unfold(&self) -> bool {
        self.queued.iter().any(|queued| queued.effect.unfolds())
    }

    pub(super) fn subscribe(&self) -> bool {
        let mut effects = self.queued.iter().map(|queued| queued.effect);
        effects.any(|effect| matches!(effect, Effect::Subscribe(_)))
    }

    /// Keeps the command at `at` in the queue; the error to answer it with when that is too much.
    pub(super) fn push(&mut self, at: usize, effect: Effect, request: &[u8]) -> Result<(), String> {
        const WHAT: &str = "commands about sessions, subscriptions and flushes of scripts";
        if self.queued.len() >= EFFECTS_MAX {
            return Err(format!(
                "ERR more than {EFFECTS_MAX} {WHAT} in one transaction"
            ));
        }
        let bytes = self.bytes.saturating_add(request.len());
        if bytes > QUEUE_BYTES_MAX {
            return Err(format!(
                "ERR more than {QUEUE_BYTES_MAX} bytes of {WHAT} in one transaction"
            ));
        }
        self.bytes = bytes;
        self.queued.push_back(Queued {
            at,
            effect,
            // Not a part of what was read: it may stay for long.
            request: Bytes::copy_from_slice(request),
        });
        Ok(())
    }

    /// Takes out the command at `at`, if it is the next of them.
    pub(super) fn take(&mut self, at: usize) -> Option<Queued> {
        let is_next = self.queued.front().is_some_and(|next| next.at == at);
        is_next.then(|| self.queued.pop_front()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSUBSCRIBE: Effect = Effect::Unsubscribe(SubKind::Channel);

    #[test]
    fn so_many_are_kept_and_no_more() {
        let mut effects = Effects::default();
        for at in 0..EFFECTS_MAX {
            assert_eq!(effects.push(at, UNSUBSCRIBE, b"x"), Ok(()));
        }
        let error = effects.push(EFFECTS_MAX, UNSUBSCRIBE, b"x").unwrap_err();
        assert!(error.starts_with("ERR more than 10000 commands"), "{error}");
        assert!(effects.take(EFFECTS_MAX).is_none());
    }

    #[test]
    fn so_many_bytes_of_them_are_kept_and_no_more() {
        let mut effects = Effects::default();
        let half = vec![b'x'; QUEUE_BYTES_MAX / 2];
        for at in 0..2 {
            assert_eq!(effects.push(at, UNSUBSCRIBE, &half), Ok(()));
        }
        let error = effects.push(2, UNSUBSCRIBE, b"x").unwrap_err();
        assert!(error.starts_with("ERR more than 4194304 bytes"), "{error}");
        assert!(effects.take(2).is_none());
    }

    #[test]
    fn each_is_found_at_its_place_and_once() {
        let mut effects = Effects::default();
        for at in [1, 3] {
            effects.push(at, UNSUBSCRIBE, b"x").unwrap();
        }
        let found: Vec<bool> = (0..5).map(|at| effects.take(at).is_some()).collect();
        assert_eq!(found, [false, true, false, true, false]);
        assert!(effects.take(1).is_none());
    }
}
