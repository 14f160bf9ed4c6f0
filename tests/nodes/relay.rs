//! A relay between the proxy and one node that interferes with the reply to a promotion.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What becomes of the reply to `NO ONE`, which the node gets and executes.
#[derive(Clone)]
pub enum Fate {
    /// It is lost with its connection.
    Swallowed,
    /// It waits until it is let go. The first tells that it has come.
    Parked(Arc<Notify>, Arc<Notify>),
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
    let mut promoted = false;
    loop {
        tokio::select! {
            read = client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                promoted |= there[..count].windows(9).any(|bytes| bytes == b"\r\nONE\r\n*2");
                if server.write_all(&there[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                if std::mem::take(&mut promoted) {
                    match &fate {
                        Fate::Swallowed => return,
                        Fate::Parked(come, go) => {
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
