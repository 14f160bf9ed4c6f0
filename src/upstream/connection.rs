//! One connection to one node: dialled, authenticated and in the wanted database.
//!
//! **Invariant:** every wait has a deadline. A [`Connection`] that is returned has no reply
//! outstanding.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::identity::{Identity, Resp};
use crate::resp::scan::{Reply, ReplyKind, ReplyScanner, write_request};
use crate::transport::{Dialer, ReadHalf, WriteHalf};

/// A reply that the proxy itself waits for (`+OK`, `HELLO`'s map) is never longer.
const OWN_REPLY_BYTES_MAX: usize = 1 << 20;

/// `ENFILE`, `EMFILE` and `ENOBUFS`, for which the standard library has no names.
const OWN_LIMITS: [i32; 3] = [23, 24, 105];

/// An established connection and what was read from it but not used yet.
#[derive(Debug)]
pub struct Connection {
    pub read: ReadHalf,
    pub write: WriteHalf,
    pub input: BytesMut,
    pub scanner: ReplyScanner,
    pub identity: Identity,
    /// Our end of it: what the server calls the client's address.
    pub addr: SocketAddr,
    /// What the server calls it (`CLIENT SETNAME`).
    pub name: Bytes,
}

/// Why there is no connection. Nothing of the client's was sent in any case.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// Nobody listens, no route, or the name does not resolve: try again later.
    #[error("cannot connect to {node}: {reason}")]
    Unreachable { node: String, reason: String },
    /// This machine has no descriptor, port or memory left: that says nothing about the node.
    #[error("no connection to {node} can be opened here: {reason}")]
    Exhausted { node: String, reason: String },
    /// The node accepted but did not answer in time, or hung up.
    #[error("{node} did not answer within {after:?}")]
    Silent { node: String, after: Duration },
    /// The node refused the session's credentials, protocol version or database. The reply is
    /// the server's own line.
    #[error("{node} answered {}", String::from_utf8_lossy(.reply).trim_end())]
    Refused { node: String, reply: Bytes },
}

impl DialError {
    fn failed(node: &str, error: &io::Error) -> Self {
        let (node, reason) = (node.to_owned(), error.to_string());
        let kinds = [
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::OutOfMemory,
            io::ErrorKind::WouldBlock,
        ];
        let raw = error.raw_os_error();
        if kinds.contains(&error.kind()) || raw.is_some_and(|raw| OWN_LIMITS.contains(&raw)) {
            return Self::Exhausted { node, reason };
        }
        Self::Unreachable { node, reason }
    }

    /// Whether the node itself may be the reason: it is out of reach, or silent.
    pub fn is_nodes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }
}

/// Why a call has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request may have been executed: its connection broke or stayed silent.
    #[error("the connection to the server broke before its reply")]
    Lost,
    /// What came back is no RESP; the connection is unusable.
    #[error("the server's reply is not valid RESP")]
    Protocol,
}

impl Connection {
    /// Connects to `node` and takes on `identity`, all within `deadline`.
    pub async fn dial(
        dialer: &Dialer,
        node: &str,
        identity: &Identity,
        deadline: Duration,
    ) -> Result<Self, DialError> {
        let silent = || DialError::Silent {
            node: node.to_owned(),
            after: deadline,
        };
        let established = async {
            match Self::establish(dialer, node, identity, Turn::AuthFirst).await {
                // A user who may not SELECT is in a database from before it had to say who it is.
                Err(DialError::Refused { reply, .. })
                    if identity.db != 0 && reply.starts_with(b"-NOPERM") =>
                {
                    Self::establish(dialer, node, identity, Turn::SelectFirst).await
                }
                established => established,
            }
        };
        timeout(deadline, established)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    async fn establish(
        dialer: &Dialer,
        node: &str,
        identity: &Identity,
        turn: Turn,
    ) -> Result<Self, DialError> {
        let unreachable = |error: io::Error| DialError::failed(node, &error);
        let stream = dialer.connect(node).await.map_err(unreachable)?;
        let addr = stream.socket().local_addr().map_err(unreachable)?;
        let (read, write) = stream.split();
        let mut connection = Self {
            read,
            write,
            input: BytesMut::new(),
            scanner: ReplyScanner::default(),
            identity: identity.clone(),
            addr,
            name: Bytes::new(),
        };
        let greeting = Greeting::new(identity, turn);
        if greeting.replies > 0 {
            connection.greet(node, greeting).await?;
        }
        Ok(connection)
    }

    async fn greet(&mut self, node: &str, greeting: Greeting) -> Result<(), DialError> {
        let lost = || DialError::Unreachable {
            node: node.to_owned(),
            reason: "the connection broke during the greeting".to_owned(),
        };
        self.send(&greeting.request).await.map_err(|_| lost())?;
        for _ in 0..greeting.replies {
            let (reply, kind) = self.reply(OWN_REPLY_BYTES_MAX).await.map_err(|_| lost())?;
            if kind == ReplyKind::Error {
                return Err(DialError::Refused {
                    node: node.to_owned(),
                    reply,
                });
            }
        }
        Ok(())
    }

    /// Sends one request and returns its whole reply.
    pub async fn call(
        &mut self,
        request: &[u8],
        deadline: Duration,
    ) -> Result<(Bytes, ReplyKind), CallError> {
        let exchange = async {
            self.send(request).await.map_err(|_| CallError::Lost)?;
            self.reply(OWN_REPLY_BYTES_MAX).await
        };
        timeout(deadline, exchange)
            .await
            .unwrap_or(Err(CallError::Lost))
    }

    /// As [`Connection::call`], where the reply may be as long as `bytes_max`.
    pub async fn call_for_long(
        &mut self,
        request: &[u8],
        deadline: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, CallError> {
        let exchange = async {
            self.send(request).await.map_err(|_| CallError::Lost)?;
            self.reply(bytes_max).await
        };
        let replied = timeout(deadline, exchange).await;
        Ok(replied.unwrap_or(Err(CallError::Lost))?.0)
    }

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        self.write.write_all(request).await?;
        self.write.flush().await
    }

    /// Waits for one whole reply; the caller sets the deadline.
    async fn reply(&mut self, bytes_max: usize) -> Result<(Bytes, ReplyKind), CallError> {
        let mut whole = BytesMut::new();
        loop {
            match self
                .scanner
                .scan(&self.input)
                .map_err(|_| CallError::Protocol)?
            {
                Reply::Complete { len, kind } => {
                    whole.extend_from_slice(&self.input.split_to(len));
                    return Ok((whole.freeze(), kind));
                }
                Reply::Partial { len } => {
                    whole.extend_from_slice(self.input.get(..len).unwrap_or_default());
                    self.input.advance(len);
                }
            }
            if whole.len() + self.input.len() > bytes_max {
                return Err(CallError::Protocol);
            }
            match self.read.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(CallError::Lost),
                Ok(_) => {}
            }
        }
    }

