//! What a session is to the server and what it has open there: everything that must be
//! re-established when its commands go to another connection or another node.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::relay::{Effects, Tracking};
use crate::resp::scan::{args, write_request};
use crate::shard::gate::CallBack;
use crate::shard::line::Place;
use crate::upstream::connection::CallError;

/// Transactions whose queue is longer than this cannot be carried to another master.
pub(super) const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Why a session ended. The label goes to the log and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client hung up, and had no reply to wait for.
    ClientGone,
    /// The client hung up while its write was held: the write was dropped, never sent.
    GoneWhileHeld,
    /// The client sent `QUIT`.
    Quit,
    /// `CLIENT KILL` of it, or the end of the user that it was.
    Killed,
    /// The client's bytes are no RESP.
    ProtocolError,
    /// The client leaves more replies untaken than `output_buffer_bytes_max`.
    OutputLimit,
    /// A connection to the server broke with one of this session's writes on it. Whether it was
    /// executed is unknown, so it is not sent again.
    AmbiguousWrite,
    /// A connection to the server broke with reads of this session on it, or in the middle of
    /// a reply.
    UpstreamLost,
    /// What the session had open on the old master cannot be carried to the new one.
    NotCarried,
    /// The proxy is stopping.
    Shutdown,
}

impl Closed {
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::GoneWhileHeld => "gone_while_held",
            Self::Quit => "quit",
            Self::Killed => "killed",
            Self::ProtocolError => "protocol_error",
            Self::OutputLimit => "output_limit",
            Self::AmbiguousWrite => "ambiguous_write",
            Self::UpstreamLost => "upstream_lost",
            Self::NotCarried => "not_carried",
            Self::Shutdown => "shutdown",
        }
    }
}

impl From<CallError> for Closed {
    fn from(_: CallError) -> Self {
        Self::UpstreamLost
    }
}

/// Which replies the client wants to see (`CLIENT REPLY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// The next command's reply is left out, then `On` again.
    SkipNext,
}

/// Where a transaction stands with the master that the session is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stand {
    /// It is open there, with its whole queue.
    #[default]
    Here,
    /// It was open on another master; this one knows nothing of it.
    Away,
    /// Our `MULTI` awaits its reply.
    Opening,
    /// `MULTI` is open, the queue has not been sent.
    Opened,
    /// So many commands of the queue await their replies.
    Queueing(usize),
    /// The server refused a part of it, since it is not the master: it is repeated on another one.
    Refused,
    /// It could not be repeated: `EXEC` must answer an error.
    Broken,
}

/// Modes of its connection that a session has asked for and the server has granted. As long as one
/// is on, the session has a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    pub no_evict: bool,
    pub no_touch: bool,
    pub read_only: bool,
}

impl Modes {
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// The requests that switch them on.
    pub fn requests(self) -> impl Iterator<Item = &'static [u8]> {
        let all: [(bool, &[u8]); 3] = [
            (
                self.no_evict,
                b"*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-EVICT\r\n$2\r\nON\r\n",
            ),
            (
                self.no_touch,
                b"*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-TOUCH\r\n$2\r\nON\r\n",
            ),
            (self.read_only, b"*1\r\n$8\r\nREADONLY\r\n"),
        ];
        let wanted = all.into_iter().filter(|(on, _)| *on);
        wanted.map(|(_, request)| request)
    }
}

/// An open transaction of a session.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The queued commands as sent, to be queued again on another master.
    queue: BytesMut,
    pub commands: usize,
    carriable: bool,
    /// Keys were watched on a connection that is gone: `EXEC` must answer null.
    pub watch_lost: bool,
    /// Keys were watched when `EXEC` was sent.
    pub watched: bool,
    /// Something in it runs a script.
    pub runs_script: bool,
    /// The commands in it whose replies mean something to the session.
    pub(super) effects: Effects,
    /// Channels and patterns that it subscribes to.
    pub(super) subscribes: usize,
    /// A command was refused while queueing: the server will not execute any of it.
    pub failed: bool,
    /// Something is queued that leaves on the connection what the proxy does not know.
    pub sticks: bool,
    /// What is tracked when `CLIENT TRACKING`, which is queued, has been executed.
    pub(super) tracks: Option<Box<Tracking>>,
    /// It was moved to another master.
    pub carried: bool,
    pub stand: Stand,
    /// The words of the `CLIENT PAUSE` or `UNPAUSE` that was queued last.
    pub pause: Option<Vec<Vec<u8>>>,
}

impl Transaction {
    pub fn open() -> Self {
        Self {
            carriable: true,
            ..Self::default()
        }
    }

    /// Remembers a queued command.
    pub fn push(&mut self, request: &[u8]) {
        self.commands += 1;
        self.runs_script |= args(request).next().is_some_and(runs_script);
        if self.queue.len().saturating_add(request.len()) > QUEUE_BYTES_MAX {
            self.forget();
        } else if self.carriable {
            self.queue.extend_from_slice(request);
        }
    }

    /// A command was queued whose bytes were not kept.
    pub fn forget(&mut self) {
        self.carriable = false;
        self.queue = BytesMut::new();
    }

    /// The queue, when it can be repeated elsewhere.
    pub fn queue(&self) -> Option<&[u8]> {
        self.carriable.then_some(&self.queue[..])
    }
}

