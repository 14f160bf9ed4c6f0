//! `CLIENT PAUSE` and `CLIENT UNPAUSE` on their way to the server: what they change is noted in
//! [`crate::client::pause`] before the server can act on it.
//!
//! **Invariant:** the reply that settles a note is its own: nothing else is expected when a pause,
//! or the `EXEC` of a transaction with one in it, is sent. The same holds for an `EXEC` whose reply
//! changes the session, so that it never stands behind something that is refused.

use super::super::pause::Noted;
use super::{Awaited, Relay};
use crate::resp::command::{Path, Pin, Verdict};
use crate::resp::scan::{ReplyKind, args, is_null};

/// What the next reply says about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pausing {
    Begins(Noted),
    Ends,
}

impl Relay<'_> {
    /// Whether a request may only be sent when nothing else is expected.
    pub(super) fn needs_quiet(&self, verdict: &Verdict) -> bool {
        match verdict.path {
            Path::Pinned(Pin::Tunnel | Pin::Pause | Pin::Unpause) => self.transaction.is_none(),
            Path::Pinned(Pin::Exec) => self.transaction.as_ref().is_some_and(|open| {
                open.pause.is_some() || !open.effects.is_empty() || self.unfolds(open)
            }),
            _ => false,
        }
    }

    /// Takes note of the pause that the request in front begins or ends; in a transaction, it does
    /// so at its `EXEC`.
    pub(super) fn note_pause(&mut self, verdict: &Verdict) {
        let pause = &self.session.seat.pause;
        match (verdict.path, &mut self.transaction) {
            (Path::Pinned(Pin::Pause | Pin::Unpause), Some(open)) => {
                let words = args(&self.session.input).take(4);
                open.pause = Some(words.map(<[u8]>::to_vec).collect());
            }
            (Path::Pinned(Pin::Exec), Some(open)) => {
                let Some(words) = open.pause.take() else {
                    return;
                };
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                self.pausing = match words.len() {
                    2 => Some(Pausing::Ends),
                    _ => pause.note(&words).map(Pausing::Begins),
                };
            }
            (Path::Pinned(Pin::Pause), None) => {
                let words: Vec<&[u8]> = args(&self.session.input).take(4).collect();
                self.pausing = pause.note(&words).map(Pausing::Begins);
            }
            (Path::Pinned(Pin::Unpause), None) => self.pausing = Some(Pausing::Ends),
            _ => {}
        }
    }

    /// A transaction that was not executed answers null, or was replaced by a `DISCARD`.
    pub(super) fn settle_pause(&mut self, what: &Awaited, kind: ReplyKind, reply: &[u8]) {
        let done =
            kind != ReplyKind::Error && !is_null(reply) && !matches!(what, Awaited::Substitute(_));
        let pause = &self.session.seat.pause;
        match self.pausing.take() {
            Some(Pausing::Begins(noted)) if !done => pause.forget(noted),
            Some(Pausing::Ends) if done => pause.end(),
            _ => {}
        }
    }
}
