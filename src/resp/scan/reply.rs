//! Where a node's reply ends, RESP2 and RESP3.

use super::line::{line_len, plain_number, strict_integer};

/// Aggregates inside aggregates. A script can return what Lua nests, which is 8000 deep at most.
pub const NESTING_MAX: usize = 16 * 1024;

/// Levels for which there is room without an allocation. Other replies than a script's stay below
/// ten (`COMMAND DOCS`).
const NESTING_USUAL: usize = 32;

/// A line longer than this is passed on in parts instead of being collected.
const LINE_BYTES_KEPT_MAX: usize = 64 * 1024;

/// A header line is a type, at most 20 characters of number, and CRLF.
const HEADER_BYTES_MAX: usize = 32;

/// What kind of reply ended, by the first byte of the reply itself (attributes do not count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyKind {
    #[default]
    Ordinary,
    /// `-` or `!`.
    Error,
    /// `>`: nobody asked for it, so it answers no request.
    Push,
}

/// Whether a whole reply is null, in either protocol.
pub fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n")
}

/// What a scan found at the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `buf[..len]` is the rest of the current reply.
    Complete { len: usize, kind: ReplyKind },
    /// `buf[..len]` belongs to the current reply and may be forwarded and dropped now; what
    /// follows must be kept and passed again, with more bytes. `len` may be 0.
    Partial { len: usize },
}

/// Scans the replies of one connection to a node, one after the other.
///
/// Nothing refers to a buffer between two scans: bytes that were reported in `Partial` or
/// `Complete` are never asked for again. Lines up to 64 KiB are reported only as a whole, so an
/// ordinary error text can always be read in one piece; bodies are reported as they come.
///
/// Contents of lines (`+ - : , # ( _`) are not judged: a reply is the client's business.
#[derive(Clone, Debug)]
pub struct ReplyScanner {
    state: State,
    kind: ReplyKind,
    /// Values owed by the innermost open aggregate. Outside of any: 1, the reply itself.
    left: u64,
    /// Open aggregates.
    depth: usize,
    /// `left` of the levels around the innermost one, outermost first.
    outer: [u64; NESTING_USUAL],
    /// Those for which there was no room.
    deeper: Vec<u64>,
    nesting_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between replies.
    Start,
    /// At the start of a value; the first `searched` bytes of its line do not end it.
    Value { searched: usize },
    /// In a line of which a part was passed on.
    LongLine,
    /// In a bulk body; the line end after it is not counted.
    Body { left: u64 },
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self {
            state: State::Start,
            kind: ReplyKind::Ordinary,
            left: 1,
            depth: 0,
            outer: [0; NESTING_USUAL],
            deeper: Vec::new(),
            nesting_max: NESTING_MAX,
        }
    }
}

impl ReplyScanner {
    /// For a connection whose replies are decoded by somebody who recurses: what is nested deeper
    /// than the replies that the proxy itself asks for is an error.
    pub fn shallow() -> Self {
        Self {
            nesting_max: NESTING_USUAL,
            ..Self::default()
        }
    }