/// Whether a command runs a script: what such a one answers is the script's to say.
pub fn runs_script(name: &[u8]) -> bool {
    let begins = |word: &[u8]| {
        name.get(..word.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
    };
    begins(b"EVAL") || begins(b"FCALL")
}

/// A blocking command that waits on the server.
#[derive(Debug)]
pub struct Blocked {
    pub request: Bytes,
    pub since: Instant,
    /// The server will not let it go by itself.
    pub call_back: Option<CallBack>,
    /// The client asked not to see its reply.
    pub mute: bool,
    /// Its place among all that wait, whoever's they are.
    pub place: Option<Place>,
    /// The hold, or the time between two, in which it was sent.
    pub hold_number: u64,
    /// For each `$` by its place among the words: the last entry when the command was sent.
    pub last_ids: Vec<(usize, Option<Bytes>)>,
    /// It is sent when nothing is owed before it.
    pub unsent: Option<Bytes>,
}

impl Blocked {
    /// The command with the time it has left, and with the entry that `$` stood for where that is
    /// known. `None` when its bytes were not kept.
    pub fn again(&self) -> Option<BytesMut> {
        let mut words: Vec<Vec<u8>> = args(&self.request).map(<[u8]>::to_vec).collect();
        let name = words.first()?.to_ascii_uppercase();
        let elapsed = self.since.elapsed();
        match name.as_slice() {
            b"BLMPOP" | b"BZMPOP" => rewrite_seconds(words.get_mut(1)?, elapsed)?,
            b"WAIT" => rewrite_milliseconds(words.get_mut(2)?, elapsed)?,
            b"WAITAOF" => rewrite_milliseconds(words.get_mut(3)?, elapsed)?,
            b"XREAD" | b"XREADGROUP" => {
                for (at, id) in &self.last_ids {
                    if let (Some(word), Some(id)) = (words.get_mut(*at), id) {
                        *word = id.to_vec();
                    }
                }
                let at = words
                    .iter()
                    .position(|word| word.eq_ignore_ascii_case(b"BLOCK"))?;
                rewrite_milliseconds(words.get_mut(at + 1)?, elapsed)?;
            }
            _ => rewrite_seconds(words.last_mut()?, elapsed)?,
        }
        let mut again = BytesMut::new();
        write_request(&mut again, &words);
        Some(again)
    }
}

impl Blocked {
    /// The streams that an `XREAD` reads from now on (`$`), each with the place of its `$`.
    pub fn from_now_on(&self) -> Vec<(usize, Bytes)> {
        let words: Vec<&[u8]> = args(&self.request).collect();
        let is_xread = words
            .first()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"XREAD"));
        let streams = words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
        let (true, Some(streams)) = (is_xread, streams) else {
            return Vec::new();
        };
        let first = streams + 1;
        let count = words.len().saturating_sub(first) / 2;
        (first + count..words.len())
            .filter(|at| words.get(*at).is_some_and(|id| *id == b"$"))
            .filter_map(|at| Some((at, Bytes::copy_from_slice(words.get(at - count)?))))
            .collect()
    }
}

/// Time-outs of 0 wait for ever; one that has run out still gets a moment, and then its null.
fn rewrite_seconds(word: &mut Vec<u8>, elapsed: Duration) -> Option<()> {
    let seconds: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    if seconds > 0.0 {
        *word = format!("{:.3}", (seconds - elapsed.as_secs_f64()).max(0.001)).into_bytes();
    }
    Some(())
}

fn rewrite_milliseconds(word: &mut Vec<u8>, elapsed: Duration) -> Option<()> {
    let millis: u64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    if millis > 0 {
        let left = millis.saturating_sub(elapsed.as_millis() as u64).max(1);
        *word = left.to_string().into_bytes();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(words: &[&str], seconds_ago: u64) -> Blocked {
        let mut request = BytesMut::new();
        write_request(&mut request, words);
        let since = Instant::now()
            .checked_sub(Duration::from_secs(seconds_ago))
            .unwrap();
        Blocked {
            request: request.freeze(),
            since,
            call_back: None,
            mute: false,
            place: None,
            hold_number: 0,
            last_ids: Vec::new(),
            unsent: None,
        }
    }

    fn again(words: &[&str], seconds_ago: u64) -> Option<Vec<String>> {
        let again = blocked(words, seconds_ago).again()?;
        Some(
            args(&again)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        )
    }

    #[test]
    fn a_blocked_command_is_repeated_with_the_time_it_has_left() {
        let left = again(&["BLPOP", "a", "b", "10"], 4).unwrap();
        assert!(left[3].parse::<f64>().unwrap() <= 6.0, "{left:?}");
        assert_eq!(again(&["BLPOP", "a", "0"], 4).unwrap()[2], "0");
        assert_eq!(
            again(&["BLMPOP", "1", "1", "k", "LEFT"], 4).unwrap()[1],
            "0.001"
        );
        let left = again(&["XREAD", "BLOCK", "10000", "STREAMS", "s", "0-1"], 4).unwrap();
        assert!(left[2].parse::<u64>().unwrap() <= 6000, "{left:?}");
    }

    #[test]
    fn a_read_from_now_on_is_repeated_from_the_entry_that_was_the_last_then() {
        let words = [
            "XREAD", "BLOCK", "0", "STREAMS", "a", "$", "b", "$", "7-1", "$",
        ];
        let mut read = blocked(&words, 1);
        let asked = read.from_now_on();
        assert_eq!(asked, [(7, "a".into()), (9, "b".into())]);
        read.last_ids = vec![(7, Some("5-5".into())), (9, None)];
        let again = read.again().unwrap();
        let again: Vec<&[u8]> = args(&again).collect();
        assert_eq!(again[4..7], [&b"a"[..], b"$", b"b"]);
        assert_eq!(again[7..], [&b"5-5"[..], b"7-1", b"$"]);
    }

    #[test]
    fn a_queue_past_its_limit_is_not_carried() {
        let mut open = Transaction::open();
        open.push(&vec![b'x'; QUEUE_BYTES_MAX]);
        assert!(open.queue().is_some());
        open.push(b"y");
        assert!(open.queue().is_none());
    }
}
