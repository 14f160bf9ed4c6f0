//! The handshake with those who connect to us.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::Stream;
use crate::config::ServerTls;

/// How one listen address is served: plain, or in TLS. Clones share what is set.
#[derive(Clone, Debug, Default)]
pub struct Acceptor {
    tls: Arc<ArcSwapOption<Shake>>,
}

/// A handshake, and how long it may take.
#[derive(Debug)]
struct Shake {
    tls: ServerTls,
    deadline: Duration,
}

/// Why a connection came to nothing. It is closed; nothing was read from it but the handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took longer than it may.
    #[error("no TLS handshake within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// It went away before it had said anything of use, as probes of a port do.
    #[error("it went away in the TLS handshake")]
    Gone,
    /// What came is no TLS at all.
    #[error("it speaks no TLS, and this port speaks nothing else")]
    NoTls,
    /// The peer is refused, or refuses us.
    #[error("the TLS handshake failed: {0}")]
    Failed(io::Error),
}

impl Acceptor {
    pub fn new(tls: Option<ServerTls>, deadline: Duration) -> Self {
        let acceptor = Self::default();
        acceptor.set(tls, deadline);
        acceptor
    }

    /// From now on connections are accepted like this.
    pub fn set(&self, tls: Option<ServerTls>, deadline: Duration) {
        let shake = tls.map(|tls| Arc::new(Shake { tls, deadline }));
        self.tls.store(shake);
    }

    /// Whether there is a handshake.
    pub fn is_tls(&self) -> bool {
        self.tls.load().is_some()
    }

    /// Shakes hands, within the deadline.
    pub async fn accept(&self, socket: TcpStream) -> Result<Stream, HandshakeError> {
        let Some(shake) = self.tls.load_full() else {
            return Ok(Stream::Plain(socket));
        };
        let shaken = TlsAcceptor::from(Arc::clone(&shake.tls.config)).accept(socket);
        match timeout(shake.deadline, shaken).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(TlsStream::Server(stream)))),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(HandshakeError::TooSlow(shake.deadline)),
        }
    }
}

fn failed(error: io::Error) -> HandshakeError {
    use rustls::{Error, InvalidMessage};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => HandshakeError::NoTls,
        None if error.kind() != io::ErrorKind::InvalidData => HandshakeError::Gone,
        _ => HandshakeError::Failed(error),
    }
}
