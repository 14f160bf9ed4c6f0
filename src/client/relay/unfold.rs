//! The reply to an `EXEC`, element by element.
//!
//! The array that a server announces says how many commands it runs, not how many replies follow: a
//! `SUBSCRIBE` answers once for each channel, `CLIENT REPLY OFF` and what stands behind it not at
//! all, and what the client receives of its own (a message that the transaction publishes, a line
//! of `MONITOR`) stands between the elements. The header is passed on by itself, and then each
//! command gets the reply that it would get outside a transaction.
//!
//! The server runs `CLIENT REPLY ON` for every `CLIENT REPLY`, since it has to answer the proxy,
//! and what the client asked for is done here.
//!
//! **Invariant:** such an `EXEC` is sent with nothing else expected, and nothing is sent behind it
//! before its last element: what it means depends on them. Its connection is not given back.
//!
//! Trade-offs: when the master turns out not to be one only in the middle of the array, as it may
//! for a script, the script's error reaches the client: what stands before it was executed and
//! told. In RESP2 an array of values may be like a message in everything. It is taken for the
//! answer, unless its command publishes or runs a script, or its channel is one of the server's
//! own.

use bytes::Bytes;

use super::effects::{Effect, Effects, Queued};
use super::message::Head;
use super::{Awaited, Expect, Keeps, Relay};
use crate::client::session::Session;
use crate::client::state::{ReplyMode, Transaction, runs_script};
use crate::resp::scan::{ReplyKind, args};
use crate::upstream::lane::ReplySink;
use crate::upstream::on_way::request_len;

/// The longest header of an array that a server writes.
const HEADER_BYTES_MAX: usize = 32;
/// Channels on which a server tells by itself what befalls keys: `__keyspace@`, `__keyevent@`,
/// `__redis__:invalidate`.
const SERVERS_OWN: &[u8] = b"__";

/// Where such a reply stands.
pub(super) struct Unfolding {
    /// The transaction, once its header is here, and where its next command begins.
    open: Option<(Box<Transaction>, usize)>,
    at: usize,
    count: usize,
    effects: Effects,
    /// What the client sees of the elements to come, and which replies it wants behind them.
    mute: bool,
    then: ReplyMode,
    /// The command that answers next may have anything published, and not only what befalls keys.
    publishes: bool,
    /// Scripts were flushed by a command before that one.
    flushed: bool,
}

impl Unfolding {
    /// What was asked for, when nothing of it was run.
    pub(super) fn into_effects(self) -> Effects {
        self.effects
    }

    /// Takes the next command out of the queue.
    fn step(&mut self, session: &Session) -> Option<Queued> {
        self.publishes = true;
        if let Some((open, begin)) = &mut self.open
            && let Some(rest) = open.queue().and_then(|queue| queue.get(*begin..))
            && let Some(request) = request_len(rest).and_then(|len| rest.get(..len))
        {
            *begin += request.len();
            if self.flushed {
                session.note_script_of(request);
            }
            self.publishes = args(request).next().is_some_and(publishes);
        }
        let queued = self.effects.take(self.at);
        self.at += 1;
        queued
    }
}

