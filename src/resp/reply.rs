//! The replies that the proxy reads itself: ROLE, INFO, CONFIG GET, CLIENT LIST, errors, integers.
//!
//! Owns the decoding of what control connections receive, and alone names `redis-protocol`.
//! **Invariant:** the decoder of that crate recurses and knows no limits, so it is given a frame only
//! after [`frame_len`] has found the whole of it within [`REPLY_BYTES_MAX`] and [`NESTING_MAX`].
//!
//! Trade-off: an incomplete reply is judged again from its first byte when more of it arrives.
//! Control replies are a few KiB and usually arrive whole; replies of clients never pass here.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

/// Longest reply that a control connection accepts.
pub const REPLY_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays that a control connection accepts.
pub const NESTING_MAX: usize = 32;
/// Longest header line (`*12`, `$345`, `:67`) that is waited for.
const HEADER_BYTES_MAX: usize = 32;

/// One decoded reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Status(Bytes),
    Bulk(Bytes),
    Integer(i64),
    Error(String),
    Array(Vec<Value>),
    Null,
}

impl Value {
    /// The text of a status or bulk reply that is valid UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Status(bytes) | Value::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A number, also when the server sent it as text (Kvrocks' ROLE does).
    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => self.text()?.parse().ok(),
        }
    }

    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of an error reply. A bulk string that looks like an error is data, not an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }

    /// A status reply that begins with OK ("OK Already connected to specified master" included).
    pub fn is_ok(&self) -> bool {
        matches!(self, Value::Status(text) if text.starts_with(b"OK"))
    }
}

/// Collects bytes of one control connection and hands out whole replies.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    buf: BytesMut,
}

impl ReplyDecoder {
    /// Where the connection reads into. The caller must drain replies before it reads more.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The next whole reply, or `None` until more bytes arrive.
    pub fn next_value(&mut self) -> Result<Option<Value>, ReplyError> {
        let Some(len) = frame_len(&self.buf)? else {
            if self.buf.len() > REPLY_BYTES_MAX {
                return Err(ReplyError::TooLong);
            }
            return Ok(None);
        };
        let frame = self.buf.split_to(len).freeze();
        match decode_bytes(&frame) {
            Ok(Some((value, used))) if used == len => Ok(Some(value_of(value))),
            _ => Err(ReplyError::Malformed),
        }
    }
}

/// Recursion is bounded by [`NESTING_MAX`], which [`frame_len`] has checked.
fn value_of(frame: BytesFrame) -> Value {
    match frame {
        BytesFrame::SimpleString(bytes) => Value::Status(bytes),
        BytesFrame::BulkString(bytes) => Value::Bulk(bytes),
        BytesFrame::Error(text) => Value::Error(text.to_string()),
        BytesFrame::Integer(number) => Value::Integer(number),
        BytesFrame::Array(items) => Value::Array(items.into_iter().map(value_of).collect()),
        BytesFrame::Null => Value::Null,
    }
}

/// Length of the reply at the start of `buf` when it is whole; `None` when bytes are missing.
fn frame_len(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    let mut pos = 0;
    // How many elements each open array still lacks; the innermost is last.
    let mut open: Vec<u64> = Vec::new();
    loop {
        let Some((line, next)) = header(buf, pos)? else {
            return Ok(None);
        };
        pos = next;
        let (kind, rest) = line.split_first().ok_or(ReplyError::Malformed)?;
        let mut opened = false;
        match kind {
            b'+' | b'-' | b':' => {}
            b'$' => match length(rest)? {
                Some(len) => pos = pos.saturating_add(len).saturating_add(2),
                None => {}
            },
            b'*' => {
                if let Some(count @ 1..) = length(rest)? {
                    if open.len() >= NESTING_MAX {
                        return Err(ReplyError::TooDeep);
                    }
                    open.push(count as u64);
                    opened = true;
                }
            }
            _ => return Err(ReplyError::Malformed),
        }
        if pos > REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        if pos > buf.len() {
            return Ok(None);
        }
        if opened {
            continue;
        }
        // One element ended, and with it every array whose last element it was.
        loop {
            match open.last_mut() {
                None => return Ok(Some(pos)),
                Some(left) if *left > 1 => {
                    *left -= 1;
                    break;
                }
                Some(_) => {
                    open.pop();
                }
            }
        }
    }
}

