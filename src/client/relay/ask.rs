//! Commands about the session itself, on the connection that the session has.
//!
//! They go to the server like any other command, so that the server judges them, and their replies
//! are collected whole and told in the session's words ([`super::super::heard`]). In a transaction
//! they are queued on the server; the elements of `EXEC`'s reply that answer them are told when it
//! comes.

use bytes::{Bytes, BytesMut};

use super::super::heard::asked;
use super::super::state::{Closed, Transaction};
use super::effects::{Effect, Effects, Queued};
use super::{Awaited, Expect, Feed, Relay};
use crate::resp::command::Local;
use crate::resp::scan::{Reply, ReplyKind, ReplyScanner, args, write_request};
use crate::upstream::identity::Resp;
use crate::upstream::lane::ReplySink;
use crate::upstream::on_way::request_len;

impl Relay<'_> {
    pub(super) fn local(&mut self, local: Local, len: usize) -> Option<Feed> {
        if local.needs_no_server() {
            return self.answer_here(local, len);
        }
        if local == Local::ClientUnblock {
            self.judge_later(len);
            let quiet = self.expects.is_empty() && self.out.is_empty();
            return Some(if quiet {
                Feed::Answer(local, len)
            } else {
                Feed::Wait
            });
        }
        let request = self.session.input.split_to(len).freeze();
        self.ask(local, request);
        None
    }

    fn answer_here(&mut self, local: Local, len: usize) -> Option<Feed> {
        let argc = self.session.scanner.argc();
        if local == Local::Failover && self.transaction.is_some() {
            return self.refuse(len, "ERR FAILOVER is not possible in a transaction");
        }
        if local == Local::ClientReply && (self.transaction.is_some() || self.only_listens()) {
            let request = self.session.input.split_to(len).freeze();
            self.pass_on_reply_mode(request);
            return None;
        }
        if local == Local::Reset && argc != Some(1) {
            return self.refuse(len, "ERR wrong number of arguments for 'reset' command");
        }
        self.judge_later(len);
        if !self.expects.is_empty() {
            return Some(Feed::Wait);
        }
        if self.is_clean() {
            return Some(Feed::Leave);
        }
        Some(Feed::Answer(local, len))
    }

    /// `CLIENT REPLY` where the server judges it: in a transaction, or, in RESP2, of a subscriber.
    /// It must not be silent to the proxy.
    fn pass_on_reply_mode(&mut self, request: Bytes) {
        const REPLY_ON: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n";
        let words = words_from(&request, 2);
        let is_mode = |word: &&[u8]| {
            [&b"on"[..], b"off", b"skip"]
                .iter()
                .any(|mode| word.eq_ignore_ascii_case(mode))
        };
        let changes = words.len() == 1 && words.iter().all(is_mode);
        let asked = match changes {
            true => Bytes::from_static(REPLY_ON),
            false => request.clone(),
        };
        if self.transaction.is_none() {
            self.send_instead(&asked, &request, Awaited::Plain, false);
        } else if changes {
            self.queue(Effect::Replies, request, &asked, false);
        } else {
            self.queue_plainly(&asked);
        }
    }

    /// Whether the server takes nothing from this client but what is about subscriptions.
    pub(super) fn only_listens(&self) -> bool {
        self.session.identity.resp == Resp::Resp2 && !self.subscriptions.is_empty()
    }

    /// Sends a command about the session, or what stands for it.
    pub(super) fn ask(&mut self, local: Local, request: Bytes) {
        let any_condition = !self.session.seat.master_lets_go();
        let asked = asked(local, &request, any_condition);
        self.ask_in_words(local, request, &asked);
    }

    pub(super) fn ask_in_words(&mut self, local: Local, request: Bytes, asked: &Bytes) {
        if self.transaction.is_some() {
            self.queue(Effect::Session(local), request, asked, false);
            // It has an id in it that means somebody else on another node.
            if local == Local::ClientUnblock
                && let Some(open) = &mut self.transaction
            {
                open.forget();
            }
        } else {
            let what = Awaited::Session(local, request.clone());
            self.send_instead(asked, &request, what, false);
        }
    }

    /// Has a command queued in the transaction whose reply means something to the session.
    pub(super) fn queue(&mut self, effect: Effect, request: Bytes, asked: &Bytes, write: bool) {
        if self.is_broken() {
            return self.pretend_queued();
        }
        let Some(open) = &mut self.transaction else {
            return;
        };
        if let Err(error) = open.effects.push(open.commands, effect, &request) {
            return self.fail_transaction(format!("-{error}\r\n").into_bytes());
        }
        open.push(asked);
        self.send_instead(asked, &request, Awaited::Queued, write);
    }

    fn queue_plainly(&mut self, request: &Bytes) {
        if self.is_broken() {
            return self.pretend_queued();
        }
        if let Some(open) = &mut self.transaction {
            open.push(request);
        }
        self.send(request, Awaited::Queued, false);
    }

    /// What comes next depends on a reply that is not here yet.
    pub(super) fn awaits_identity(&self) -> bool {
        if self.unfolding.is_some() {
            return true;
        }
        match self.expects.back() {
            Some(Expect {
                what: Awaited::Session(local, _),
                ..
            }) => local.changes_identity() || *local == Local::ClientKill,
            Some(Expect {
                what: Awaited::Exec(_),
                ..
            }) => true,
            _ => false,
        }
    }

    /// Whether the reply that is due is read by the proxy first, and so is kept until it is whole.
    pub(super) fn collects(&self) -> bool {
        let due = self.expects.front().map(|expect| &expect.what);
        let is_read = matches!(
            due,
            Some(
                Awaited::Session(..)
                    | Awaited::Exec(_)
                    | Awaited::TrackingInfo(_)
                    | Awaited::LastId(_)
                    | Awaited::Silence
                    | Awaited::ReplyMode(_)
            )
        );
        (is_read || self.withholds_next()) && !self.unasked
    }

    /// Keeps a part of such a reply.
    pub(super) fn collect(&mut self, len: usize) -> Result<(), Closed> {
        let part = self.link.input.get(..len).unwrap_or_default();
        let whole = self.collected.len().saturating_add(part.len());
        if whole > self.session.seat.limits.output_buffer_bytes_max {
            return Err(Closed::OutputLimit);
        }
        self.collected.extend_from_slice(part);
        Ok(())
    }

    /// The reply to a command about the session.
    pub(super) fn session_answered(
        &mut self,
        local: Local,
        request: &Bytes,
        reply: &Bytes,
        mute: bool,
    ) {
        let answer = self.told(local, request, reply);
        if !mute {
            self.session.outbox.deliver(&answer);
        }
    }

    fn told(&mut self, local: Local, request: &Bytes, reply: &Bytes) -> Bytes {
        let identity = &mut self.link.identity;
        let heard = self
            .session
            .heard(local, request, reply, identity, self.epoch);
        if let Some(take_back) = heard.take_back {
            self.expect_own(&take_back, Awaited::TakeBack, true);
        }
        if heard.renamed {
            self.link.name = self.session.name.clone();
        }
        heard.answer
    }

    /// Gives the connection the session's name, which the server's slow log and its own list of
    /// clients show. A connection from the pool has the name of whoever had it last.
    pub(super) fn wear_name(&mut self) {
        let name = &self.session.name;
        if self.link.name == *name {
            return;
        }
        let mut request = BytesMut::new();
        write_request(&mut request, &[&b"CLIENT"[..], b"SETNAME", name]);
        self.link.name = name.clone();
        self.expect_own(&request, Awaited::TakeBack, true);
    }

    /// `EXEC`'s reply to a transaction with commands in it that mean something to the session.
    pub(super) fn executed(
        &mut self,
        mut effects: Effects,
        open: Option<&Transaction>,
        reply: &Bytes,
        mute: bool,
    ) {
        let mut answer = BytesMut::with_capacity(reply.len());
        let mut rest = reply.clone();
        let header = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        if reply.starts_with(b"*")
            && let Some(header) = header
        {
            answer.extend_from_slice(&rest.split_to(header));
            let mut requests = open.and_then(Transaction::queue).unwrap_or_default();
            let mut at = 0;
            let mut flushed = false;
            while let Some(element) = next_element(&mut rest) {
                let request = next_request(&mut requests);
                if flushed {
                    self.session.note_script_of(request);
                }
                match effects.take(at) {
                    Some(Queued {
                        effect: Effect::Session(local),
                        request,
                        ..
                    }) => answer.extend_from_slice(&self.told(local, &request, &element)),
                    Some(of) => {
                        if of.effect == Effect::ScriptFlush && element.first() != Some(&b'-') {
                            self.scripts_flushed();
                            flushed = true;
                        }
                        answer.extend_from_slice(&element);
                    }
                    None => answer.extend_from_slice(&element),
                }
                at += 1;
            }
        }
        answer.extend_from_slice(&rest);
        if !mute {
            self.session.outbox.deliver(&answer);
        }
    }
}