    /// Goes on with the current reply.
    ///
    /// # Errors
    ///
    /// The replies on this connection can no longer be told apart: close it. The fate of every
    /// request that waits on it is unknown.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Reply, ReplyError> {
        // Whole replies that are no aggregates never touch the state.
        if self.state == State::Start {
            let simple = match buf {
                [b'+' | b':', ..] => line_len(buf, 0).map(|len| (len, ReplyKind::Ordinary)),
                [b'$', text @ ..] => whole_bulk(text).map(|len| (len, ReplyKind::Ordinary)),
                [b'-', ..] => line_len(buf, 0).map(|len| (len, ReplyKind::Error)),
                _ => None,
            };
            if let Some((len, kind)) = simple {
                return Ok(Reply::Complete { len, kind });
            }
        }
        self.scan_on(buf)
    }

    /// Whether a part of a reply was seen and its end was not.
    #[inline]
    pub fn mid_reply(&self) -> bool {
        self.state != State::Start
    }

    /// Bytes that are still to come of the value in which the scan stopped; 0 where that is not
    /// known.
    #[inline]
    pub fn body_left(&self) -> u64 {
        match self.state {
            State::Body { left } => left,
            _ => 0,
        }
    }

    fn scan_on(&mut self, buf: &[u8]) -> Result<Reply, ReplyError> {
        let mut pos: usize = 0;
        loop {
            let rest = buf.get(pos..).unwrap_or_default();
            let step = match self.state {
                State::Start if rest.is_empty() => Step::More { len: 0 },
                State::Start => self.value(rest, 0)?,
                State::Value { searched } => self.value(rest, searched)?,
                State::LongLine => self.long_line(rest),
                State::Body { left } => self.body(rest, left)?,
            };
            match step {
                Step::Header { len } => pos = pos.saturating_add(len),
                Step::Value { len } => {
                    pos = pos.saturating_add(len);
                    if self.end_value() {
                        let kind = self.kind;
                        self.state = State::Start;
                        return Ok(Reply::Complete { len: pos, kind });
                    }
                }
                Step::More { len } => {
                    return Ok(Reply::Partial {
                        len: pos.saturating_add(len),
                    });
                }
            }
        }
    }

    /// At the start of a value.
    #[inline]
    fn value(&mut self, rest: &[u8], searched: usize) -> Result<Step, ReplyError> {
        self.state = State::Value { searched };
        let Some(&first) = rest.first() else {
            return Ok(Step::More { len: 0 });
        };
        if first == b'$'
            && self.depth > 0
            && let Some(len) = rest.get(1..).and_then(whole_bulk)
        {
            return Ok(Step::Value { len });
        }
        if self.depth == 0 {
            self.kind = match first {
                b'-' | b'!' => ReplyKind::Error,
                b'>' => ReplyKind::Push,
                _ => ReplyKind::Ordinary,
            };
        }
        match first {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Ok(self.line(rest, searched)),
            b'$' | b'=' | b'!' | b'*' | b'~' | b'%' | b'|' => self.header(rest, first),
            b'>' if self.depth == 0 => self.header(rest, first),
            b'>' => Err(ReplyError::NestedPush),
            got => Err(ReplyError::Type { got }),
        }
    }

    #[inline]
    fn line(&mut self, rest: &[u8], searched: usize) -> Step {
        if let Some(len) = line_len(rest, searched) {
            return Step::Value { len };
        }
        if rest.len() > LINE_BYTES_KEPT_MAX {
            return self.long_line(rest);
        }
        self.state = State::Value {
            searched: rest.len(),
        };
        Step::More { len: 0 }
    }

    /// In a line that is passed on in parts. Only a CR at the end has to be seen again.
    fn long_line(&mut self, rest: &[u8]) -> Step {
        self.state = State::LongLine;
        match line_len(rest, 0) {
            Some(len) => Step::Value { len },
            None => {
                let kept = usize::from(rest.last() == Some(&b'\r'));
                Step::More {
                    len: rest.len().saturating_sub(kept),
                }
            }
        }
    }

    /// A line with a number: the length of a bulk, or the elements of an aggregate.
    #[inline]
    fn header(&mut self, rest: &[u8], first: u8) -> Result<Step, ReplyError> {
        let text = rest.get(1..).unwrap_or_default();
        let (number, len) = match plain_number(text) {
            Some((number, len)) => (Some(number), len.saturating_add(1)),
            None => match odd_header(rest, first)? {
                Some(header) => header,
                None => return Ok(Step::More { len: 0 }),
            },
        };
        let Some(number) = number else {
            return Ok(Step::Value { len });
        };
        match first {
            b'$' | b'=' | b'!' => {
                self.state = State::Body { left: number };
                Ok(Step::Header { len })
            }
            b'%' | b'|' => {
                let elements = number.checked_mul(2).ok_or(ReplyError::Length)?;
                self.open(elements, len, first == b'|')
            }
            _ => self.open(number, len, false),
        }
    }

    /// Opens an aggregate. An attribute comes in front of a value and is none itself, so its parent
    /// owes one value more.
    #[inline]
    fn open(&mut self, elements: u64, len: usize, attribute: bool) -> Result<Step, ReplyError> {
        if self.depth >= self.nesting_max {
            return Err(ReplyError::Nesting);
        }
        self.state = State::Value { searched: 0 };
        if elements == 0 {
            return Ok(if attribute {
                Step::Header { len }
            } else {
                Step::Value { len }
            });
        }
        let left = self.left.saturating_add(u64::from(attribute));
        match self.outer.get_mut(self.depth) {
            Some(slot) => *slot = left,
            None => self.deeper.push(left),
        }
        self.left = elements;
        self.depth = self.depth.saturating_add(1);
        Ok(Step::Header { len })
    }

    #[inline]
    fn body(&mut self, rest: &[u8], left: u64) -> Result<Step, ReplyError> {
        let len = usize::try_from(left).unwrap_or(usize::MAX);
        match rest.get(len..) {
            None => {
                self.state = State::Body {
                    left: left.saturating_sub(rest.len() as u64),
                };
                Ok(Step::More { len: rest.len() })
            }
            Some([b'\r', b'\n', ..]) => Ok(Step::Value {
                len: len.saturating_add(2),
            }),
            Some([] | [b'\r']) => {
                self.state = State::Body { left: 0 };
                Ok(Step::More { len })
            }
            Some(_) => Err(ReplyError::BulkEnd),
        }
    }

    /// A value has ended, and with it every aggregate whose last value it was. True when that was
    /// the reply.
    #[inline]
    fn end_value(&mut self) -> bool {
        self.state = State::Value { searched: 0 };
        loop {
            self.left = self.left.saturating_sub(1);
            if self.left > 0 {
                return false;
            }
            let Some(depth) = self.depth.checked_sub(1) else {
                self.left = 1;
                return true;
            };
            self.depth = depth;
            self.left = match self.outer.get(depth) {
                Some(left) => *left,
                None => self.leave_deep_level(),
            };
        }
    }

    #[cold]
    fn leave_deep_level(&mut self) -> u64 {
        let left = self.deeper.pop().unwrap_or(1);
        if self.deeper.is_empty() {
            self.deeper = Vec::new();
        }
        left
    }
}

