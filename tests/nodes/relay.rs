//! A relay between the proxy and one node that interferes with certain replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::servers::signal;

/// What becomes of a reply. The node gets and executes everything.
#[derive(Clone)]
pub enum Fate {
    /// That to `NO ONE` is lost with its connection.
    Swallowed,
    /// That to `NO ONE` waits until it is let go. The first tells that it has come.
    Parked(Arc<Notify>, Arc<Notify>),
    /// That to a fence on Redis is lost with its connection, and the node, whose process this is,
    /// frozen.
    Frozen(u32),
    /// Once armed, one that the watch of the proxy gets waits so.
    Late(Arc<AtomicBool>, Arc<Notify>, Arc<Notify>),
}

impl Fate {
    /// Whether the reply to what was `asked` on a connection is meant.
    fn meets(&self, asked: &[u8], is_watch: bool) -> bool {
        match self {
            Fate::Swallowed | Fate::Parked(..) => contains(asked, b"\r\nONE\r\n*2"),
            Fate::Frozen(_) => contains(asked, b"MULTI\r\n*4\r\n$6\r\nCONFIG"),
            Fate::Late(armed, ..) => {
                is_watch && contains(asked, b"INFO") && armed.swap(false, Relaxed)
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Ends with everything in it when dropped.
pub struct Relay {
    pub name: String,
    _accepting: JoinSet<()>,
}

impl Relay {
    pub async fn start(node: &str, fate: Fate) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let node = node.to_owned();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&node).await {
                    open.spawn(carry(client, server, fate.clone()));
                }
            }
        });
        Relay {
            name,
            _accepting: accepting,
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, fate: Fate) {
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut met, mut is_watch) = (false, false);
    loop {
        tokio::select! {
            read = client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                let asked = &there[..count];
                is_watch |= contains(asked, b"pointsman-watch");
                met |= fate.meets(asked, is_watch);
                if server.write_all(&there[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                if std::mem::take(&mut met) {
                    match &fate {
                        Fate::Swallowed => return,
                        Fate::Frozen(pid) => return signal(*pid, "-STOP"),
                        Fate::Parked(come, go) | Fate::Late(_, come, go) => {
                            come.notify_one();
                            go.notified().await;
                        }
                    }
                }
                if client.write_all(&back[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