/// The next command of a transaction's queue; empty when what was queued is not known.
fn next_request<'q>(queue: &mut &'q [u8]) -> &'q [u8] {
    let len = request_len(queue).unwrap_or_default();
    let (request, rest) = queue.split_at_checked(len).unwrap_or_default();
    *queue = rest;
    request
}

pub(super) fn next_element(rest: &mut Bytes) -> Option<Bytes> {
    let mut scanner = ReplyScanner::default();
    let mut end = 0;
    loop {
        match scanner.scan(rest.get(end..)?) {
            Ok(Reply::Complete { len, .. }) => return Some(rest.split_to(end + len)),
            Ok(Reply::Partial { len: 0 }) | Err(_) => return None,
            Ok(Reply::Partial { len }) => end += len,
        }
    }
}

/// Whether a reply to a command within a transaction says that it is not possible there, without
/// failing the transaction.
pub(super) fn only_refused(reply: &[u8], kind: ReplyKind) -> bool {
    kind == ReplyKind::Error
        && (reply.starts_with(b"-ERR MULTI calls can not be nested")
            || reply.starts_with(b"-ERR WATCH inside MULTI is not allowed"))
}

/// The words of a request from `at` on.
pub(super) fn words_from(request: &[u8], at: usize) -> Vec<&[u8]> {
    args(request).skip(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_reply_are_taken_one_by_one() {
        let mut rest = Bytes::from_static(b"+OK\r\n*2\r\n:1\r\n$3\r\nabc\r\n_\r\n");
        assert_eq!(next_element(&mut rest).unwrap(), b"+OK\r\n"[..]);
        let nested = b"*2\r\n:1\r\n$3\r\nabc\r\n";
        assert_eq!(next_element(&mut rest).unwrap(), nested[..]);
        assert_eq!(next_element(&mut rest).unwrap(), b"_\r\n"[..]);
        assert_eq!(next_element(&mut rest), None);
    }
}
