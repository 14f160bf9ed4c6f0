//! A RESP connection for programs that check servers: it can send any bytes, well formed or not,
//! and reads whole replies of RESP2 and RESP3.
//!
//! **Invariant:** it shares no code with the proxy's data path, so that a mistake there cannot hide
//! itself here.
//!
//! Trade-off: a reply that arrives in pieces is looked at again from its start, which is quadratic
//! for wide arrays. The checks read flat replies, where only the header is looked at twice.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Deepest array in an array that is read; a server's replies here nest three levels at most.
const NESTING_MAX: usize = 32;

/// How long a call waits for its reply unless the caller says otherwise.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// One reply, RESP2 or RESP3. Maps, sets and pushes are [`Value::Array`]s: the checks that use this
/// compare contents, and those that care for the type byte compare raw bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
}

impl Value {
    pub fn ok(&self) -> bool {
        *self == Value::Simple("OK".into())
    }

    /// The text of a string reply of whatever form; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) | Value::Error(text) => text.clone(),
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            Value::Null => String::new(),
            Value::Array(_) => format!("{self:?}"),
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }
}

/// A reply without elements, borrowed from the buffer it arrived in.
#[derive(Debug, PartialEq)]
pub enum Flat<'a> {
    Line(u8, &'a [u8]),
    Bulk(&'a [u8]),
    Null,
    /// An aggregate: its elements follow the header.
    Elements(usize),
}

/// Why a connection cannot go on. Whatever was in flight has an unknown fate.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer is gone, or was never there.
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The peer closed in good order.
    #[error("connection closed by the server")]
    Closed,
    /// The peer is slow, stopped or holding; the reply may still come, so the connection is spent.
    #[error("no reply within {0:?}")]
    Deadline(Duration),
    /// The peer does not speak RESP, or a reply was cut or shifted.
    #[error("reply cannot be understood: {0}")]
    Garbled(String),
}

/// What bytes travel through: a socket, or TLS on one.
pub trait Pipe: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Pipe for T {}

pub struct Wire {
    stream: Box<dyn Pipe>,
    local: SocketAddr,
    unread: BytesMut,
    deadline: Duration,
}

impl Wire {
    pub async fn connect(addr: &str) -> Result<Wire, WireError> {
        let stream = timeout(CALL_DEADLINE, TcpStream::connect(addr))
            .await
            .map_err(|_| WireError::Deadline(CALL_DEADLINE))??;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Wire::over(stream, local))
    }

    /// On a connection that is made already, from `local`.
    pub fn over(stream: impl Pipe + 'static, local: SocketAddr) -> Wire {
        Wire {
            stream: Box::new(stream),
            local,
            unread: BytesMut::with_capacity(16 * 1024),
            deadline: CALL_DEADLINE,
        }
    }

    pub fn with_deadline(mut self, deadline: Duration) -> Wire {
        self.deadline = deadline;
        self
    }

    /// The address of our own end, as CLIENT LIST shows it.
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        Ok(self.local)
    }

    pub async fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, WireError> {
        self.send(args).await?;
        self.reply().await
    }

    /// `call` with the arguments split at blanks, for readable tests.
    pub async fn run(&mut self, line: &str) -> Result<Value, WireError> {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.call(&args).await
    }

    pub async fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), WireError> {
        let mut request = Vec::new();
        put_request(&mut request, args);
        self.send_raw(&request).await
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(self.deadline, sent)
            .await
            .map_err(|_| WireError::Deadline(self.deadline))?
            .map_err(WireError::Io)
    }

    /// Says that nothing more will be sent; replies can still be read.
    pub async fn finish_sending(&mut self) -> Result<(), WireError> {
        Ok(self.stream.shutdown().await?)
    }

    pub async fn reply(&mut self) -> Result<Value, WireError> {
        let deadline = self.deadline;
        timeout(deadline, self.reply_unbounded())
            .await
            .map_err(|_| WireError::Deadline(deadline))?
    }

    async fn reply_unbounded(&mut self) -> Result<Value, WireError> {
        loop {
            if let Some((value, used)) = value(&self.unread, 0)? {
                self.unread.advance(used);
                return Ok(value);
            }
            self.fill().await?;
        }
    }

    /// Lets `judge` look at the next flat reply without copying it.
    pub async fn flat<T>(&mut self, judge: impl FnOnce(Flat<'_>) -> T) -> Result<T, WireError> {
        loop {
            // Looked up twice because a borrow of the buffer cannot live across the refill.
            if flat(&self.unread)?.is_some() {
                break;
            }
            let deadline = self.deadline;
            timeout(deadline, self.fill())
                .await
                .map_err(|_| WireError::Deadline(deadline))??;
        }
        let Some((reply, used)) = flat(&self.unread)? else {
            return Err(WireError::Closed);
        };
        let judged = judge(reply);
        self.unread.advance(used);
        Ok(judged)
    }

    /// Everything the server sends until it closes, or until `quiet` passes without a byte.
    pub async fn raw_until_quiet(&mut self, quiet: Duration) -> (Vec<u8>, Ending) {
        self.raw_until(b"", quiet).await
    }

    /// The same, or until what came ends with `last`; an empty `last` never comes.
    pub async fn raw_until(&mut self, last: &[u8], quiet: Duration) -> (Vec<u8>, Ending) {
        let ending = loop {
            if !last.is_empty() && self.unread.ends_with(last) {
                break Ending::Open;
            }
            match timeout(quiet, self.fill()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => break Ending::Closed,
                Err(_) => break Ending::Open,
            }
        };
        (self.unread.split().to_vec(), ending)
    }

    async fn fill(&mut self) -> Result<(), WireError> {
        if self.unread.capacity() - self.unread.len() < 4 * 1024 {
            self.unread.reserve(64 * 1024);
        }
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(WireError::Closed),
            _ => Ok(()),
        }
    }
}

