//! Where a client's request ends, and what its first arguments are.

use super::error::ProtocolError;
use super::inline::is_blank;
use super::line::{find, plain_number, strict_integer};

/// Arguments whose place is remembered while a request is scanned: enough for a command's name, its
/// subcommand and the keys and options that decide its class.
pub const ARGS_KEPT: usize = 8;

/// Redis refuses more elements than an `int` can count, whatever our own limit says.
const ELEMENTS_LIMIT: u64 = i32::MAX as u64;

/// What one request may ask for. A request at a limit passes, one past it is refused with the text
/// that Redis uses for its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of an inline request, or of a header line, before its line end.
    pub inline_bytes_max: usize,
    /// Arguments of one request, its name included.
    pub elements_max: u64,
    /// Bytes of one argument.
    pub bulk_bytes_max: u64,
}

/// How a request was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `*2\r\n$3\r\nGET\r\n...`: arguments by [`RequestScanner::arg`] and
    /// [`args`](super::args).
    Multibulk,
    /// A line: arguments by [`split_inline`](super::split_inline), which may still refuse it.
    Inline,
}

/// What a scan found at the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `buf[..len]` is one whole request, or the rest of one of which a part was consumed.
    Complete { len: usize, form: Form },
    /// `buf[..len]` asks for nothing (`*0`, `*-1`, an empty line): skip it, without a reply.
    Blank { len: usize },
    /// More bytes are needed.
    Incomplete,
}

/// Scans the requests of one client connection, one after the other.
///
/// `buf` always starts where the current request starts, minus what [`consumed`](Self::consumed)
/// took away. After `Complete` or `Blank` the caller drops `len` bytes and scans again; the
/// arguments stay readable, in the old buffer, until that next scan. After an error the stream is
/// lost: answer with [`ProtocolError::reply`] and close.
#[derive(Clone, Debug, Default)]
pub struct RequestScanner {
    state: State,
    /// Start of the line, or end of the bulk body, that is looked at next.
    pos: usize,
    /// How much of the line at `pos` is known not to hold its end.
    searched: usize,
    /// Length of the buffer at the last scan, for `needed`.
    seen: usize,
    /// Arguments whose end was not found yet.
    left: u32,
    argc: Option<u32>,
    /// Entries of `spans` in use.
    kept: usize,
    spans: [Span; ARGS_KEPT],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between requests.
    #[default]
    Start,
    /// In an inline request.
    InlineLine,
    /// In the line `*<argc>`.
    CountLine,
    /// In the line `$<len>` of an argument.
    BulkLine,
    /// In the body of an argument; `pos` is its end, which may lie beyond the buffer.
    BulkBody,
}

/// Where an argument lies in the buffer. `start` is `STREAMED` when a part of it was consumed.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    len: usize,
}

/// No argument can start here: a slice is never that long.
const STREAMED: usize = usize::MAX;

