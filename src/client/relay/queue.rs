//! Commands of an open transaction, and the `EXEC` that ends it.
//!
//! The server queues them, so it judges each; what is to be sent again on another master is kept in
//! [`Transaction`].
//!
//! **Invariant:** the client's transaction is never executed in part. What the proxy refuses
//! itself, or could not queue again, makes `EXEC` refuse the whole.

use bytes::Bytes;

use super::effects::Effect;
use super::tracking::{ASK, Change};
use super::{Awaited, Keeps, Relay, keeps_after};
use crate::client::state::{Stand, Transaction};
use crate::resp::command::{Pin, Verdict};
use crate::upstream::identity::Resp;

/// A command that no server knows: queued in a transaction, it makes `EXEC` refuse all of it.
const POISON: &[u8] = b"*1\r\n$17\r\nPOINTSMAN.REFUSED\r\n";
pub(super) const QUEUED: &[u8] = b"+QUEUED\r\n";
const NESTED: &[u8] = b"-ERR MULTI calls can not be nested\r\n";
const WATCH_INSIDE: &[u8] = b"-ERR WATCH inside MULTI is not allowed\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

impl Relay<'_> {
    pub(super) fn pass_on_in_transaction(
        &mut self,
        request: &Bytes,
        pin: Option<Pin>,
        verdict: Verdict,
        uploaded: bool,
    ) {
        match pin {
            Some(Pin::Exec) => self.pass_on_exec(request),
            Some(Pin::Discard) => {
                self.transaction = None;
                self.watching = false;
                self.send(request, Awaited::Cleaning, false);
            }
            // The server, which has no transaction, would open one.
            Some(Pin::Multi) if self.is_broken() => self.fail_transaction(NESTED.to_vec()),
            Some(Pin::Watch) if self.is_broken() => self.fail_transaction(WATCH_INSIDE.to_vec()),
            // The server says that they do not belong here, and goes on with the transaction.
            Some(Pin::Multi | Pin::Watch) => self.send(request, Awaited::Queued, false),
            Some(Pin::Subscribe(kind)) => self.queue_subscribe(request, kind),
            Some(Pin::Unsubscribe(kind)) => {
                self.queue(Effect::Unsubscribe(kind), request.clone(), request, false);
            }
            Some(Pin::ScriptFlush) => {
                self.queue(Effect::ScriptFlush, request.clone(), request, true);
            }
            _ => self.queue_about_data(request, pin, &verdict, uploaded),
        }
    }

    fn pass_on_exec(&mut self, request: &Bytes) {
        let Some(mut open) = self.transaction.take() else {
            return;
        };
        // A queue in which something was refused is not executed, and leaves nothing.
        if open.sticks && !open.failed {
            self.keeps = Keeps::Unknown;
        }
        let unfolds = self.unfolds(&open);
        let effects = std::mem::take(&mut open.effects);
        open.watched = std::mem::take(&mut self.watching);
        if let Some(answer) = self.instead_of_exec(&open) {
            return self.send_own(DISCARD, Awaited::Substitute(answer));
        }
        if unfolds {
            self.send(request, Awaited::Unfolding, true);
            self.unfold(effects);
        } else if effects.is_empty() {
            self.send(request, Awaited::Cleaning, true);
        } else {
            self.send(request, Awaited::Exec(effects), true);
        }
        let tracks = open.tracks.clone();
        if let Some(exec) = self.expects.back_mut() {
            exec.transaction = Some(Box::new(open));
        }
        if let Some(asked) = tracks {
            self.expect_own(ASK, Awaited::TrackingInfo(asked), true);
        }
    }

    /// Has a command queued whose reply means nothing to the session.
    fn queue_about_data(
        &mut self,
        request: &Bytes,
        pin: Option<Pin>,
        verdict: &Verdict,
        uploaded: bool,
    ) {
        if self.is_broken() {
            return self.pretend_queued();
        }
        if pin == Some(Pin::Tracking)
            && let Err(error) = self.will_track(Change::read(request))
        {
            return self.fail_transaction(error);
        }
        let asked = self.with_target(request);
        if let Some(open) = &mut self.transaction {
            open.sticks |= keeps_after(&verdict.path) != Keeps::Nothing;
            open.push(&asked);
            // Another node has another id for the client that is named in it.
            if uploaded || asked != *request {
                open.forget();
            }
        }
        self.send_instead(&asked, request, Awaited::Queued, verdict.writes);
    }

    /// What `EXEC` answers when the transaction must not run: its watched keys cannot be vouched
    /// for any more, or it could not be repeated on the new master.
    fn instead_of_exec(&self, open: &Transaction) -> Option<Vec<u8>> {
        if open.stand == Stand::Broken {
            return Some(
                b"-EXECABORT Transaction discarded: the master changed and the queue could not be \
                  repeated; nothing was executed\r\n"
                    .to_vec(),
            );
        }
        if open.failed && open.carried {
            return Some(
                b"-EXECABORT Transaction discarded because of previous errors.\r\n".to_vec(),
            );
        }
        open.watch_lost.then(|| match self.session.identity.resp {
            Resp::Resp2 => b"*-1\r\n".to_vec(),
            Resp::Resp3 => b"_\r\n".to_vec(),
        })
    }

    /// Ends the transaction on the server without running it; `EXEC` answers `text`.
    pub(super) fn give_up_transaction(&mut self, text: &str) {
        self.transaction = None;
        self.watching = false;
        let answer = format!("-{text}\r\n").into_bytes();
        self.send_own(DISCARD, Awaited::Substitute(answer));
    }

    /// The server has no transaction to queue a command in. `EXEC` will say so.
    pub(super) fn pretend_queued(&mut self) {
        self.send_own(POISON, Awaited::Substitute(QUEUED.to_vec()));
    }

    /// Answers a command of a transaction with an error of ours, which fails the whole of it.
    pub(super) fn fail_transaction(&mut self, line: Vec<u8>) {
        if let Some(open) = &mut self.transaction {
            open.failed = true;
            open.push(POISON);
        }
        self.send_own(POISON, Awaited::Substitute(line));
    }
}
