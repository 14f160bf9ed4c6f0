//! The replies that the proxy reads itself: ROLE, INFO, CONFIG GET, CLIENT LIST, errors, integers.
//!
//! Owns the decoding of what control connections receive, and alone names `redis-protocol`.
//! **Invariant:** the decoder of that crate recurses and knows no limits, so it is given a frame
//! only after the scanner has found the whole of it, and within [`REPLY_BYTES_MAX`].
//!
//! Trade-off: a reply is collected before it is decoded. Control replies are a few KiB, CLIENT LIST
//! apart; replies of clients never pass here.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

use crate::resp::scan::{self, Reply, ReplyScanner};

/// Longest reply that a control connection accepts. The longest is CLIENT LIST, some 350 bytes a
/// client: this is enough for 45 000 clients of one node.
pub const REPLY_BYTES_MAX: usize = 16 << 20;

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
#[derive(Debug)]
pub struct ReplyDecoder {
    buf: BytesMut,
    scanner: ReplyScanner,
    /// Bytes of `buf` that the scanner has judged already.
    scanned: usize,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self {
            buf: BytesMut::new(),
            scanner: ReplyScanner::shallow(),
            scanned: 0,
        }
    }
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
        let rest = self.buf.get(self.scanned..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let whole = match self.scanner.scan(rest).map_err(ReplyError::Malformed)? {
            Reply::Complete { len, .. } => Some(self.scanned + len),
            Reply::Partial { len } => {
                self.scanned += len;
                None
            }
        };
        if whole.unwrap_or(self.buf.len()) > REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        let Some(len) = whole else { return Ok(None) };
        self.scanned = 0;
        let frame = self.buf.split_to(len).freeze();
        match decode_bytes(&frame) {
            Ok(Some((value, used))) if used == len => Ok(Some(value_of(value))),
            _ => Err(ReplyError::Undecodable),
        }
    }
}

/// Recursion is bounded by the scanner's limit on nesting.
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
    Master {
        offset: Option<u64>,
    },
    Replica {
        host: String,
        port: u16,
        state: String,
        offset: Option<u64>,
    },
    Sentinel,
}

impl RoleReply {
    pub fn of(value: &Value) -> Option<RoleReply> {
        let items = value.items()?;
        let offset = |at: usize| items.get(at).and_then(Value::number);
        match items.first()?.text()? {
            "master" => Some(RoleReply::Master {
                offset: offset(1).and_then(|n| u64::try_from(n).ok()),
            }),
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
        [name, value] => Some((
            name.text()?.to_owned(),
            value.text().unwrap_or_default().to_owned(),
        )),
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
    Some(
        value
            .text()?
            .lines()
            .filter(|text| text.contains("addr="))
            .map(line)
            .collect(),
    )
}

/// Why a reply could not be read. The connection is out of step with the server: close it.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// Not a Redis-protocol server, or a reply stream out of step.
    #[error(transparent)]
    Malformed(scan::ReplyError),
    /// RESP3, which was not asked for.
    #[error("the reply is no RESP2, check that the node speaks it")]
    Undecodable,
    /// The reply would not fit into the control connection's buffer.
    #[error("the reply is longer than the {REPLY_BYTES_MAX} bytes that are read, check the node")]
    TooLong,
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
