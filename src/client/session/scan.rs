//! `SCAN`, `HSCAN`, `SSCAN` and `ZSCAN`: each step goes to the node whose cursor it comes with.
//!
//! The reply is passed on as it arrives; of it only the cursor at its beginning is looked at. A
//! cursor of a former master goes to that node as long as it lives on as a replica; otherwise the
//! iteration begins anew on the master. Kvrocks says nothing of a life (`run_id`) and needs none of
//! this: it begins an iteration anew by itself when it does not know the cursor.
//!
//! The master is waited for as long as it takes. One that was left and says nothing for
//! [`SILENCE_MAX`] is given up: a step reads, so it is asked again of the new one, unless the client
//! has a part of the reply.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use super::Session;
use crate::client::cursors::{Claim, CursorKey};
use crate::client::links::SILENCE_MAX;
use crate::client::outbox::OutboxState;
use crate::client::seat::Seat;
use crate::client::state::{Closed, ReplyMode};
use crate::resp::scan::{Reply, ReplyKind, args, write_request};
use crate::shard::route::Life;
use crate::upstream::connection::{Connection, poll_write_all};
use crate::upstream::lane::ReplySink;

const INFO: &[u8] = b"*1\r\n$4\r\nINFO\r\n";
/// Room made before each read from the server.
const READ_BYTES: usize = 64 * 1024;
/// A reply with a cursor tells it within so many bytes.
const HEAD_BYTES: usize = 64;
/// How often a step whose connection breaks before its reply is sent again.
const TRIES: usize = 3;
/// Cursors that a session knows to be its own.
const OWN_CURSORS_MAX: usize = 8;

/// One step of an iteration.
struct StepOf {
    request: Bytes,
    words: Vec<Bytes>,
    /// Where the cursor stands among the words.
    at: usize,
    mute: bool,
}

impl StepOf {
    fn of(request: Bytes, mute: bool) -> Self {
        let words: Vec<Bytes> = args(&request).map(|word| request.slice_ref(word)).collect();
        let is_scan = words
            .first()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"scan"));
        let at = if is_scan { 1 } else { 2 };
        Self {
            request,
            words,
            at,
            mute,
        }
    }

    fn cursor(&self) -> Option<&[u8]> {
        self.words.get(self.at).map(|word| &word[..])
    }

    /// What is iterated over: the command, and the key if it has one.
    fn of_what(&self) -> Vec<&[u8]> {
        self.words
            .iter()
            .take(self.at)
            .map(|word| &word[..])
            .collect()
    }

    /// The first step of the same iteration.
    fn begin_anew(&mut self) {
        if let Some(cursor) = self.words.get_mut(self.at) {
            *cursor = Bytes::from_static(b"0");
            let mut request = BytesMut::new();
            write_request(&mut request, &self.words);
            self.request = request.freeze();
        }
    }
}

/// How a step on one connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The client has its reply.
    Answered,
    /// The node answered an error, which the client has not seen.
    Refused,
    /// The connection broke, or stayed silent, before the client saw anything.
    Lost,
}

/// Whose reply is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The master of this epoch.
    Master(u64),
    /// A former one: errors and silence are not for the client.
    Former,
}

