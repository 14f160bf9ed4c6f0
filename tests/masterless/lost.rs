//! Reads that were on their way when their connection to the server broke.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::*;
use crate::{followed, known, missed, promote, proxy};

#[tokio::test]
async fn reads_under_way_when_the_master_dies_are_answered_by_the_next() {
    let mut shard = Shard::redis(1).await;
    Readers::prepare(&shard).await;
    let proxy = proxy(&shard, "hold").await;
    known(&proxy).await;
    let readers = Readers::start(&proxy).await;
    let mut waiting = client(&proxy).await.with_deadline(SOON);

    shard.set.nodes[0].freeze().unwrap();
    readers.are_stuck().await;
    shard.set.nodes[0].kill();
    missed(&proxy, &shard.addr(0)).await;
    waiting.send(&["GET", "which"]).await.unwrap();
    promote(&shard, 1, "which", "the new master").await;

    followed(&proxy, &shard.addr(1)).await;
    let read = waiting.reply().await.unwrap();
    assert_eq!(read, Value::bulk("the new master"));
    readers.go_on().await;
    readers.finish().await;
}

/// Between the proxy and a server; hangs up on whoever asks for a certain key.
struct Breaker {
    name: String,
    broken: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Breaker {
    const KEY: &[u8] = b"\r\n$6\r\nbroken\r\n";

    async fn start(node: String) -> Breaker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let broken: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&broken);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&node).await.unwrap();
                open.spawn(carry(client, server, Arc::clone(&counted)));
            }
        });
        Breaker {
            name,
            broken,
            _accepting: accepting,
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, broken: Arc<AtomicUsize>) {
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                let sent = &there[..count];
                if sent.windows(Breaker::KEY.len()).any(|part| part == Breaker::KEY) {
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

#[tokio::test]
async fn a_read_that_ends_two_connections_in_a_row_is_not_sent_a_third_time() {
    let shard = Shard::redis(1).await;
    let breaker = Breaker::start(shard.addr(0)).await;
    let workspace = Workspace::create("pointsman-test").unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
    let nodes = [breaker.name.clone(), shard.addr(1)];
    let proxy = Proxy::start(binary, &workspace, &nodes, &Settings::default()).await;
    let proxy = proxy.unwrap();
    let mut reader = client(&proxy).await.with_deadline(SOON);
    assert!(reader.run("SET whole 1").await.unwrap().ok());

    assert_eq!(reader.run("GET whole").await.unwrap(), Value::bulk("1"));
    let read = reader.run("GET broken").await;
    assert!(read.is_err(), "{read:?}");
    assert_eq!(breaker.broken.load(SeqCst), 2);
}
