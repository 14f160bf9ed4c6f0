//! A server that breaks the protocol: the shared connection is cut, and nobody is given what
//! belongs to somebody else. Every value names its key, so a reply that went astray is seen.
//!
//! What can be seen at all: bytes that are no reply, a push, an end in the middle, a reply that
//! nobody waits for. A server that leaves out one reply and goes on, or adds one while others wait,
//! shifts all later ones, and nothing in RESP would tell a client or a proxy; such a shift ends
//! where it comes to light, at the latest when the connection owes nothing and yet something comes.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The reply that is meddled with.
const MARK: &[u8] = b"$6\r\nMARKED\r\n";
const CLIENTS: usize = 12;

/// What is sent instead of the marked reply, and whether the connection ends behind it.
#[derive(Clone, Copy)]
struct Meddling {
    instead: &'static [u8],
    ends: bool,
    /// Sent a moment later, when nobody waits for anything.
    later: &'static [u8],
}

const REPLACED: Meddling = Meddling {
    instead: b"",
    ends: false,
    later: b"",
};

/// Between the proxy and a server; meddles once, when armed.
struct Meddler {
    name: String,
    armed: Arc<AtomicBool>,
    struck: Arc<AtomicBool>,
    _accepting: JoinSet<()>,
}

impl Meddler {
    async fn start(node: &str, meddling: Meddling) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let [armed, struck] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (node, flags) = (node.to_owned(), [&armed, &struck].map(Arc::clone));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&node).await.unwrap();
                let [armed, struck] = flags.clone();
                open.spawn(async move {
                    carry(client, server, meddling, &armed, &struck).await;
                });
            }
        });
        Meddler {
            name,
            armed,
            struck,
            _accepting: accepting,
        }
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    meddling: Meddling,
    armed: &AtomicBool,
    struck: &AtomicBool,
) {
    // What is said a moment later must not wait for the proxy to say something.
    client.set_nodelay(true).unwrap();
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                if server.write_all(&there[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &back[..count];
                let at = bytes.windows(MARK.len()).position(|part| part == MARK);
                let Some(at) = at.filter(|_| armed.swap(false, Relaxed)) else {
                    if client.write_all(bytes).await.is_err() {
                        return;
                    }
                    continue;
                };
                let behind = match meddling.ends {
                    true => &[],
                    false => &bytes[at + MARK.len()..],
                };
                let sent = [&bytes[..at], meddling.instead, behind].concat();
                let _ = client.write_all(&sent).await;
                if !meddling.later.is_empty() {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    let _ = client.write_all(meddling.later).await;
                }
                struck.store(true, Relaxed);
                if meddling.ends {
                    return;
                }
            }
        }
    }
}

struct Scene {
    proxy: Proxy,
    meddler: Meddler,
    _shard: Shard,
}

async fn scene(meddling: Meddling) -> Scene {
    let shard = Shard::redis(0).await;
    let mut wire = shard.wire(0).await;
    assert!(wire.run("SET marked MARKED").await.unwrap().ok());
    for id in 0..CLIENTS {
        for number in 0..10 {
            let key = format!("{id}:{number}");
            assert!(wire.call(&["SET", &key, &key]).await.unwrap().ok());
        }
    }
    let meddler = Meddler::start(&shard.addr(0), meddling).await;
    let workspace = Workspace::create("pointsman-test").unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
    // One worker with one lane for all: they share what is meddled with.
    let settings = proxy_settings("workers = 1\nlanes = 1");
    let nodes = [meddler.name.clone()];
    let proxy = Proxy::start(binary, &workspace, &nodes, &settings)
        .await
        .unwrap();
    Scene {
        proxy,
        meddler,
        _shard: shard,
    }
}