impl Session {
    /// Runs the request of `len` bytes in front. Called when no lane owes a reply.
    pub(in crate::client) async fn scan(&mut self, len: usize) -> Result<(), Closed> {
        let mute = self.reply_mode != ReplyMode::On;
        if self.reply_mode == ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::On;
        }
        self.seat.counts.reads.add(1);
        let mut step = StepOf::of(self.input.split_to(len).freeze(), mute);
        let claim = self.claim(&step);
        for _ in 0..TRIES {
            let (epoch, links, mut connection) = match self.connect_own().await? {
                Ok(own) => own,
                Err(text) => {
                    if !mute {
                        self.outbox.push(format!("-{text}\r\n").as_bytes());
                    }
                    return Ok(());
                }
            };
            let origin = self.seat.life_of(&links.node);
            match &claim {
                Claim::Disputed => step.begin_anew(),
                Claim::From(from) if origin.as_ref() != Some(from) => {
                    if self.scan_former(&step, from).await? {
                        links.pool.give_back(connection);
                        return Ok(());
                    }
                    step.begin_anew();
                }
                Claim::From(_) | Claim::Unknown => {}
            }
            let asked = Asked::Master(epoch);
            let ended = self.exchange(&mut connection, &step, origin.as_ref(), asked);
            if ended.await? == Ended::Answered {
                if self.seat.epoch() == epoch {
                    links.pool.give_back(connection);
                }
                return Ok(());
            }
        }
        Err(Closed::UpstreamLost)
    }

    fn claim(&self, step: &StepOf) -> Claim {
        match step.cursor() {
            None | Some(b"0") => Claim::Unknown,
            Some(cursor) => {
                let key = self.cursor_key(step, cursor);
                let own = self.own_cursors.iter().rev().find(|(own, _)| *own == key);
                self.seat.cursors.claim(key, own.map(|(_, origin)| origin))
            }
        }
    }

    fn cursor_key(&self, step: &StepOf, cursor: &[u8]) -> CursorKey {
        let of_what = step.of_what();
        self.seat.cursors.key(&of_what, &self.identity, cursor)
    }

    /// Runs a step on a former master. `false`: not there, and the client has seen nothing.
    async fn scan_former(&mut self, step: &StepOf, from: &Life) -> Result<bool, Closed> {
        let deadline = self.seat.limits.connect_timeout;
        let Some(links) = self.seat.former_links(&from.node) else {
            return Ok(false);
        };
        let taken = links.pool.take(&links.node, &self.identity, deadline).await;
        let Ok(mut connection) = taken else {
            return Ok(false);
        };
        if !lives_on(&mut connection, &self.seat, from).await {
            return Ok(false);
        }
        let exchange = self.exchange(&mut connection, step, Some(from), Asked::Former);
        let ended = exchange.await?;
        if ended == Ended::Answered {
            links.pool.give_back(connection);
        }
        Ok(ended == Ended::Answered)
    }

    /// Sends a step and passes its reply on. What `origin` is to be remembered for is remembered
    /// before the client can know of it.
    async fn exchange(
        &mut self,
        connection: &mut Connection,
        step: &StepOf,
        origin: Option<&Life>,
        asked: Asked,
    ) -> Result<Ended, Closed> {
        let mut out = BytesMut::from(&step.request[..]);
        let mut head_known = false;
        loop {
            let arrived = if asked == Asked::Former && !head_known {
                let patience = self.seat.limits.call_deadline();
                let arrived = self.more_arrives(connection, &mut out);
                timeout(patience, arrived).await.unwrap_or(false)
            } else {
                self.more_unless_left(asked, connection, &mut out).await
            };
            self.outbox.state().check()?;
            if !arrived {
                return if head_known {
                    Err(Closed::UpstreamLost)
                } else {
                    Ok(Ended::Lost)
                };
            }
            if !head_known {
                match Head::read(&connection.input) {
                    Head::Incomplete => continue,
                    Head::Error if asked == Asked::Former => return Ok(Ended::Refused),
                    Head::Cursor(cursor) => self.given(step, &cursor, origin),
                    Head::Error | Head::Other => {}
                }
                head_known = true;
            }
            if self.pass_on_reply(connection, step.mute)? {
                return Ok(Ended::Answered);
            }
        }
    }

    fn given(&mut self, step: &StepOf, cursor: &[u8], origin: Option<&Life>) {
        let Some(origin) = origin else { return };
        if cursor == b"0" {
            return;
        }
        let key = self.cursor_key(step, cursor);
        self.seat.cursors.give(key, origin);
        if self.own_cursors.len() >= OWN_CURSORS_MAX {
            self.own_cursors.pop_front();
        }
        self.own_cursors.push_back((key, origin.clone()));
    }

    /// [`Session::more_arrives`], and `false` when the route has left a node that says nothing.
    async fn more_unless_left(
        &mut self,
        asked: Asked,
        connection: &mut Connection,
        out: &mut BytesMut,
    ) -> bool {
        loop {
            // While the client takes nothing the node is not read: that is no silence of its.
            let is_read = !self.outbox.is_crowded();
            // Cancel-safe: what has been read and written stays so.
            match timeout(SILENCE_MAX, self.more_arrives(connection, out)).await {
                Ok(arrived) => return arrived,
                Err(_) if is_read && self.is_left(asked) => return false,
                Err(_) => {}
            }
        }
    }

    fn is_left(&self, asked: Asked) -> bool {
        match asked {
            Asked::Master(epoch) => self.seat.epoch() != epoch,
            Asked::Former => true,
        }
    }

    /// Whether more of the reply has arrived; `false` when the connection has ended.
    async fn more_arrives(&mut self, connection: &mut Connection, out: &mut BytesMut) -> bool {
        self.outbox.flush_now();
        poll_fn(|context| {
            self.outbox.remember(context.waker());
            if self.outbox.state() != OutboxState::Open {
                return Poll::Ready(false);
            }
            if self.outbox.backlog() > 0 {
                let _ = self.outbox.poll_flushed(context);
            }
            if let Poll::Ready(Err(_)) = poll_write_all(&connection.write, out, context) {
                return Poll::Ready(false);
            }
            ready!(self.outbox.poll_room(context));
            connection.input.reserve(READ_BYTES);
            let read = Pin::new(&mut connection.read);
            poll_read_buf(read, context, &mut connection.input)
                .map(|read| matches!(read, Ok(count) if count > 0))
        })
        .await
    }

    /// Passes on what is here of the reply; whether that was its end.
    fn pass_on_reply(&mut self, connection: &mut Connection, mute: bool) -> Result<bool, Closed> {
        let scanned = connection.scanner.scan(&connection.input);
        let (len, whole) = match scanned.map_err(|_| Closed::UpstreamLost)? {
            Reply::Complete { len, .. } => (len, true),
            Reply::Partial { len } => (len, false),
        };
        if !mute {
            let part = connection.input.get(..len).unwrap_or_default();
            self.outbox.deliver(part);
        }
        connection.input.advance(len);
        self.outbox.flush_now();
        Ok(whole)
    }
}