impl RequestScanner {
    /// Looks for the end of the request at the start of `buf`, going on where the last scan
    /// stopped.
    ///
    /// # Errors
    ///
    /// The client does not speak the protocol or exceeds a limit: the connection must be closed.
    #[inline]
    pub fn scan(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Request, ProtocolError> {
        self.seen = buf.len();
        match self.state {
            State::Start => {
                self.argc = None;
                self.kept = 0;
                self.pos = 0;
                self.searched = 0;
                self.begin(buf, limits)
            }
            State::InlineLine => self.scan_inline(buf, limits),
            State::CountLine => self.scan_count(buf, limits),
            State::BulkLine | State::BulkBody => self.scan_bulks(buf, limits),
        }
    }

    /// Arguments of the request, its name included, once its first line was read. `None` for an
    /// inline request.
    #[inline]
    pub fn argc(&self) -> Option<u32> {
        self.argc
    }

    /// Argument `i` (0 is the name) of a multibulk request, if it is one of the first
    /// [`ARGS_KEPT`], its body is wholly in `buf` and no part of it was consumed. `buf` is the
    /// buffer of the last scan.
    #[inline]
    pub fn arg<'b>(&self, buf: &'b [u8], i: usize) -> Option<&'b [u8]> {
        if i >= self.kept {
            return None;
        }
        let span = self.spans.get(i)?;
        buf.get(span.start..span.start.checked_add(span.len)?)
    }

    /// Bytes of the buffer that were judged and may be consumed. Beyond the buffer's end when the
    /// end of the argument in progress is known already.
    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes still missing, at the last scan, for the argument in progress and its line end; 0
    /// when unknown.
    pub fn needed(&self) -> u64 {
        match self.state {
            State::BulkBody => self.pos.saturating_add(2).saturating_sub(self.seen) as u64,
            _ => 0,
        }
    }

    /// Takes note that the caller forwarded and dropped the first `n` bytes of the buffer in the
    /// middle of a request; `n` is at most `pos` and the buffer's length.
    pub fn consumed(&mut self, n: usize) {
        debug_assert!(
            n <= self.pos.min(self.seen),
            "consumed bytes that were not judged"
        );
        self.pos = self.pos.saturating_sub(n);
        self.seen = self.seen.saturating_sub(n);
        for span in self.spans.iter_mut().take(self.kept) {
            if span.start != STREAMED {
                span.start = span.start.checked_sub(n).unwrap_or(STREAMED);
            }
        }
    }

    /// Whether the last scan ended inside a request.
    #[inline]
    pub fn mid_request(&self) -> bool {
        self.state != State::Start
    }

    #[inline]
    fn begin(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Request, ProtocolError> {
        let [first, rest @ ..] = buf else {
            return Ok(Request::Incomplete);
        };
        if *first != b'*' {
            self.state = State::InlineLine;
            return self.scan_inline(buf, limits);
        }
        match plain_number(rest) {
            Some((count, len)) if count != 0 => {
                self.begin_bulks(count, len.saturating_add(1), limits)?;
                self.scan_bulks(buf, limits)
            }
            _ => {
                self.state = State::CountLine;
                self.scan_count(buf, limits)
            }
        }
    }

    #[inline(never)]
    fn scan_inline(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
    ) -> Result<Request, ProtocolError> {
        let window = buf
            .get(..limits.inline_bytes_max.saturating_add(1))
            .unwrap_or(buf);
        match find(b'\n', window.get(self.searched..).unwrap_or_default()) {
            Some(at) => {
                let len = self.searched.saturating_add(at).saturating_add(1);
                self.state = State::Start;
                self.pos = len;
                if is_blank(buf.get(..len).unwrap_or_default()) {
                    return Ok(Request::Blank { len });
                }
                Ok(Request::Complete {
                    len,
                    form: Form::Inline,
                })
            }
            None if window.len() > limits.inline_bytes_max => Err(ProtocolError::InlineTooBig),
            None => {
                self.searched = window.len();
                Ok(Request::Incomplete)
            }
        }
    }

    #[inline(never)]
    fn scan_count(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Request, ProtocolError> {
        let (text, len) = match self.header_line(buf, limits) {
            HeaderLine::Whole { text, len } => (text, len),
            HeaderLine::Incomplete => return Ok(Request::Incomplete),
            HeaderLine::TooBig => return Err(ProtocolError::CountLineTooBig),
            HeaderLine::NoLineFeed { .. } => return Err(ProtocolError::MultibulkLength),
        };
        let digits = text.get(1..).unwrap_or_default();
        let count = strict_integer(digits).ok_or(ProtocolError::MultibulkLength)?;
        match u64::try_from(count) {
            Err(_) | Ok(0) => {
                self.state = State::Start;
                self.pos = len;
                Ok(Request::Blank { len })
            }
            Ok(count) => {
                self.begin_bulks(count, len, limits)?;
                self.scan_bulks(buf, limits)
            }
        }
    }

    /// Enters the arguments of a multibulk request whose first line took `len` bytes.
    #[inline]
    fn begin_bulks(
        &mut self,
        count: u64,
        len: usize,
        limits: &RequestLimits,
    ) -> Result<(), ProtocolError> {
        if count > limits.elements_max.min(ELEMENTS_LIMIT) {
            return Err(ProtocolError::MultibulkLength);
        }
        let count = u32::try_from(count).map_err(|_| ProtocolError::MultibulkLength)?;
        self.argc = Some(count);
        self.left = count;
        self.state = State::BulkLine;
        self.pos = len;
        self.searched = 0;
        Ok(())
    }

    /// The loop of the hot path: header, body, CRLF, until no argument is left.
    #[inline]
    fn scan_bulks(&mut self, buf: &[u8], limits: &RequestLimits) -> Result<Request, ProtocolError> {
        loop {
            if self.state == State::BulkLine {
                let line = buf.get(self.pos..).unwrap_or_default();
                let plain = match line {
                    [b'$', digits @ ..] => plain_number(digits),
                    _ => None,
                };
                let (bulk_len, line_len) = match plain {
                    Some((bulk_len, len)) => (bulk_len, len.saturating_add(1)),
                    None => match self.bulk_line(line, limits)? {
                        Some(header) => header,
                        None => return Ok(Request::Incomplete),
                    },
                };
                self.begin_body(bulk_len, line_len, limits)?;
            }
            match buf.get(self.pos..).and_then(<[u8]>::first_chunk) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkEnd),
                None => return Ok(Request::Incomplete),
            }
            self.pos = self.pos.saturating_add(2);
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.state = State::Start;
                return Ok(Request::Complete {
                    len: self.pos,
                    form: Form::Multibulk,
                });
            }
            self.state = State::BulkLine;
        }
    }

    /// Enters the body of an argument: `pos` becomes its end, whether it has arrived or not.
    #[inline]
    fn begin_body(
        &mut self,
        bulk_len: u64,
        line_len: usize,
        limits: &RequestLimits,
    ) -> Result<(), ProtocolError> {
        if bulk_len > limits.bulk_bytes_max {
            return Err(ProtocolError::BulkLength);
        }
        let len = usize::try_from(bulk_len).map_err(|_| ProtocolError::BulkLength)?;
        let start = self.pos.saturating_add(line_len);
        let end = start.checked_add(len).ok_or(ProtocolError::BulkLength)?;
        if let Some(span) = self.spans.get_mut(self.kept) {
            *span = Span { start, len };
            self.kept = self.kept.saturating_add(1);
        }
        self.pos = end;
        self.searched = 0;
        self.state = State::BulkBody;
        Ok(())
    }

    /// A `$<len>` line that is not plain: incomplete, or wrong. Gives the bulk's and the line's
    /// length.
    #[inline(never)]
    fn bulk_line(
        &mut self,
        line: &[u8],
        limits: &RequestLimits,
    ) -> Result<Option<(u64, usize)>, ProtocolError> {
        let (text, len) = match self.header_line(line, limits) {
            HeaderLine::Whole { text, len } => (text, Some(len)),
            HeaderLine::Incomplete => return Ok(None),
            HeaderLine::TooBig => return Err(ProtocolError::BulkLineTooBig),
            HeaderLine::NoLineFeed { text } => (text, None),
        };
        // Judged only now, at the end of the line, because Redis does it in this order.
        let digits = match text {
            [b'$', digits @ ..] => digits,
            [got, ..] => return Err(ProtocolError::ExpectedBulk { got: *got }),
            [] => return Err(ProtocolError::ExpectedBulk { got: b'\r' }),
        };
        let bulk_len = strict_integer(digits).and_then(|length| u64::try_from(length).ok());
        match (bulk_len, len) {
            (Some(bulk_len), Some(len)) => Ok(Some((bulk_len, len))),
            _ => Err(ProtocolError::BulkLength),
        }
    }

    /// Reads the header line at the start of `line` as Redis does: up to the first CR.
    fn header_line<'b>(&mut self, line: &'b [u8], limits: &RequestLimits) -> HeaderLine<'b> {
        let window = line
            .get(..limits.inline_bytes_max.saturating_add(1))
            .unwrap_or(line);
        let Some(at) = find(b'\r', window.get(self.searched..).unwrap_or_default()) else {
            if window.len() > limits.inline_bytes_max {
                return HeaderLine::TooBig;
            }
            self.searched = window.len();
            return HeaderLine::Incomplete;
        };
        let end = self.searched.saturating_add(at);
        let text = line.get(..end).unwrap_or_default();
        match line.get(end.saturating_add(1)) {
            Some(b'\n') => HeaderLine::Whole {
                text,
                len: end.saturating_add(2),
            },
            Some(_) => HeaderLine::NoLineFeed { text },
            None => {
                self.searched = end;
                HeaderLine::Incomplete
            }
        }
    }
}

/// What `header_line` found; `text` is the line without its end.
enum HeaderLine<'b> {
    Whole {
        text: &'b [u8],
        len: usize,
    },
    Incomplete,
    TooBig,
    /// The CR is not followed by LF. Redis skips that byte unseen; we do not, because what follows
    /// would be read differently by a node and by us.
    NoLineFeed {
        text: &'b [u8],
    },
}

#[cfg(test)]
mod tests;
