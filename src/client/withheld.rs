//! What a session was answered from the first refusal on, until it is known what becomes of it.
//!
//! **Invariants:** what was refused is sent again only if nothing that the session asked for later
//! has been executed: only a suffix is repeated, so writes are executed in the order in which they
//! were asked for, or not at all. What may have been executed is never repeated.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::resp::refusal::refusal;
use crate::upstream::on_way::request_len;

/// One request that has been answered.
#[derive(Debug)]
pub struct Answered {
    /// `None`: its bytes were not kept.
    pub request: Option<Bytes>,
    pub reply: Bytes,
    pub fate: Fate,
    /// The client asked for no reply.
    pub mute: bool,
}

/// What the reply proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not executed, and could be elsewhere.
    Refused,
    /// It has changed nothing.
    Harmless,
    /// It was executed, or may have been.
    Executed,
    /// It only reads, and its connection broke before its reply.
    Lost,
}

impl Fate {
    /// Of a request on a shared connection: what answers an error there has changed nothing.
    fn on_lane(reply: &[u8], write: bool) -> Self {
        match reply.first() {
            Some(b'-') if refusal(reply).is_some() => Self::Refused,
            Some(b'-') => Self::Harmless,
            _ if write => Self::Executed,
            _ => Self::Harmless,
        }
    }
}

/// Everything that was answered from the first refusal on.
#[derive(Debug, Default)]
pub struct Withheld {
    answered: Vec<Answered>,
    part: BytesMut,
    bytes: usize,
}

/// What becomes of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What the client is told now.
    pub replies: BytesMut,
    /// What is asked once more.
    pub again: BytesMut,
    /// That is all of it, nothing is told now.
    pub whole: bool,
    /// The first of it is to be answered with silence.
    pub mute: bool,
    /// Why it was refused, in the server's words; empty where nothing of it was.
    pub reason: Bytes,
    /// How many requests are told about, silences included.
    pub told: usize,
    /// Which of those that are asked once more were lost, counted from the first of them.
    pub lost: Range<usize>,
}

impl Withheld {
    /// A part of the next reply.
    pub fn part(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.part.extend_from_slice(bytes);
    }

    /// The reply, of a shared connection, is whole.
    pub fn whole(&mut self, request: &[u8], write: bool, mute: bool) {
        let reply = self.part.split().freeze();
        self.answered.push(Answered {
            request: Some(Bytes::copy_from_slice(request)),
            fate: Fate::on_lane(&reply, write),
            reply,
            mute,
        });
    }

    pub fn push(&mut self, answered: Answered) {
        self.bytes += answered.reply.len();
        self.answered.push(answered);
    }

    /// Reads behind all of that have been lost with their connection.
    pub fn lost(&mut self, mut requests: &[u8], mute: bool) {
        while let Some((request, rest)) =
            request_len(requests).and_then(|len| requests.split_at_checked(len))
        {
            self.answered.push(Answered {
                request: Some(Bytes::copy_from_slice(request)),
                reply: Bytes::new(),
                fate: Fate::Lost,
                mute,
            });
            requests = rest;
        }
    }

    /// Whether something was lost, and has no reply.
    pub fn has_lost(&self) -> bool {
        self.answered.iter().any(|one| one.fate == Fate::Lost)
    }

    /// Whether silence and replies take turns in it: only the first of what is asked again can be
    /// answered with a silence of its own.
    pub fn is_part_mute(&self) -> bool {
        let mut mutes = self.answered.iter().map(|one| one.mute);
        let first = mutes.next();
        mutes.any(|mute| Some(mute) != first)
    }

    /// Bytes of replies.
    pub fn reply_bytes(&self) -> usize {
        self.bytes
    }

    /// Everything that was answered, as it was.
    pub fn replies(&self) -> impl Iterator<Item = &Bytes> {
        let told = self.answered.iter().filter(|one| !one.mute);
        told.map(|one| &one.reply)
    }

