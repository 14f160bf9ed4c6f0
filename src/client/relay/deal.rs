//! Replies of a connection of the session's own, server to client, matched to what is expected.

use bytes::{Buf, Bytes};

use super::super::state::Closed;
use super::ask::only_refused;
use super::blocking::SPARE;
use super::message::first_word;
use super::refused::Queueing;
use super::{Again, Awaited, Expect, Keeps, Relay};
use crate::resp::command::Local;
use crate::resp::scan::{Reply, ReplyKind};
use crate::upstream::identity::Resp;
use crate::upstream::lane::ReplySink;
use crate::upstream::trial;

/// What a frame that arrives is, as far as matching is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// The answer to the oldest request.
    Answer,
    /// Something that nobody asked for now: a message, an invalidation, a monitor line.
    Unasked,
    /// A subscription was made or ended.
    Confirmation,
}

impl Relay<'_> {
    /// Deals out everything that has been read from the server.
    pub(super) fn deal(&mut self) -> Result<(), Closed> {
        while !self.link.input.is_empty() {
            if !self.link.scanner.mid_reply() {
                if self.link.input.first() == Some(&b'-') && !self.is_line_here() {
                    break;
                }
                if self.take_header().is_none() {
                    break;
                }
                match self.frame() {
                    Some(frame) => self.begin(frame)?,
                    None => break,
                }
            }
            match self.link.scanner.scan(&self.link.input) {
                Ok(Reply::Complete { len, kind }) => {
                    let mut bytes = self.link.input.split_to(len).freeze();
                    if !self.collected.is_empty() && !self.unasked {
                        self.collected.extend_from_slice(&bytes);
                        bytes = self.collected.split().freeze();
                    }
                    self.complete(&bytes, kind);
                }
                Ok(Reply::Partial { len }) => {
                    let part = self.link.input.get(..len).unwrap_or_default();
                    if self.collects() {
                        self.collect(len)?;
                    } else if self.frame_is_for_client() {
                        self.session.outbox.deliver(part);
                    }
                    self.link.input.advance(len);
                    break;
                }
                Err(_) => return Err(Closed::UpstreamLost),
            }
        }
        self.session.outbox.flush_now();
        Ok(())
    }

    /// Whether what the session is subscribed to comes as arrays: in RESP2, and from Kvrocks in
    /// RESP3 too, which pushes confirmations only (and agrees to `HELLO 3` where it is not to speak
    /// RESP3).
    fn may_be_told_in_arrays(&self) -> bool {
        (!self.subscriptions.is_empty() || self.keeps == Keeps::Subscriptions)
            && (self.link.identity.resp == Resp::Resp2
                || !self.session.seat.master_pushes_messages())
    }

    /// What the frame in front is; `None` until enough of it has arrived.
    fn frame(&self) -> Option<Frame> {
        let input = &self.link.input;
        let frame = peek(input, self.keeps, self.may_be_told_in_arrays())?;
        let like_an_answer = self.is_unfolding() && input.first() == Some(&b'*');
        if frame == Frame::Unasked && like_an_answer && !self.is_message()? {
            return Some(Frame::Answer);
        }
        Some(frame)
    }

    /// A new frame begins. An answer without a request would be somebody else's.
    fn begin(&mut self, frame: Frame) -> Result<(), Closed> {
        let expected = match frame {
            Frame::Unasked => true,
            Frame::Answer => !self.expects.is_empty(),
            // What a command of a transaction answers may read like one.
            Frame::Confirmation => {
                self.is_unfolding()
                    || matches!(
                        self.expects.front(),
                        Some(Expect {
                            what: Awaited::Confirm(..) | Awaited::Again(Again::Subscribed(_)),
                            ..
                        })
                    )
            }
        };
        self.unasked = frame == Frame::Unasked;
        if expected {
            Ok(())
        } else {
            Err(Closed::UpstreamLost)
        }
    }

    fn frame_is_for_client(&self) -> bool {
        if self.unasked {
            return true;
        }
        match self.expects.front() {
            // Redis does not count confirmations as replies: CLIENT REPLY lets them pass.
            Some(Expect {
                what: Awaited::Confirm(..),
                ..
            }) => true,
            Some(Expect { mute: true, .. }) | None => false,
            Some(Expect { what, .. }) => !matches!(
                what,
                Awaited::Swallow
                    | Awaited::Silence
                    | Awaited::Substitute(_)
                    | Awaited::Again(_)
                    | Awaited::TrackingInfo(_)
                    | Awaited::Session(..)
                    | Awaited::Exec(_)
                    | Awaited::TakeBack
                    | Awaited::LastId(_)
                    | Awaited::ReplyMode(_)
            ),
        }
    }

    fn complete(&mut self, bytes: &Bytes, kind: ReplyKind) {
        let for_client = self.frame_is_for_client();
        if self.unasked {
            if self.keeps != Keeps::Monitor || !trial::is_shown_in(bytes) {
                self.session.outbox.deliver(bytes);
            }
            return;
        }
        let Some(mut expect) = self.expects.pop_front() else {
            return;
        };
        if self.is_withheld(&expect, bytes, kind) {
            return self.withhold(expect, bytes, kind);
        }
        if matches!(expect.what, Awaited::Blocking)
            && kind == ReplyKind::Error
            && self.was_let_go(bytes)
        {
            self.expects.met(&expect);
            self.unblocked_by_server(bytes, expect.mute);
            return;
        }
        if self.queueing_was_refused(&expect, bytes, kind) {
            return;
        }
        if for_client && !(expect.mute && kind == ReplyKind::Error) {
            self.session.outbox.deliver(bytes);
        }
        if let Awaited::Confirm(_, left) | Awaited::Again(Again::Subscribed(left)) =
            &mut expect.what
            && *left > 1
            && kind != ReplyKind::Error
        {
            *left -= 1;
            self.expects.push_front(expect);
            return;
        }
        self.settle_expect(expect, kind, bytes);
    }

    fn settle_expect(&mut self, expect: Expect, kind: ReplyKind, bytes: &Bytes) {
        self.settle_sent(&expect, kind, bytes);
        if expect.what.ends_caching() {
            self.tracking.command_executed();
        }
        match expect.what {
            Awaited::Multi => {
                self.queueing = Queueing::Clean;
                if kind == ReplyKind::Error {
                    self.transaction = None;
                }
            }
            Awaited::Queued if !bytes.starts_with(b"+QUEUED") && !only_refused(bytes, kind) => {
                self.queueing = Queueing::Failed;
                if let Some(open) = &mut self.transaction {
                    open.failed = true;
                }
            }
            Awaited::Blocking => self.wait_ended(bytes),
            Awaited::Silence if bytes[..] == *SPARE => self.expects.push_front(expect),
            Awaited::LastId(at) => self.note_last_id(at, bytes),
            Awaited::ScriptFlush if kind != ReplyKind::Error => {
                self.scripts_flushed();
                self.flushed_in_unfolding();
            }
            Awaited::Cleaning | Awaited::Unfolding
                if kind == ReplyKind::Error && !bytes.starts_with(b"-EXECABORT") =>
            {
                self.keeps_unknown();
            }
            Awaited::Sticky => {
                if !is_unknown(bytes) {
                    self.keeps_unknown();
                }
                self.receiver_settled();
            }
            Awaited::Plain if self.keeps == Keeps::Monitor => self.receiver_settled(),
            Awaited::Plain if bytes[..] == b"+QUEUED\r\n"[..] => self.keeps_unknown(),
            Awaited::Confirm(of, _) => self.subscriptions_settled(of, kind),
            Awaited::Tracking(change) if bytes[..] == b"+OK\r\n"[..] => self.track(*change),
            Awaited::TrackingInfo(asked) => self.tracking_told(bytes, kind, *asked),
            Awaited::Again(again) => self.settle_again(again, kind, bytes),
            Awaited::Session(local, request) => {
                // Options that were read before the wrong one may have been acted on.
                self.spent |= kind == ReplyKind::Error && local == Local::Hello;
                self.session_answered(local, &request, bytes, expect.mute);
            }
            Awaited::Exec(queued) => {
                self.executed(queued, expect.transaction.as_deref(), bytes, expect.mute);
                if kind == ReplyKind::Error && !bytes.starts_with(b"-EXECABORT") {
                    self.keeps_unknown();
                }
            }
            Awaited::TakeBack => {
                self.spent |= kind == ReplyKind::Error;
                self.receiver_settled();
            }
            Awaited::ReplyMode(request) => self.replies_change(&request, bytes, kind),
            Awaited::Substitute(answer) if !expect.mute => self.session.outbox.push(&answer),
            _ => {}
        }
        if self.is_unfolding() {
            self.expect_element();
        } else if self.unfolding.is_some() {
            // It was not run.
            self.unfolded();
        }
    }

    /// What was sent has its answer.
    pub(super) fn settle_sent(&mut self, expect: &Expect, kind: ReplyKind, bytes: &[u8]) {
        if !expect.is_own() {
            self.session.outbox.answered_one();
        }
        self.expects.met(expect);
        if expect.write {
            self.session.seat.gate.write_ended(1);
        }
        self.settle_pause(&expect.what, kind, bytes);
    }

    /// Scripts that were known to the server are not any more.
    pub(super) fn scripts_flushed(&self) {
        let session = &self.session;
        let by = session.identity.credentials.as_deref();
        session.seat.scripts.store().flushed(&self.links.node, by);
    }

    /// The server is still in a transaction, or watches, although the proxy took it for over:
    /// nobody else may get this connection.
    pub(super) fn keeps_unknown(&mut self) {
        if self.keeps != Keeps::Monitor {
            self.keeps = Keeps::Unknown;
        }
    }
}