/// The beginning of a reply.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Incomplete,
    Cursor(Vec<u8>),
    Error,
    Other,
}

impl Head {
    fn read(input: &[u8]) -> Head {
        let mut lines = input.split_inclusive(|byte| *byte == b'\n');
        let mut line = || lines.next().and_then(|line| line.strip_suffix(b"\r\n"));
        let cursor = match input {
            [] => return Head::Incomplete,
            [b'-' | b'!', ..] => return Head::Error,
            _ => match (line(), line(), line()) {
                (Some(b"*2"), Some([b'$', ..]), Some(cursor)) => cursor,
                (Some(b"*2"), ..) | (None, ..) if input.len() < HEAD_BYTES => {
                    return Head::Incomplete;
                }
                _ => return Head::Other,
            },
        };
        Head::Cursor(cursor.to_vec())
    }
}

/// Whether a former master is a replica now and has not been restarted since. What it has not heard
/// of yet does not matter: what was there all the time is there. Where the user may not ask it,
/// what the proxy saw last counts.
async fn lives_on(connection: &mut Connection, seat: &Seat, from: &Life) -> bool {
    let deadline = seat.limits.connect_timeout;
    let info = match connection.call(INFO, deadline).await {
        Ok((info, ReplyKind::Ordinary)) => info,
        Ok(_) => return seat.life_of(&from.node).as_ref() == Some(from),
        Err(_) => return false,
    };
    let is = |name, value| field(&info, name) == Some(value);
    is(b"run_id:", from.run_id.as_bytes()) && is(b"role:", b"slave") && is(b"loading:", b"0")
}

fn field<'i>(info: &'i [u8], name: &[u8]) -> Option<&'i [u8]> {
    info.split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_soon_as_it_is_there() {
        let check = |input: &[u8], expected| assert_eq!(Head::read(input), expected, "{input:?}");
        check(b"", Head::Incomplete);
        check(b"*2", Head::Incomplete);
        check(b"*2\r\n$2\r\n1", Head::Incomplete);
        check(b"*2\r\n$2\r\n17\r\n*10\r\n", Head::Cursor(b"17".to_vec()));
        check(b"-ERR invalid cursor\r\n", Head::Error);
        check(b"$-1\r\n", Head::Other);
    }

    #[test]
    fn only_the_cursor_changes_when_an_iteration_begins_anew() {
        let check = |before: &[&str], after: &[&str]| {
            let mut request = BytesMut::new();
            write_request(&mut request, before);
            let mut step = StepOf::of(request.freeze(), false);
            step.begin_anew();
            let words: Vec<&[u8]> = args(&step.request).collect();
            assert_eq!(
                words,
                after.iter().map(|word| word.as_bytes()).collect::<Vec<_>>()
            );
        };
        check(&["SCAN", "17", "COUNT", "5"], &["SCAN", "0", "COUNT", "5"]);
        check(&["hscan", "17", "17"], &["hscan", "17", "0"]);
        check(&["HSCAN", "k"], &["HSCAN", "k"]);
    }
}
