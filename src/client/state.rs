//! What a session is to the server and what it has open there: everything that must be
//! re-established when its commands go to another connection or another node.

use bytes::{Bytes, BytesMut};

use crate::upstream::connection::CallError;

/// Transactions whose queue is longer than this cannot be carried to another master.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Why a session ended. The label goes to the log and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client hung up, and had no reply to wait for.
    ClientGone,
    /// The client hung up while its write was held: the write was dropped, never sent.
    GoneWhileHeld,
    /// The client sent `QUIT`.
    Quit,
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

/// An open transaction of a session.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The queued commands as sent, to be queued again on another master.
    queue: BytesMut,
    pub commands: usize,
    carriable: bool,
    /// Keys were watched on a connection that is gone: `EXEC` must answer null.
    pub watch_lost: bool,
}

impl Transaction {
    pub fn open() -> Self {
        Self { carriable: true, ..Self::default() }
    }

    /// Remembers a queued command.
    pub fn push(&mut self, request: &[u8]) {
        self.commands += 1;
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

/// A blocking command that waits on the server.
#[derive(Debug, Clone)]
pub struct Blocked {
    pub request: Bytes,
    pub since: std::time::Instant,
}