    /// Whether an idle connection is still good: nothing unread, not closed by the server.
    pub fn is_idle(&self) -> bool {
        let mut probe = [0_u8; 1];
        self.input.is_empty()
            && matches!(
                self.read.try_read(&mut probe),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            )
    }
}

/// Writes until `out` is empty and has left. `Pending`: the server reads too slowly, and the task
/// is woken when it takes more.
pub fn poll_write_all(
    write: &WriteHalf,
    out: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut sent = 0;
    let result = poll_write_from(write, out, &mut sent, context);
    out.advance(sent);
    result
}

/// The same for what is behind the first `sent` bytes, all of which stay where they are.
pub fn poll_write_from(
    write: &WriteHalf,
    out: &[u8],
    sent: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let attempt = match out.get(*sent..).filter(|rest| !rest.is_empty()) {
            Some(rest) => write.try_write(rest).map(Some),
            None => write.try_flush().map(|()| None),
        };
        match attempt {
            Ok(None) => return Poll::Ready(Ok(())),
            Ok(Some(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(Some(more)) => *sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(write.poll_write_ready(context))?;
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// The commands that give a fresh connection an identity, sent in one write.
struct Greeting {
    request: BytesMut,
    replies: usize,
}

/// What a greeting says first. Databases are selected by the user that is to be, if that may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    AuthFirst,
    SelectFirst,
}

impl Greeting {
    fn new(identity: &Identity, turn: Turn) -> Self {
        let mut greeting = Self {
            request: BytesMut::new(),
            replies: 0,
        };
        let db = identity.db.to_string();
        if identity.db != 0 && turn == Turn::SelectFirst {
            greeting.add(&[b"SELECT", db.as_bytes()]);
        }
        let credentials = identity.credentials.as_deref();
        let user = credentials.and_then(|known| known.user.as_deref());
        match (identity.resp, credentials) {
            (Resp::Resp3, Some(known)) => {
                let user = user.unwrap_or(b"default");
                greeting.add(&[b"HELLO", b"3", b"AUTH", user, &known.password]);
            }
            (Resp::Resp3, None) => greeting.add(&[b"HELLO", b"3"]),
            (Resp::Resp2, Some(known)) => match user {
                Some(user) => greeting.add(&[b"AUTH", user, &known.password]),
                None => greeting.add(&[b"AUTH", &known.password]),
            },
            (Resp::Resp2, None) => {}
        }
        if identity.db != 0 && turn == Turn::AuthFirst {
            greeting.add(&[b"SELECT", db.as_bytes()]);
        }
        greeting
    }

    fn add(&mut self, args: &[&[u8]]) {
        write_request(&mut self.request, args);
        self.replies += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_nodes_fault() {
        let check = |raw, expected: bool| {
            let error = io::Error::from_raw_os_error(raw);
            let error = DialError::failed("n:1", &error);
            assert_eq!(error.is_nodes(), expected, "{error}");
        };
        // ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM, EAGAIN.
        for raw in [23, 24, 99, 105, 12, 11] {
            check(raw, false);
        }
        // ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT.
        for raw in [111, 113, 110] {
            check(raw, true);
        }
    }
}