/// What one step of the scan did with the next bytes.
enum Step {
    /// `len` bytes were read; the state says what follows.
    Header { len: usize },
    /// `len` bytes were read and a value ended with them.
    Value { len: usize },
    /// `len` bytes were read and the rest is not enough to go on.
    More { len: usize },
}

/// The length of a whole bulk reply, type included; `text` begins behind the type.
#[inline]
fn whole_bulk(text: &[u8]) -> Option<usize> {
    let (bulk_len, line_len) = plain_number(text)?;
    let end = usize::try_from(bulk_len).ok()?.checked_add(line_len)?;
    match text.get(end..)? {
        [b'\r', b'\n', ..] => end.checked_add(3),
        _ => None,
    }
}

/// A header line that is not plain: incomplete, null or wrong. Gives the number, `None` for null,
/// and the length of the line.
#[inline(never)]
fn odd_header(rest: &[u8], first: u8) -> Result<Option<(Option<u64>, usize)>, ReplyError> {
    let window = rest.get(..HEADER_BYTES_MAX).unwrap_or(rest);
    let Some(len) = line_len(window, 0) else {
        let complete = window.len() == HEADER_BYTES_MAX;
        return if complete {
            Err(ReplyError::Length)
        } else {
            Ok(None)
        };
    };
    let text = window.get(1..len.saturating_sub(2)).unwrap_or_default();
    match (strict_integer(text), first) {
        (Some(-1), b'$' | b'*') => Ok(Some((None, len))),
        (Some(number), _) => match u64::try_from(number) {
            Ok(number) => Ok(Some((Some(number), len))),
            Err(_) => Err(ReplyError::Length),
        },
        // `$?` and `*?` too: no server sends streamed types, and their end has another form.
        (None, _) => Err(ReplyError::Length),
    }
}

