//! The way between the proxy and a server, which can be broken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::cli::demo::port::Port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::*;

/// Hangs up on whoever asks for the key `broken`, and on who asks for `answer` behind one reply.
pub struct Way {
    pub name: String,
    broken: Arc<AtomicUsize>,
    closing: Arc<Notify>,
    _port: Port,
    _accepting: JoinSet<()>,
}

impl Way {
    const BROKEN: &[u8] = b"\r\n$6\r\nbroken\r\n";
    const ANSWER: &[u8] = b"*2\r\n$3\r\nGET\r\n$6\r\nanswer\r\n";

    pub async fn start(node: String) -> Way {
        let port = Port::reserve().unwrap();
        let name = port.addr();
        let listener = TcpListener::bind(&name).await.unwrap();
        let (broken, closing): (Arc<AtomicUsize>, Arc<Notify>) = Default::default();
        let (counted, closed) = (Arc::clone(&broken), Arc::clone(&closing));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = closed.notified() => break,
                };
                // Hangs up where the server does not answer.
                if let Ok(server) = TcpStream::connect(&node).await {
                    open.spawn(carry(client, server, Arc::clone(&counted)));
                }
            }
            drop(listener);
            while open.join_next().await.is_some() {}
        });
        Way {
            name,
            broken,
            closing,
            _port: port,
            _accepting: accepting,
        }
    }

    /// How often it has hung up.
    pub fn broken(&self) -> usize {
        self.broken.load(SeqCst)
    }

    /// Nobody can connect any more; who is connected stays so.
    pub async fn close(&self) {
        self.closing.notify_one();
        wait_until("nobody listens", async || {
            TcpStream::connect(&self.name).await.is_err()
        })
        .await;
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, broken: Arc<AtomicUsize>) {
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                let sent = &there[..count];
                if sent.windows(Way::BROKEN.len()).any(|part| part == Way::BROKEN) {
                    broken.fetch_add(1, SeqCst);
                    return;
                }
                if sent.starts_with(Way::ANSWER) {
                    server.write_all(Way::ANSWER).await.unwrap();
                    let count = server.read(&mut back).await.unwrap();
                    client.write_all(&back[..count]).await.unwrap();
                    broken.fetch_add(1, SeqCst);
                    return;
                }
                if server.write_all(sent).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&back[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A proxy that reaches the first node this way, and the second directly.
pub async fn proxy_through(way: &Way, shard: &Shard, settings: &Settings) -> Proxy {
    let workspace = Workspace::create("pointsman-test").unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
    let nodes = [way.name.clone(), shard.addr(1)];
    let proxy = Proxy::start(binary, &workspace, &nodes, settings).await;
    proxy.unwrap()
}
