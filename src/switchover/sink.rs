//! Where a fenced Kvrocks master is told to replicate from: a listener that never answers.
//!
//! Owns one listening socket for the length of one operation. A closed port would block the node's
//! next role change for a second, a black hole for ten; a silent listener costs nothing.
//!
//! **Invariant:** the node sends its `masterauth` here, so what arrives is discarded unread: never
//! kept, never logged, never answered; and nobody but that node is let in. Dropping the sink closes
//! everything.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Connections kept at a time; the node makes one, and one more when it lost the first.
const CONNECTIONS_MAX: usize = 4;

/// A pause after a failed accept: trying harder repairs nothing.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A silent listener for one peer.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// Listens at `local`, our end of the connection to the node, which is therefore an address
    /// that the node reaches; port 0 leaves the port to the kernel. Lets in `peer` only, or anybody
    /// when addresses are translated on the way and the peer cannot be known.
    pub async fn open(local: IpAddr, port: u16, peer: Option<IpAddr>) -> io::Result<Sink> {
        let listener = TcpListener::bind((local, port)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, peer));
        Ok(Sink { address, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The set of connections lives in the task and goes with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, peer: Option<IpAddr>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            // Both arms are cancel-safe: an accepted connection is handed over in the same step.
            accepted = listener.accept() => match accepted {
                Ok((stream, from))
                    if peer.is_none_or(|peer| peer == from.ip())
                        && open.len() < CONNECTIONS_MAX =>
                {
                    open.spawn(discard(stream));
                }
                Ok(_) => {}
                // Out of file descriptors, most likely. The node retries by itself.
                Err(_) => sleep(ACCEPT_RETRY).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn discard(mut stream: TcpStream) {
    let mut bytes = [0_u8; 512];
    while matches!(stream.read(&mut bytes).await, Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_peer_is_let_in_and_never_answered() {
        let sink = Sink::open(LOCAL, 0, Some(LOCAL)).await.unwrap();
        let mut stream = TcpStream::connect(sink.address()).await.unwrap();
        stream
            .write_all(&b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n".repeat(1000))
            .await
            .unwrap();
        let answer = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(answer.is_err(), "the sink answered or closed: {answer:?}");
        drop(sink);
        let ended = timeout(LONG, stream.read_u8())
            .await
            .expect("closed with the sink");
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn a_stranger_is_turned_away() {
        let peer = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
        let sink = Sink::open(LOCAL, 0, Some(peer)).await.unwrap();
        let mut stream = TcpStream::connect(sink.address()).await.unwrap();
        let ended = timeout(LONG, stream.read_u8())
            .await
            .expect("closed at once");
        assert!(ended.is_err());
    }
}