impl Relay<'_> {
    /// Whether the reply to the `EXEC` of this transaction may have more or fewer parts than it
    /// says.
    pub(super) fn unfolds(&self, open: &Transaction) -> bool {
        let receives = self.keeps == Keeps::Monitor || !self.subscriptions.is_empty();
        (receives && self.session.seat.master_lets_go()) || open.effects.unfold()
    }

    /// An `EXEC` has been sent whose reply is to be taken so.
    pub(super) fn unfold(&mut self, effects: Effects) {
        if effects.subscribe() {
            self.become_receiver();
        }
        self.unfolding = Some(Unfolding {
            open: None,
            at: 0,
            count: 0,
            effects,
            mute: self.expects.back().is_some_and(|exec| exec.mute),
            then: self.session.reply_mode,
            publishes: false,
            flushed: false,
        });
    }

    /// Takes the header of the array when it is in front; `None` until all of it is here.
    pub(super) fn take_header(&mut self) -> Option<()> {
        let is_due = matches!(
            self.expects.front(),
            Some(Expect {
                what: Awaited::Unfolding,
                ..
            })
        );
        if !is_due || self.link.input.first() != Some(&b'*') {
            return Some(());
        }
        let head = self.link.input.iter().take(HEADER_BYTES_MAX);
        let len = head
            .clone()
            .position(|byte| *byte == b'\n')
            .map(|at| at + 1);
        let Some(len) = len else {
            return (head.count() == HEADER_BYTES_MAX).then_some(());
        };
        let Some(count) = self.link.input.get(1..len).and_then(number) else {
            // No array: a transaction that was not run.
            return Some(());
        };
        let header = self.link.input.split_to(len).freeze();
        let exec = self.expects.pop_front()?;
        if !exec.mute {
            self.session.outbox.deliver(&header);
        }
        self.settle_sent(&exec, ReplyKind::Ordinary, &header);
        self.spent = true;
        if let Some(unfolding) = &mut self.unfolding {
            unfolding.open = exec.transaction.map(|open| (open, 0));
            unfolding.count = count;
        }
        self.expect_element();
        Some(())
    }

    /// Whether the elements of the array are being told.
    pub(super) fn is_unfolding(&self) -> bool {
        let unfolding = self.unfolding.as_ref();
        unfolding.is_some_and(|unfolding| unfolding.open.is_some())
    }

    /// Whether an array in RESP2 that begins like a message is one; `None` until enough of it is
    /// here.
    pub(super) fn is_message(&self) -> Option<bool> {
        let name_bytes_max = self.session.seat.limits.output_buffer_bytes_max;
        match Head::read(&self.link.input, name_bytes_max) {
            Head::More => None,
            Head::Other => Some(false),
            Head::Message { kind, to, channel } => {
                let publishes = self.unfolding.as_ref().is_some_and(|it| it.publishes);
                let is_told = publishes || channel.starts_with(SERVERS_OWN);
                Some(is_told && self.subscriptions.contains(kind, to))
            }
        }
    }

    /// Expects the reply of the next command, if there is one.
    pub(super) fn expect_element(&mut self) {
        let Some(unfolding) = &mut self.unfolding else {
            return;
        };
        if unfolding.at == unfolding.count {
            self.session.reply_mode = unfolding.then;
            return self.unfolded();
        }
        let effect = unfolding.step(self.session);
        let mute = unfolding.mute;
        let what = match effect {
            None => Awaited::Element,
            Some(Queued {
                effect, request, ..
            }) => match effect {
                Effect::Session(local) => Awaited::Session(local, request),
                Effect::Replies => Awaited::ReplyMode(request),
                Effect::ScriptFlush => Awaited::ScriptFlush,
                Effect::Subscribe(kind) => {
                    let confirmations = self.subscribes(&request, kind);
                    Awaited::Confirm(kind, confirmations)
                }
                Effect::Unsubscribe(kind) => {
                    let confirmations = self.unsubscribes(&request, kind);
                    Awaited::Confirm(kind, confirmations)
                }
            },
        };
        self.expects.push_front(Expect::own(what, mute));
    }

    /// There is nothing more to it.
    pub(super) fn unfolded(&mut self) {
        self.unfolding = None;
        if self.subscriptions.is_empty() && self.keeps == Keeps::Subscriptions {
            self.keeps = Keeps::Nothing;
        }
        self.receives_less();
        self.receiver_settled();
    }

    /// What the transaction brought has been flushed; what it brings from here on is known again.
    pub(super) fn flushed_in_unfolding(&mut self) {
        if let Some(unfolding) = &mut self.unfolding {
            unfolding.flushed = true;
        }
    }

    /// The server has run the `CLIENT REPLY ON` that stands for this request.
    pub(super) fn replies_change(&mut self, request: &[u8], reply: &Bytes, kind: ReplyKind) {
        let Some(unfolding) = &mut self.unfolding else {
            return;
        };
        let word = args(request).nth(2).unwrap_or_default();
        if kind != ReplyKind::Error {
            if word.eq_ignore_ascii_case(b"off") {
                unfolding.mute = true;
                unfolding.then = ReplyMode::Off;
                return;
            }
            if word.eq_ignore_ascii_case(b"skip") {
                // It counts for the command behind EXEC.
                if unfolding.then == ReplyMode::On {
                    unfolding.then = ReplyMode::SkipNext;
                }
                return;
            }
            unfolding.mute = false;
            if unfolding.then == ReplyMode::Off {
                unfolding.then = ReplyMode::On;
            }
        }
        if !unfolding.mute {
            self.session.outbox.deliver(reply);
        }
    }
}

/// Whether a command may publish whatever it likes on whatever channel.
fn publishes(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"PUBLISH")
        || name.eq_ignore_ascii_case(b"SPUBLISH")
        || runs_script(name)
}

fn number(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.trim_end().parse().ok()
}
