//! A master that refuses to be one, on a connection of the session's own: what it did not execute
//! is asked once more, of the next master, as the session does with what a lane refused.
//!
//! * A command that is refused while a transaction is open is `QUEUED` to the client, and the
//!   transaction is opened again on the next master.
//! * An `EXEC` is refused as a whole by Redis. Kvrocks runs it, and refuses command by command: it
//!   is repeated only when every one that writes was refused, since then none of them has.
//! * What a script answers is the script's to say. It is believed, and the script repeated, only
//!   when its node turns out not to be master any more; on a replica no script can have written.
//! * A command that waits, and what changes the session or tells of it, is not sent behind a
//!   request that may be refused: the first would keep what was refused waiting with it, and what
//!   the second answers is told, and acted on, when it comes. In a pipeline that costs it one round
//!   trip.
//!
//! **Invariant:** a connection on which something was refused and is repeated is left and closed:
//! it may hold half a transaction.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::session::{TOO_LATE, Waited};
use super::super::state::{Closed, ReplyMode, Stand, Transaction, runs_script};
use super::super::withheld::{Answered, Fate};
use super::ask::next_element;
use super::queue::QUEUED;
use super::{Awaited, Expect, Relay};
use crate::resp::command::{self, Path, Pin, classify};
use crate::resp::refusal::{Refusal, Verdict, judge, refusal};
use crate::resp::scan::{ReplyKind, args, is_null};
use crate::upstream::on_way::request_len;

/// How Redis before 7 tells of a script that was refused, and Kvrocks of one that only reads.
const IN_SCRIPT: &[u8] = b"READONLY You can't write against a read only";

/// What the server says to the commands of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queueing {
    Clean,
    /// It would have taken them, were it the master.
    Refused,
    Failed,
}

