//! Accepts clients of one shard and hands each to the worker with the fewest sessions.
//!
//! One acceptor that chooses balances exactly; listeners with `SO_REUSEPORT` cost the same and
//! spread a few connections unevenly.
//!
//! **Invariant:** a client past `clients_max` gets Redis' own words and is closed.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::transport::Acceptor;

/// Connections the kernel may keep for us while we are busy.
const BACKLOG: i32 = 4096;
/// A client that is silent for this long is asked by the kernel whether it is still there; Redis'
/// `tcp-keepalive` has the same default, in seconds.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// After an error of `accept` (out of file descriptors, mostly) before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client connection on its way to a worker.
#[derive(Debug)]
pub struct Handover {
    pub id: u64,
    /// Position of the shard in the configuration.
    pub shard: usize,
    pub stream: StdTcpStream,
    pub place: Place,
}

/// One of the places that `clients_max` limits. It is free again when this is dropped, however the
/// session ends.
#[derive(Debug)]
pub struct Place {
    sessions: Arc<AtomicUsize>,
}

impl Place {
    fn take(sessions: &Arc<AtomicUsize>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self {
            sessions: Arc::clone(sessions),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a worker takes connections, and how many sessions it has.
#[derive(Debug, Clone)]
pub struct Door {
    pub handover: mpsc::Sender<Handover>,
    pub sessions: Arc<AtomicUsize>,
}

/// Accepts the clients of one shard.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    shard: usize,
    doors: Vec<Door>,
    /// A reload changes it.
    clients_max: Arc<AtomicUsize>,
    acceptor: Acceptor,
    /// `CLIENT ID`s, over all shards.
    next_id: Arc<AtomicU64>,
}

impl Listener {
    /// Listens on `address` (`host:port`).
    pub async fn bind(
        address: &str,
        shard: usize,
        doors: Vec<Door>,
        clients_max: Arc<AtomicUsize>,
        acceptor: Acceptor,
        next_id: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let address = lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| io::Error::other("the name has no address"))?;
        Ok(Self {
            socket: listen(address)?,
            shard,
            doors,
            clients_max,
            acceptor,
            next_id,
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept clients");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = stop.cancelled() => return,
            }
        }
    }

    fn welcome(&self, stream: TcpStream) {
        let total: usize = self
            .doors
            .iter()
            .map(|door| door.sessions.load(Ordering::Relaxed))
            .sum();
        if total >= self.clients_max.load(Ordering::Relaxed) {
            // In TLS nothing can be said before a handshake, which is what there is no room for.
            if !self.acceptor.is_tls() {
                // Best effort: the client's socket buffer is empty, so this does not block.
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            }
            return;
        }
        let least = self
            .doors
            .iter()
            .min_by_key(|door| door.sessions.load(Ordering::Relaxed));
        let Some(door) = least else { return };
        let stream = match tuned(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a client left before it was taken up");
                return;
            }
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let handover = Handover {
            id,
            shard: self.shard,
            stream,
            place: Place::take(&door.sessions),
        };
        if door.handover.try_send(handover).is_err() {
            tracing::warn!("a worker takes up no connections: client closed");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Replies must leave at once, and dead peers must be noticed.
fn tuned(stream: TcpStream) -> io::Result<StdTcpStream> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    stream.into_std()
}