    /// Decides. `too_late` is said to what was refused but cannot be asked again.
    pub fn resolve(&self, too_late: &[u8]) -> Resolved {
        let stays = |one: &Answered| one.fate == Fate::Executed || one.request.is_none();
        let told = self.answered.iter().rposition(stays);
        let (told, again) = self
            .answered
            .split_at(told.map_or(0, |last| last + 1).min(self.answered.len()));
        let mut resolved = Resolved {
            whole: told.is_empty(),
            told: told.len(),
            ..Resolved::default()
        };
        for one in told.iter().filter(|one| !one.mute) {
            match one.fate {
                // What is lost stands last, and is among what is asked again.
                Fate::Refused | Fate::Lost => resolved.replies.put_slice(too_late),
                Fate::Harmless | Fate::Executed => resolved.replies.put_slice(&one.reply),
            }
        }
        if let Some(first) = again.first() {
            resolved.mute = first.mute;
        }
        if let Some(refused) = again.iter().find(|one| one.fate == Fate::Refused) {
            resolved.reason = refused.reply.clone();
        }
        if let Some(first) = again.iter().position(|one| one.fate == Fate::Lost) {
            resolved.lost = first..again.len();
        }
        for one in again {
            resolved
                .again
                .put_slice(one.request.as_deref().unwrap_or_default());
        }
        resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LATE: &[u8] = b"-TRYAGAIN\r\n";
    const REFUSED: &str = "-READONLY no\r\n";

    /// `(request, reply)`; requests that begin with `w` are writes.
    fn check(asked: &[(&str, &str)], told: &str, again: &str) {
        let mut withheld = Withheld::default();
        for (request, reply) in asked {
            withheld.part(reply.as_bytes());
            withheld.whole(request.as_bytes(), request.starts_with('w'), false);
        }
        let resolved = withheld.resolve(TOO_LATE);
        assert_eq!(resolved.replies, told.as_bytes());
        assert_eq!(resolved.again, again.as_bytes());
    }

    #[test]
    fn what_was_refused_and_reads_behind_it_are_asked_again_in_order() {
        check(
            &[("w1", REFUSED), ("r2", "$1\r\nx\r\n"), ("w3", REFUSED)],
            "",
            "w1r2w3",
        );
    }

    #[test]
    fn a_refused_write_before_an_executed_one_is_not_asked_again() {
        check(
            &[("w1", REFUSED), ("r2", ":1\r\n"), ("w3", "+OK\r\n")],
            "-TRYAGAIN\r\n:1\r\n+OK\r\n",
            "",
        );
        check(
            &[("w1", REFUSED), ("w2", "+OK\r\n"), ("w3", REFUSED)],
            "-TRYAGAIN\r\n+OK\r\n",
            "w3",
        );
    }

    #[test]
    fn a_write_that_failed_for_another_reason_changed_nothing() {
        check(
            &[("w1", REFUSED), ("w2", "-ERR wrong number\r\n")],
            "",
            "w1w2",
        );
    }

    #[test]
    fn what_was_not_kept_is_not_asked_again_and_nothing_before_it() {
        let mut withheld = Withheld::default();
        for request in [Some("w1".into()), None, Some("w3".into())] {
            withheld.push(Answered {
                request,
                reply: REFUSED.into(),
                fate: Fate::Refused,
                mute: false,
            });
        }
        let resolved = withheld.resolve(TOO_LATE);
        assert_eq!(resolved.replies, TOO_LATE.repeat(2));
        assert_eq!(resolved.again, b"w3"[..]);
    }

    #[test]
    fn reads_that_were_lost_are_asked_again_behind_what_was_refused() {
        let mut withheld = Withheld::default();
        withheld.part(REFUSED.as_bytes());
        withheld.whole(b"w1", true, false);
        withheld.lost(b"*1\r\n$2\r\nr2\r\n*1\r\n$2\r\nr3\r\n", false);
        assert!(withheld.has_lost() && !withheld.is_part_mute());
        let resolved = withheld.resolve(TOO_LATE);
        assert_eq!(resolved.replies, b""[..]);
        assert_eq!(
            resolved.again,
            b"w1*1\r\n$2\r\nr2\r\n*1\r\n$2\r\nr3\r\n"[..]
        );
        assert_eq!(resolved.reason, REFUSED);
        assert_eq!((resolved.told, resolved.lost), (0, 1..3));
    }

    #[test]
    fn only_a_refusal_is_a_reason() {
        let mut withheld = Withheld::default();
        for (request, reply) in [("w1", REFUSED), ("w2", "+OK\r\n"), ("r3", "$1\r\nx\r\n")] {
            withheld.part(reply.as_bytes());
            withheld.whole(request.as_bytes(), request.starts_with('w'), false);
        }
        let resolved = withheld.resolve(TOO_LATE);
        assert_eq!(resolved.again, b"r3"[..]);
        assert_eq!(resolved.reason, "");
        assert_eq!((resolved.told, resolved.lost), (2, 0..0));
    }

    #[test]
    fn a_value_that_reads_like_a_refusal_is_a_value() {
        check(
            &[("w1", REFUSED), ("w2", "$8\r\nREADONLY\r\n")],
            "-TRYAGAIN\r\n$8\r\nREADONLY\r\n",
            "",
        );
    }
}