/// The server does not know such a command, so it left nothing on the connection. Libraries try
/// what newer servers know on every new connection: `CLIENT MAINT_NOTIFICATIONS`, for one.
fn is_unknown(reply: &[u8]) -> bool {
    let says = |text: &[u8]| {
        let begin = reply.get(..text.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(text))
    };
    says(b"-ERR unknown command")
        || says(b"-ERR unknown subcommand")
        || says(b"-ERR syntax error, try CLIENT ")
}

/// What the frame at the front of `input` is; `None` until enough of it has arrived.
fn peek(input: &[u8], keeps: Keeps, in_arrays: bool) -> Option<Frame> {
    match input.first()? {
        b'+' if keeps == Keeps::Monitor => match input.get(1)? {
            b'0'..=b'9' => Some(Frame::Unasked),
            _ => Some(Frame::Answer),
        },
        b'>' => first_word(input, b'>').map(|word| by_word(word, Frame::Unasked)),
        b'*' if in_arrays => first_word(input, b'*').map(|word| by_word(word, Frame::Answer)),
        _ => Some(Frame::Answer),
    }
}

fn by_word(word: &[u8], otherwise: Frame) -> Frame {
    match word {
        b"message" | b"pmessage" | b"smessage" => Frame::Unasked,
        b"subscribe" | b"unsubscribe" | b"psubscribe" | b"punsubscribe" | b"ssubscribe"
        | b"sunsubscribe" => Frame::Confirmation,
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_confirmations_and_answers_are_told_apart() {
        let check = |input: &[u8], keeps, expected| {
            assert_eq!(peek(input, keeps, keeps == Keeps::Subscriptions), expected)
        };
        let subscribed = Keeps::Subscriptions;
        check(
            b"*3\r\n$7\r\nmessage\r\n$1",
            subscribed,
            Some(Frame::Unasked),
        );
        check(
            b"*3\r\n$9\r\nsubscribe\r\n",
            subscribed,
            Some(Frame::Confirmation),
        );
        check(b"*3\r\n$9\r\nsubscri", subscribed, None);
        check(
            b"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
            subscribed,
            Some(Frame::Answer),
        );
        check(
            b"*3\r\n$7\r\nmessage\r\n$1",
            Keeps::Nothing,
            Some(Frame::Answer),
        );
        check(
            b">2\r\n$10\r\ninvalidate\r\n*1",
            Keeps::Unknown,
            Some(Frame::Unasked),
        );
        check(b"+OK\r\n", Keeps::Monitor, Some(Frame::Answer));
        check(
            b"+1339518083.107412 [0 127",
            Keeps::Monitor,
            Some(Frame::Unasked),
        );
        check(b"*0\r\n", subscribed, Some(Frame::Answer));
        check(b"-ERR x\r\n", subscribed, Some(Frame::Answer));
    }

    #[test]
    fn an_answer_that_is_here_is_told_whatever_its_first_element_is() {
        for answer in [
            &b"*1\r\n$-1\r\n"[..],
            b"*1\r\n$3\r\na\nb\r\n",
            b"*1\r\n$0\r\n\r\n",
            b"*1\r\n*-1\r\n",
            b"*-1\r\n",
        ] {
            assert_eq!(
                peek(answer, Keeps::Subscriptions, true),
                Some(Frame::Answer)
            );
        }
    }
}