/// The line at `pos` without its CR LF, and where the next one begins.
fn header(buf: &[u8], pos: usize) -> Result<Option<(&[u8], usize)>, ReplyError> {
    let rest = buf.get(pos..).unwrap_or_default();
    let textual = matches!(rest.first(), Some(b'+' | b'-'));
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
        if !textual && rest.len() > HEADER_BYTES_MAX {
            return Err(ReplyError::Malformed);
        }
        return Ok(None);
    };
    let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    Ok(Some((line.ok_or(ReplyError::Malformed)?, pos + end + 1)))
}

/// A length, or `None` for the null length -1.
fn length(digits: &[u8]) -> Result<Option<usize>, ReplyError> {
    let text = std::str::from_utf8(digits).map_err(|_| ReplyError::Malformed)?;
    match text.parse::<i64>().map_err(|_| ReplyError::Malformed)? {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| ReplyError::Malformed),
    }
}

/// The `name:value` lines of an INFO reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    fields: BTreeMap<String, String>,
}

impl Info {
    /// `None` when the reply is not text (an error, most often).
    pub fn of(value: &Value) -> Option<Info> {
        let text = value.text()?;
        let fields = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Info { fields })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    /// Fields whose name is `prefix` and digits (`slave0`, `slave1` ...), in no order.
    pub fn numbered<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter_map(move |(name, value)| {
            let digits = name.strip_prefix(prefix)?;
            let numbered = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            numbered.then_some(value.as_str())
        })
    }
}

/// What ROLE says. Offsets are `None` when the server says -1 (a Redis replica without a link).
#[derive(Clone, Debug, PartialEq)]
pub enum RoleReply {
    Master { offset: Option<u64> },
    Replica { host: String, port: u16, state: String, offset: Option<u64> },
    Sentinel,
}

impl RoleReply {
    pub fn of(value: &Value) -> Option<RoleReply> {
        let items = value.items()?;
        let offset = |at: usize| items.get(at).and_then(Value::number);
        match items.first()?.text()? {
            "master" => {
                Some(RoleReply::Master { offset: offset(1).and_then(|n| u64::try_from(n).ok()) })
            }
            "slave" => Some(RoleReply::Replica {
                host: items.get(1)?.text()?.to_owned(),
                port: u16::try_from(items.get(2)?.number()?).ok()?,
                state: items.get(3)?.text()?.to_owned(),
                offset: offset(4).and_then(|n| u64::try_from(n).ok()),
            }),
            "sentinel" => Some(RoleReply::Sentinel),
            _ => None,
        }
    }
}

/// The name and value pairs of a CONFIG GET reply.
pub fn config_map(value: &Value) -> Option<BTreeMap<String, String>> {
    let items = value.items()?;
    let pair = |pair: &[Value]| match pair {
        [name, value] => {
            Some((name.text()?.to_owned(), value.text().unwrap_or_default().to_owned()))
        }
        _ => None,
    };
    Some(items.chunks(2).filter_map(pair).collect())
}

/// One line of CLIENT LIST: `id=3 addr=127.0.0.1:5000 name= flags=N ...`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientLine {
    pub id: u64,
    pub addr: String,
    pub name: String,
    pub flags: String,
    pub cmd: String,
}

/// Every line of a CLIENT LIST or CLIENT INFO reply.
pub fn client_lines(value: &Value) -> Option<Vec<ClientLine>> {
    let line = |line: &str| {
        let mut client = ClientLine::default();
        for (name, value) in line.split(' ').filter_map(|field| field.split_once('=')) {
            match name {
                "id" => client.id = value.parse().unwrap_or_default(),
                "addr" => client.addr = value.to_owned(),
                "name" => client.name = value.to_owned(),
                "flags" => client.flags = value.to_owned(),
                "cmd" => client.cmd = value.to_owned(),
                _ => {}
            }
        }
        client
    };
    Some(value.text()?.lines().filter(|text| text.contains("addr=")).map(line).collect())
}

/// Why a reply could not be read. The connection is out of step with the server: close it.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// Bytes that are no RESP2: not a Redis-protocol server, or a reply stream out of step.
    #[error("the reply is not the Redis protocol; check the address")]
    Malformed,
    /// Arrays in arrays past the limit; nothing the proxy asks for answers so.
    #[error("the reply nests deeper than {NESTING_MAX} levels")]
    TooDeep,
    /// The reply would not fit into the control connection's buffer.
    #[error("the reply is longer than {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