/// Asks for its own keys until told to stop, dials again when it is cut off, and tells how often
/// that was.
async fn reader(addr: String, id: usize, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> u64 {
    let mut cuts = 0;
    while !stop.load(Relaxed) {
        let mut wire = Wire::connect(&addr).await.unwrap();
        for number in (0..10).cycle() {
            if stop.load(Relaxed) {
                break;
            }
            let key = format!("{id}:{number}");
            let Ok(reply) = wire.call(&["GET", &key]).await else {
                cuts += 1;
                break;
            };
            assert_eq!(reply, Value::bulk(&key), "a reply that went astray");
            asked.fetch_add(1, Relaxed);
        }
    }
    cuts
}

/// Readers share a lane on which one reply is replaced; every other one must be right, the lane
/// must be cut, and all goes on afterwards.
async fn check(instead: &'static [u8], ends: bool) {
    let Scene {
        proxy,
        meddler,
        _shard,
    } = scene(Meddling {
        instead,
        ends,
        ..REPLACED
    })
    .await;
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicU64>::default(),
    );
    let mut readers = JoinSet::new();
    for id in 0..CLIENTS {
        readers.spawn(reader(proxy.addr.clone(), id, stop.clone(), asked.clone()));
    }
    let goes_on = async || {
        let before = asked.load(Relaxed);
        wait_until("readers go on", async || asked.load(Relaxed) > before + 200).await;
    };
    goes_on().await;
    meddler.armed.store(true, Relaxed);
    let mut wire = client(&proxy).await;
    let answer = wire.run("GET marked").await;
    assert!(
        answer.is_err(),
        "{answer:?} for {:?}",
        String::from_utf8_lossy(instead)
    );
    wait_until("the meddling", async || meddler.struck.load(Relaxed)).await;
    goes_on().await;
    stop.store(true, Relaxed);
    let cuts: u64 = readers.join_all().await.into_iter().sum();
    eprintln!(
        "{cuts} readers were cut off in {} reads",
        asked.load(Relaxed)
    );
}

#[tokio::test]
async fn bytes_that_are_no_reply_cut_the_lane() {
    check(b"hello\r\n", false).await;
    check(b"$x\r\nMARKED\r\n", false).await;
    check(b"$-7\r\n", false).await;
    check(b"*99999999999999999999\r\n", false).await;
}

#[tokio::test]
async fn a_reply_longer_than_its_length_cuts_the_lane() {
    check(b"$2\r\nMARKED\r\n", false).await;
}

#[tokio::test]
async fn a_push_that_nobody_asked_for_cuts_the_lane() {
    check(b">2\r\n$7\r\nmessage\r\n$2\r\nhi\r\n", false).await;
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_reply_cuts_the_lane() {
    check(b"$6\r\nMAR", true).await;
    check(b"*2\r\n$1\r\na\r\n", true).await;
}

#[tokio::test]
async fn an_end_instead_of_a_reply_cuts_the_lane() {
    check(b"", true).await;
}

/// The server says one thing too much while nobody waits for anything.
async fn check_surplus(command: &[&str], marked: &[&str], own: &str, meddling: Meddling) {
    let scene = scene(meddling).await;
    let mut first = client(&scene.proxy).await;
    scene.meddler.armed.store(true, Relaxed);
    let answer = first.call(marked).await;
    if let Ok(answer) = answer {
        assert_eq!(answer, Value::bulk("MARKED"));
    }
    wait_until("the meddling", async || scene.meddler.struck.load(Relaxed)).await;
    if marked[0] == "GET" {
        wait_until("the lane is cut", async || {
            scene
                .proxy
                .log_tail()
                .contains("a reply that nobody awaits")
        })
        .await;
    }
    for _ in 0..20 {
        let mut other = client(&scene.proxy).await;
        let answer = other.call(command).await;
        // The first to meet what is left may be cut off; nobody may be told somebody else's.
        if let Ok(answer) = answer {
            assert_eq!(answer, Value::bulk(own), "a reply that went astray");
        }
    }
    let mut last = client(&scene.proxy).await;
    assert_eq!(last.call(command).await.unwrap(), Value::bulk(own));
}

const SURPLUS: &[u8] = b"$7\r\nSURPLUS\r\n";

#[tokio::test]
async fn a_reply_that_nobody_waits_for_reaches_nobody() {
    let late = Meddling {
        instead: MARK,
        later: SURPLUS,
        ..REPLACED
    };
    let at_once = Meddling {
        instead: b"$6\r\nMARKED\r\n$7\r\nSURPLUS\r\n",
        ..REPLACED
    };
    for meddling in [late, at_once] {
        check_surplus(&["GET", "3:4"], &["GET", "marked"], "3:4", meddling).await;
        // Scripts run on a connection of their own, which others get afterwards.
        let script = ["EVAL", "return ARGV[1]", "0", "3:4"];
        let marked = ["EVAL", "return ARGV[1]", "0", "MARKED"];
        check_surplus(&script, &marked, "3:4", meddling).await;
    }
}