/// How an exchange of raw bytes ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    Open,
    Closed,
}

/// Appends one request in multibulk form.
pub fn put_request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// The flat reply at the start of `buf` and the bytes it takes, or `None` while it is incomplete.
pub fn flat(buf: &[u8]) -> Result<Option<(Flat<'_>, usize)>, WireError> {
    let Some(end) = buf.iter().position(|&byte| byte == b'\n') else {
        return Ok(None);
    };
    let header = buf.get(..end).unwrap_or_default();
    let (kind, line) = match header.strip_suffix(b"\r").and_then(<[u8]>::split_first) {
        Some((kind, line)) => (*kind, line),
        None => return Err(garbled(header)),
    };
    let after = end + 1;
    match kind {
        b'$' | b'=' | b'!' => {
            let Some(len) = length(line)? else {
                return Ok(Some((Flat::Null, after)));
            };
            let Some(body) = buf.get(after..after + len) else {
                return Ok(None);
            };
            let total = after + len + 2;
            if buf.len() < total {
                return Ok(None);
            }
            let reply = if kind == b'!' {
                Flat::Line(b'-', body)
            } else {
                Flat::Bulk(body)
            };
            Ok(Some((reply, total)))
        }
        b'*' | b'~' | b'>' => match length(line)? {
            None => Ok(Some((Flat::Null, after))),
            Some(elements) => Ok(Some((Flat::Elements(elements), after))),
        },
        b'%' => Ok(Some((
            Flat::Elements(length(line)?.unwrap_or(0).saturating_mul(2)),
            after,
        ))),
        b'_' => Ok(Some((Flat::Null, after))),
        b'+' | b'-' | b':' | b',' | b'#' | b'(' => Ok(Some((Flat::Line(kind, line), after))),
        _ => Err(garbled(header)),
    }
}

fn value(buf: &[u8], depth: usize) -> Result<Option<(Value, usize)>, WireError> {
    if depth > NESTING_MAX {
        return Err(WireError::Garbled(format!(
            "more than {NESTING_MAX} levels"
        )));
    }
    let Some((head, mut used)) = flat(buf)? else {
        return Ok(None);
    };
    let value = match head {
        Flat::Null => Value::Null,
        Flat::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
        Flat::Line(kind, line) => {
            let text = String::from_utf8_lossy(line).into_owned();
            match kind {
                b'-' => Value::Error(text),
                b':' => Value::Int(text.parse().map_err(|_| garbled(line))?),
                b'#' => Value::Int(i64::from(text == "t")),
                _ => Value::Simple(text),
            }
        }
        Flat::Elements(elements) => {
            let mut items = Vec::new();
            for _ in 0..elements {
                let rest = buf.get(used..).unwrap_or_default();
                let Some((item, len)) = self::value(rest, depth + 1)? else {
                    return Ok(None);
                };
                items.push(item);
                used += len;
            }
            Value::Array(items)
        }
    };
    Ok(Some((value, used)))
}

fn length(line: &[u8]) -> Result<Option<usize>, WireError> {
    let text = std::str::from_utf8(line).map_err(|_| garbled(line))?;
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(number) => usize::try_from(number).map(Some).map_err(|_| garbled(line)),
        Err(_) => Err(garbled(line)),
    }
}

fn garbled(bytes: &[u8]) -> WireError {
    let start = bytes.get(..bytes.len().min(60)).unwrap_or_default();
    WireError::Garbled(String::from_utf8_lossy(start).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: Value) {
        for cut in 0..bytes.len() {
            let part = &bytes.as_bytes()[..cut];
            assert!(matches!(value(part, 0), Ok(None)), "{bytes:?} cut at {cut}");
        }
        let (read, used) = value(bytes.as_bytes(), 0).unwrap().unwrap();
        assert_eq!((read, used), (expected, bytes.len()));
    }

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        check("+OK\r\n", Value::Simple("OK".into()));
        check("-ERR no\r\n", Value::Error("ERR no".into()));
        check(":-3\r\n", Value::Int(-3));
        check("$3\r\na\nb\r\n", Value::bulk("a\nb"));
        check("$-1\r\n", Value::Null);
        check("_\r\n", Value::Null);
        check(
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            Value::Array(vec![Value::bulk("a"), Value::Array(vec![Value::Int(1)])]),
        );
        check(
            "%1\r\n+k\r\n#t\r\n",
            Value::Array(vec![Value::Simple("k".into()), Value::Int(1)]),
        );
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        assert!(flat(b"hello\r\n").is_err());
        assert!(flat(b"$x\r\n").is_err());
        assert!(flat(b"\r\n").is_err());
        let deep = "*1\r\n".repeat(NESTING_MAX + 2);
        assert!(value(deep.as_bytes(), 0).is_err());
    }
}