impl Relay<'_> {
    /// Whether the request in front must not stand behind what may be refused, and would.
    pub(super) fn waits_its_turn(&self, verdict: &command::Verdict) -> bool {
        if self.transaction.is_some() {
            return false;
        }
        match verdict.path {
            Path::Pinned(Pin::Blocking | Pin::Wait | Pin::Tracking | Pin::ScriptFlush) => {
                self.expects.any_of_client()
            }
            Path::Local(_) => self.expects.is_last_about_data(),
            _ => false,
        }
    }

    /// Whether enough of the error line in front is here to be judged.
    pub(super) fn is_line_here(&self) -> bool {
        judge(&self.link.input) != Verdict::Incomplete
    }

    /// Whether the reply that is due is looked at as a whole before the client sees it.
    pub(super) fn withholds_next(&self) -> bool {
        if self.withheld.is_some() {
            return true;
        }
        let exec = self
            .expects
            .front()
            .and_then(|expect| expect.transaction.as_deref());
        exec.is_some_and(|open| open.runs_script || !self.session.seat.master_lets_go())
    }

    /// Whether the client must not see this reply, because something has been refused.
    pub(super) fn is_withheld(&self, expect: &Expect, bytes: &Bytes, kind: ReplyKind) -> bool {
        if expect.is_own() {
            return false;
        }
        self.withheld.is_some()
            || (!matches!(expect.what, Awaited::Queued | Awaited::Substitute(_))
                && self.fate(expect, bytes, kind) == Fate::Refused
                && !self.session.seat.is_alone())
    }

    fn fate(&self, expect: &Expect, bytes: &Bytes, kind: ReplyKind) -> Fate {
        let is_error = kind == ReplyKind::Error;
        if let Some(open) = &expect.transaction {
            let refused = match is_error {
                true => {
                    refusal(bytes).is_some()
                        || (bytes.starts_with(b"-EXECABORT") && self.queueing == Queueing::Refused)
                }
                false => are_writes_refused(open, bytes),
            };
            return match (refused, is_error) {
                (true, _) => Fate::Refused,
                (false, true) => Fate::Harmless,
                (false, false) => Fate::Executed,
            };
        }
        let in_script = || expect.write && bytes.windows(IN_SCRIPT.len()).any(|at| at == IN_SCRIPT);
        match &expect.what {
            Awaited::Multi | Awaited::Queued | Awaited::Substitute(_) => match refusal(bytes) {
                Some(_) if is_error => Fate::Refused,
                _ => Fate::Harmless,
            },
            _ if is_error && (refusal(bytes).is_some() || in_script()) => Fate::Refused,
            // What it waited for has been taken.
            Awaited::Blocking if !is_error && !is_null(bytes) => Fate::Executed,
            _ if expect.write => Fate::Executed,
            _ => Fate::Harmless,
        }
    }

    /// Keeps a reply from the client until it is known what becomes of its request.
    pub(super) fn withhold(&mut self, mut expect: Expect, bytes: &Bytes, kind: ReplyKind) {
        let fate = self.fate(&expect, bytes, kind);
        if expect.write {
            self.session.seat.gate.write_ended(1);
        }
        let request = self.expects.take_back(&expect);
        let transaction = expect.transaction.take();
        let mut what = expect.what;
        if let Awaited::Multi = what {
            self.queueing = Queueing::Clean;
        }
        self.withheld_queue |=
            transaction.is_some() || matches!(what, Awaited::Multi | Awaited::Queued);
        if self.withheld.is_none() {
            self.refused_transaction = transaction.map(|mut open| {
                if let Awaited::Exec(effects) = &mut what {
                    open.effects = std::mem::take(effects);
                } else if let Some(unfolding) = self.unfolding.take() {
                    open.effects = unfolding.into_effects();
                }
                open
            });
        }
        let reply = match what {
            Awaited::Substitute(answer) => answer.into(),
            _ => bytes.clone(),
        };
        let withheld = self.withheld.get_or_insert_default();
        withheld.push(Answered {
            request,
            reply,
            fate,
            mute: expect.mute,
        });
    }

    /// A command of a transaction was refused: to the client it is queued.
    pub(super) fn queueing_was_refused(
        &mut self,
        expect: &Expect,
        bytes: &Bytes,
        kind: ReplyKind,
    ) -> bool {
        let refused = matches!(expect.what, Awaited::Queued)
            && kind == ReplyKind::Error
            && refusal(bytes).is_some();
        if !refused || self.session.seat.is_alone() {
            return false;
        }
        self.expects.met(expect);
        if expect.write {
            self.session.seat.gate.write_ended(1);
        }
        if self.queueing == Queueing::Clean {
            self.queueing = Queueing::Refused;
        }
        self.refusal_line = bytes.clone();
        let is_open = !self.expects.iter().any(|later| later.transaction.is_some());
        if let Some(open) = self.transaction.as_mut().filter(|_| is_open)
            && open.stand == Stand::Here
        {
            open.stand = Stand::Refused;
        }
        if !expect.mute {
            self.session.outbox.push(QUEUED);
        }
        true
    }

    /// Asks another master for what this one refused, with nothing of the client's expected here.
    pub(super) async fn refused(&mut self) -> Result<(), Closed> {
        if let Some(withheld) = self.withheld.take() {
            let resolved = withheld.resolve(TOO_LATE);
            self.session.outbox.push(&resolved.replies);
            let refused = self.refused_transaction.take().filter(|_| resolved.whole);
            let in_queue = std::mem::take(&mut self.withheld_queue);
            if resolved.again.is_empty() {
                // What the replies that were withheld left on the connection was not looked at.
                self.spent = true;
                if !self.waits_on_server() {
                    self.blocked_ended();
                }
                return Ok(());
            }
            if in_queue && !resolved.whole {
                // The rest of a transaction must not be executed without its beginning.
                return Err(Closed::NotCarried);
            }
            self.transaction = refused.map(|open| {
                let mut open = *open;
                open.stand = Stand::Refused;
                open.watch_lost |= open.watched;
                open
            });
            if resolved.mute && self.session.reply_mode == ReplyMode::On {
                self.session.reply_mode = ReplyMode::SkipNext;
            }
            self.give_back_upload()?;
            self.session.ask_again(resolved.again);
            self.refusal_line = resolved.reason;
        }
        let line = self.refusal_line.clone();
        if let Some(text) = self.sit_out(&line).await? {
            self.give_up_refused(&text).await?;
            if self.transaction.is_some() {
                return Ok(());
            }
        }
        self.expects.leave();
        self.out.clear();
        self.collected.clear();
        self.blocked_ended();
        self.carry().await
    }

    /// A large request was on its way behind what was refused: what is here of it is its rest.
    fn give_back_upload(&mut self) -> Result<(), Closed> {
        let Some(upload) = self.upload.take() else {
            return Ok(());
        };
        let sent = upload.whole().ok_or(Closed::NotCarried)?;
        self.session.ask_again(sent.into());
        Ok(())
    }

    /// Waits until what was refused may be sent once more. Otherwise says what it is answered.
    async fn sit_out(&mut self, line: &Bytes) -> Result<Option<String>, Closed> {
        let is_script = args(&self.session.input).next().is_some_and(runs_script)
            || self
                .transaction
                .as_ref()
                .is_some_and(|open| open.runs_script);
        let look = self.session.note_refusal(line.clone());
        loop {
            if self.session.wait_out_refusal(self.epoch).await? == Waited::BudgetSpent {
                return Ok(Some(self.session.budget_spent_text()));
            }
            if self.has_moved() {
                return Ok(None);
            }
            let seat = &self.session.seat;
            let lacks_replicas =
                refusal(line) == Some(Refusal::NoReplicas) && !seat.is_new_master();
            if seat.doubt.is_answered(look) && (is_script || lacks_replicas) {
                // The node is the master: what it says stands.
                let text = String::from_utf8_lossy(line);
                return Ok(Some(text.trim_end().trim_start_matches('-').to_owned()));
            }
            if !is_script {
                return Ok(None);
            }
        }
    }

    async fn give_up_refused(&mut self, text: &str) -> Result<(), Closed> {
        let Some(open) = &mut self.transaction else {
            return self.session.refuse_front(text).await;
        };
        open.stand = Stand::Broken;
        if self.upload.is_some() {
            return Err(Closed::NotCarried);
        }
        self.held_since = Some(Instant::now());
        self.refuse_in_transaction(text)
    }
}

/// Whether the array that `EXEC` answered says of every command that writes that it was refused.
fn are_writes_refused(open: &Transaction, reply: &Bytes) -> bool {
    const REFUSED: &[u8] = b"-READONLY ";
    let Some(mut queue) = open.queue() else {
        return false;
    };
    if !reply.starts_with(b"*") || !reply.windows(REFUSED.len()).any(|at| at == REFUSED) {
        return false;
    }
    let mut rest = reply.clone();
    let Some(header) = rest.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    let _ = rest.split_to(header + 1);
    let mut refused = 0;
    while let Some(len) = request_len(queue) {
        let (request, behind) = queue.split_at(len);
        queue = behind;
        let Some(element) = next_element(&mut rest) else {
            return false;
        };
        let words: Vec<&[u8]> = args(request).collect();
        let name = words.first().copied().unwrap_or_default();
        let writes = classify(name, |at| words.get(at).copied(), words.len()).writes;
        if refusal(&element).is_some() {
            refused += 1;
        } else if writes {
            return false;
        }
    }
    refused > 0
}
