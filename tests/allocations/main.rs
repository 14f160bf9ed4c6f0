//! A request costs the worker no allocation: neither a plain one nor one of a pipeline, neither a
//! read nor a write, whatever its reply.
//!
//! The proxy runs in this process, in front of a real server; what its worker's thread asks of the
//! allocator is counted while clients of other threads send requests. A few allocations of periodic
//! work are there whatever the number of requests, so many requests may cost no more than few.

mod counting;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pointsman::cli::demo::port::Port;
use pointsman::config::Config;
use support::{SOON, Shard, put_request};

/// What periodic work of the worker (counters collected once a second) may cost meanwhile.
const PERIODIC_MAX: u64 = 64;
const CLIENTS: usize = 20;
const ROUNDS: usize = 1_000;

/// Clients that send a batch each, and then read what is owed to each.
struct Crowd {
    sockets: Vec<TcpStream>,
    batch: Vec<u8>,
    reply_bytes: usize,
    buffer: Vec<u8>,
}

impl Crowd {
    fn connect(addr: &str, requests: &[&[&str]], reply_bytes: usize) -> Crowd {
        let mut batch = Vec::new();
        for words in requests {
            put_request(&mut batch, words);
        }
        let sockets = (0..CLIENTS).map(|_| {
            let socket = TcpStream::connect(addr).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket
        });
        Crowd {
            sockets: sockets.collect(),
            batch,
            reply_bytes,
            buffer: vec![0; reply_bytes],
        }
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            for socket in &mut self.sockets {
                socket.write_all(&self.batch).unwrap();
            }
            for socket in &mut self.sockets {
                socket.read_exact(&mut self.buffer).unwrap();
            }
        }
        assert_eq!(self.buffer.len(), self.reply_bytes);
        assert_ne!(self.buffer.first(), Some(&b'-'), "an error");
    }
}

/// Starts the proxy on a thread of its own, with one worker; gives its port.
fn serve(shard: &Shard) -> Port {
    let (port, admin_port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let nodes = shard.addrs();
    let dir = shard.dir().display();
    let text = format!(
        "[proxy]\nworkers = 1\nstate_dir = \"{dir}\"\n[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\
         [[shard]]\nname = \"main\"\nlisten = \"127.0.0.1:{port}\"\nnodes = {nodes:?}\n"
    );
    let config = Config::parse(&text, "allocations.toml").unwrap();
    std::thread::Builder::new()
        .name("proxy".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(pointsman::server::run(config, "config.toml".into()))
                .unwrap();
            drop(admin_port);
        })
        .unwrap();
    port
}

fn connects(addr: &str) {
    let deadline = Instant::now() + SOON;
    while TcpStream::connect(addr).is_err() {
        assert!(Instant::now() < deadline, "the proxy does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check(addr: &str, what: &str, requests: &[&[&str]], reply_bytes: usize) {
    let mut crowd = Crowd::connect(addr, requests, reply_bytes);
    // Buffers grow to what they need.
    crowd.rounds(ROUNDS / 4);
    let counted = counting::on_workers(|| crowd.rounds(ROUNDS));
    let served = ROUNDS * CLIENTS * requests.len();
    println!("{what}: {counted} allocations in {served} requests");
    assert!(
        counted <= PERIODIC_MAX,
        "{what}: {counted} allocations in {served} requests"
    );
}

#[test]
fn a_request_costs_no_allocation() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let shard = runtime.block_on(Shard::redis(0));
    let port = serve(&shard);
    let addr = port.addr();
    connects(&addr);
    let own = counting::on_workers(|| Crowd::connect(&addr, &[&["PING"]], 7).rounds(1));
    let value = "v".repeat(64);
    let long = "v".repeat(2048);
    check(&addr, "PING", &[&["PING"]], 7);
    check(&addr, "SET", &[&["SET", "key", &value]], 5);
    check(&addr, "GET", &[&["GET", "key"]], 71);
    check(&addr, "SET of 2 KB", &[&["SET", "long", &long]], 5);
    check(&addr, "GET of 2 KB", &[&["GET", "long"]], 2057);
    check(
        &addr,
        "SET in a pipeline",
        &[&["SET", "key", &value][..]; 16],
        80,
    );
    check(
        &addr,
        "GET in a pipeline",
        &[&["GET", "key"][..]; 16],
        71 * 16,
    );
    let mixed: [&[&str]; 4] = [
        &["SET", "key", &value],
        &["GET", "key"],
        &["HSET", "hash", "field", "1"],
        &["HGET", "hash", "field"],
    ];
    check(&addr, "warming", &[&["HSET", "hash", "field", "1"]], 4);
    check(&addr, "reads and writes in turn", &mixed, 5 + 71 + 4 + 7);
    assert!(own > 0, "the count counts nothing: a new session allocates");
}