/// A node does not speak the protocol, or the place in its stream was lost. Each of these means
/// that no later reply on the connection can be given to anyone: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No reply begins like this; often a sign of another protocol on that port.
    #[error("reply of unknown type '{}', check that the node speaks RESP", .got.escape_ascii())]
    Type { got: u8 },
    /// A length that is no number, negative, or of a streamed type.
    #[error("invalid length in a reply, check that the node speaks RESP")]
    Length,
    /// A bulk is longer than it says.
    #[error("expected CRLF after a bulk in a reply, check that the node speaks RESP")]
    BulkEnd,
    /// Deeper than any command's reply: refused before it costs memory.
    #[error("reply nested too deep, check what the node runs")]
    Nesting,
    /// A push stands inside another reply, where nobody could tell whose it is.
    #[error("push inside another reply, check that the node speaks RESP3")]
    NestedPush,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn scan(input: &[u8]) -> Result<Reply, ReplyError> {
        ReplyScanner::default().scan(input)
    }

    /// `input` is one whole reply, whatever comes behind it.
    fn whole(input: &str, kind: ReplyKind) {
        let complete = Ok(Reply::Complete {
            len: input.len(),
            kind,
        });
        assert_eq!(scan(input.as_bytes()), complete, "{input:?}");
        assert_eq!(
            scan(format!("{input}+OK\r\n").as_bytes()),
            complete,
            "{input:?}"
        );
    }

    #[test]
    fn every_type_of_resp2_and_resp3_ends_where_it_ends() {
        for input in [
            "+OK\r\n",
            "+\r\n",
            ":-12\r\n",
            "$0\r\n\r\n",
            "$3\r\nabc\r\n",
            "$-1\r\n",
            "*0\r\n",
            "*-1\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "_\r\n",
            ",1.5\r\n",
            "#t\r\n",
            "(123456789012345678901\r\n",
            "=7\r\ntxt:abc\r\n",
            "%1\r\n+k\r\n$-1\r\n",
            "%0\r\n",
            "~2\r\n:1\r\n:2\r\n",
            "*2\r\n-ERR x\r\n+OK\r\n",
        ] {
            whole(input, ReplyKind::Ordinary);
        }
        whole("-ERR no\r\n", ReplyKind::Error);
        whole("!5\r\nERR x\r\n", ReplyKind::Error);
        whole(">2\r\n+message\r\n+x\r\n", ReplyKind::Push);
    }

    #[test]
    fn an_attribute_belongs_to_the_reply_behind_it() {
        whole("|1\r\n+ttl\r\n:3600\r\n:1\r\n", ReplyKind::Ordinary);
        whole("|1\r\n+a\r\n*1\r\n+b\r\n-ERR\r\n", ReplyKind::Error);
        whole("|0\r\n>1\r\n+x\r\n", ReplyKind::Push);
        whole(
            "*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n",
            ReplyKind::Ordinary,
        );
        whole(
            "|1\r\n|1\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
            ReplyKind::Ordinary,
        );
        let mut scanner = ReplyScanner::default();
        assert_eq!(scanner.scan(b"|0\r\n"), Ok(Reply::Partial { len: 4 }));
        assert!(scanner.mid_reply());
    }

    #[test]
    fn what_cannot_be_delimited_is_refused() {
        for input in [
            "$?\r\n", "*?\r\n", "$-2\r\n", "%-1\r\n", "$+3\r\n", "$03\r\n", "*x\r\n", "$\r\n",
        ] {
            assert_eq!(scan(input.as_bytes()), Err(ReplyError::Length), "{input:?}");
        }
        assert_eq!(scan(b"%9223372036854775807\r\n").map(drop), Ok(()));
        assert_eq!(scan("$1".repeat(40).as_bytes()), Err(ReplyError::Length));
        assert_eq!(scan(b"$1\r\nabc"), Err(ReplyError::BulkEnd));
        assert_eq!(scan(b"HTTP/1.1"), Err(ReplyError::Type { got: b'H' }));
        assert_eq!(scan(b";4\r\n"), Err(ReplyError::Type { got: b';' }));
        assert_eq!(scan(b"*1\r\n>1\r\n"), Err(ReplyError::NestedPush));
    }

    #[test]
    fn what_a_script_can_nest_passes_and_one_level_past_the_limit_does_not() {
        whole(
            &format!("{}:1\r\n", "*1\r\n".repeat(NESTING_MAX)),
            ReplyKind::Ordinary,
        );
        let deeper = "*1\r\n".repeat(NESTING_MAX + 1);
        assert_eq!(scan(deeper.as_bytes()), Err(ReplyError::Nesting));
        let attributes = "|1\r\n".repeat(NESTING_MAX + 1);
        assert_eq!(scan(attributes.as_bytes()), Err(ReplyError::Nesting));
        // Not only the innermost level has more than one element.
        let wide = "*2\r\n".repeat(NESTING_MAX) + &":1\r\n".repeat(NESTING_MAX + 1);
        whole(&wide, ReplyKind::Ordinary);
        let mut shallow = ReplyScanner::shallow();
        let deep = "*1\r\n".repeat(NESTING_USUAL + 1);
        assert_eq!(shallow.scan(deep.as_bytes()), Err(ReplyError::Nesting));
    }

    #[test]
    fn a_body_is_passed_on_as_it_comes_and_a_line_only_whole() {
        let mut scanner = ReplyScanner::default();
        assert_eq!(
            scanner.scan(b"*2\r\n$5\r\nab"),
            Ok(Reply::Partial { len: 10 })
        );
        assert_eq!(scanner.scan(b"cde\r"), Ok(Reply::Partial { len: 3 }));
        assert_eq!(scanner.scan(b"\r\n+O"), Ok(Reply::Partial { len: 2 }));
        assert!(scanner.mid_reply());
        let complete = Reply::Complete {
            len: 5,
            kind: ReplyKind::Ordinary,
        };
        assert_eq!(scanner.scan(b"+OK\r\n:1"), Ok(complete));
        assert!(!scanner.mid_reply());
    }

    #[test]
    fn a_line_past_64_kib_is_passed_on_in_parts() {
        let mut line = vec![b'e'; LINE_BYTES_KEPT_MAX];
        *line.first_mut().unwrap() = b'-';
        let mut scanner = ReplyScanner::default();
        assert_eq!(scanner.scan(&line), Ok(Reply::Partial { len: 0 }));
        line.push(b'\r');
        assert_eq!(
            scanner.scan(&line),
            Ok(Reply::Partial {
                len: LINE_BYTES_KEPT_MAX
            })
        );
        assert_eq!(scanner.scan(b"\r"), Ok(Reply::Partial { len: 0 }));
        assert_eq!(scanner.scan(b"\rx"), Ok(Reply::Partial { len: 2 }));
        let complete = Reply::Complete {
            len: 3,
            kind: ReplyKind::Error,
        };
        assert_eq!(scanner.scan(b"y\r\n"), Ok(complete));
    }
}
