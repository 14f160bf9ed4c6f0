//! Clients that mean harm, or are broken beyond that: whatever they send or leave unread, others
//! are served, memory stays bounded, and nothing of them is left when they are gone.

mod support;

use std::time::Duration;

use support::*;

/// Enough for whatever a test has in flight, and far below what its clients ask for.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// One other client, which must not notice anything.
struct Bystander {
    wire: Wire,
    count: i64,
}

impl Bystander {
    async fn of(proxy: &Proxy) -> Bystander {
        let wire = client(proxy).await;
        Bystander { wire, count: 0 }
    }

    async fn is_served(&mut self) {
        self.count += 1;
        let reply = self.wire.run("INCR bystander").await.unwrap();
        assert_eq!(reply, Value::Int(self.count));
    }
}

/// One worker, so that nobody is spared because he happens to be on another.
async fn one_worker(shard: &Shard, more: &str) -> Proxy {
    let lines = format!("workers = 1\n{more}");
    shard.proxy_with(proxy_settings(&lines)).await
}

/// The number in the line of `/metrics` in which all `words` stand; 0 without one.
async fn metric(proxy: &Proxy, words: &[&str]) -> u64 {
    let text = proxy.admin.get("/metrics").await.expect("an answer").body;
    let line = text
        .lines()
        .find(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.map_or(0, |number| number.parse().expect("a number"))
}

async fn sessions_are(proxy: &Proxy, count: u64) {
    wait_until(&format!("there are {count} sessions"), async || {
        metric(proxy, &["pointsman_sessions{"]).await == count
    })
    .await;
}

/// A line of `/proc/<pid>/status`, in bytes.
fn memory_bytes(proxy: &Proxy, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn announced_sizes_cost_no_memory_and_are_forgotten_with_their_clients() {
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "").await;
    let mut bystander = Bystander::of(&proxy).await;
    bystander.is_served().await;
    let before = memory_bytes(&proxy, "VmRSS:");
    let mut clients = Vec::new();
    let many = b"*1048576\r\n$3\r\nDEL\r\n".as_slice();
    let large = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc".as_slice();
    for (begun, count) in [(many, 200), (large, 20)] {
        for _ in 0..count {
            let mut wire = client(&proxy).await;
            wire.send_raw(begun).await.unwrap();
            clients.push(wire);
        }
    }
    sessions_are(&proxy, 221).await;
    for _ in 0..100 {
        bystander.is_served().await;
    }
    // Eleven gigabytes were announced as values alone.
    let grown = memory_bytes(&proxy, "VmHWM:") - before;
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
    drop(clients);
    sessions_are(&proxy, 1).await;
    bystander.is_served().await;
    let mut direct = shard.wire(0).await;
    assert_eq!(direct.run("DBSIZE").await.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn many_clients_that_send_a_byte_at_a_time_are_served_and_delay_nobody() {
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "").await;
    let mut bystander = Bystander::of(&proxy).await;
    let mut request = Vec::new();
    put_request(&mut request, &["INCR", "slow"]);
    request.extend_from_slice(b"INCR slow\r\n");
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(client(&proxy).await);
    }
    for byte in request.chunks(1) {
        for wire in &mut clients {
            wire.send_raw(byte).await.unwrap();
        }
        bystander.is_served().await;
    }
    for wire in &mut clients {
        for _ in 0..2 {
            let reply = wire.reply().await.unwrap();
            assert!(matches!(reply, Value::Int(1..=400)), "{reply:?}");
        }
    }
    assert_eq!(
        bystander.wire.run("GET slow").await.unwrap(),
        Value::bulk("400")
    );
}

#[tokio::test]
async fn clients_that_close_in_the_middle_leave_nothing_behind() {
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "").await;
    let mut bystander = Bystander::of(&proxy).await;
    let halves: &[&[u8]] = &[
        b"*",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nval",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$900000\r\nval",
        b"SET k value",
        b"SET k \"val",
        b"MULTI\r\nSET k value\r\nEXE",
        b"WATCH k\r\nMULTI\r\nSET k value\r\n*1\r\n$4\r\nEXEC\r",
        b"SUBSCRIBE news\r\nPING",
        b"EVAL \"redis.call('SET',KEYS[1],1)\" 1 k",
        b"\x16\x03\x01\x00\xc8\x01\x00",
    ];
    for round in 0..10 {
        let mut clients = Vec::new();
        for half in halves {
            let mut wire = client(&proxy).await;
            wire.send_raw(half).await.unwrap();
            if round % 2 == 0 {
                wire.finish_sending().await.unwrap();
            }
            clients.push(wire);
        }
        bystander.is_served().await;
    }
    sessions_are(&proxy, 1).await;
    let mut direct = shard.wire(0).await;
    assert_eq!(direct.run("DBSIZE").await.unwrap(), Value::Int(1));
    let channels = direct.run("PUBSUB CHANNELS news").await.unwrap();
    assert_eq!(channels.items(), []);
    bystander.is_served().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_at_the_limit_and_others_are_served() {
    let shard = Shard::redis(0).await;
    let limit = "output_buffer_bytes_max = 8388608";
    let proxy = one_worker(&shard, limit).await;
    let mut bystander = Bystander::of(&proxy).await;
    let value = "x".repeat(1 << 20);
    let stored = bystander.wire.call(&["SET", "large", &value]).await;
    assert!(stored.unwrap().ok());
    let before = memory_bytes(&proxy, "VmRSS:");
    let mut lazy = client(&proxy).await;
    lazy.send_raw(&b"GET large\r\n".repeat(500)).await.unwrap();
    let closed = ["sessions_closed_total", "output_limit"];
    wait_until("the lazy client is closed", async || {
        bystander.is_served().await;
        metric(&proxy, &closed).await == 1
    })
    .await;
    // Half a gigabyte was asked for.
    let grown = memory_bytes(&proxy, "VmHWM:").saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
    let (said, ending) = lazy.raw_until_quiet(SOON).await;
    assert_eq!(ending, Ending::Closed);
    assert!(said.len() < 500 << 20);
    sessions_are(&proxy, 1).await;
    for _ in 0..100 {
        bystander.is_served().await;
    }
}

/// Each flush concerns every script behind it. Going through the queue once for each of them kept
/// the worker from its other clients for minutes.
#[tokio::test]
async fn a_transaction_full_of_flushes_keeps_nobody_waiting() {
    const FLUSHES: usize = 1000;
    const PINGS: usize = 200_000;
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "").await;
    let mut bystander = Bystander::of(&proxy).await;
    for unfolds in [false, true] {
        let mut wire = client(&proxy).await.with_deadline(SOON);
        let mut queue = Vec::new();
        put_request(&mut queue, &["MULTI"]);
        for _ in 0..FLUSHES {
            put_request(&mut queue, &["SCRIPT", "FLUSH"]);
        }
        for _ in 0..PINGS {
            put_request(&mut queue, &["PING"]);
        }
        if unfolds {
            put_request(&mut queue, &["UNSUBSCRIBE"]);
        }
        let queued = FLUSHES + PINGS + usize::from(unfolds);
        for piece in queue.chunks(1 << 16) {
            wire.send_raw(piece).await.unwrap();
        }
        assert!(wire.reply().await.unwrap().ok());
        for _ in 0..queued {
            assert_eq!(wire.reply().await.unwrap().text(), "QUEUED");
        }
        let results = wire.run("EXEC").await.unwrap();
        bystander.is_served().await;
        assert_eq!(results.items().len(), queued);
    }
}

#[tokio::test]
async fn a_transaction_fails_that_would_have_too_much_remembered() {
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "").await;
    let name = "x".repeat(900_000);
    for (command, fits) in [
        (&["UNSUBSCRIBE", &name][..], 4),
        (&["CLIENT", "GETNAME"][..], 10_000),
    ] {
        let mut wire = client(&proxy).await;
        assert!(wire.run("MULTI").await.unwrap().ok());
        for _ in 0..fits {
            let queued = wire.call(command).await.unwrap();
            assert_eq!(queued, Value::Simple("QUEUED".into()));
        }
        let refused = wire.call(command).await.unwrap().text();
        let said = "commands about sessions, subscriptions and flushes of scripts";
        assert!(refused.contains(said), "{refused}");
        let aborted = wire.run("EXEC").await.unwrap().text();
        assert!(aborted.starts_with("EXECABORT"), "{aborted}");
        assert!(wire.run("SET k v").await.unwrap().ok());
    }
}

/// Its write stands behind replies that it does not take, on a connection of its own.
#[tokio::test]
async fn a_client_that_reads_nothing_does_not_keep_the_shard_from_being_drained() {
    const READS: usize = 40;
    let value = "x".repeat(1 << 20);
    let shard = Shard::redis(1).await;
    let limits = "workers = 1\nbulk_bytes_max = 4194304\noutput_buffer_bytes_max = 134217728";
    let settings = Settings {
        proxy: limits.into(),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut wire = client(&proxy).await.with_deadline(SOON);
    assert!(wire.call(&["SET", "large", &value]).await.unwrap().ok());
    assert!(wire.run("WATCH other").await.unwrap().ok());
    let mut pipeline = Vec::new();
    for _ in 0..READS {
        put_request(&mut pipeline, &["GET", "large"]);
    }
    put_request(&mut pipeline, &["INCR", "count"]);
    wire.send_raw(&pipeline).await.unwrap();
    wait_until("its write has reached the replica", async || {
        let count = shard.wire(1).await.run("GET count").await.unwrap();
        count == Value::bulk("1")
    })
    .await;

    let report = switchover(&proxy, &shard.addr(1)).await;

    assert_eq!(report.outcome, "switched", "{report:?}");
    for _ in 0..READS {
        assert_eq!(wire.reply().await.unwrap().text(), value);
    }
    assert_eq!(wire.reply().await.unwrap(), Value::Int(1));
    assert_eq!(wire.run("INCR count").await.unwrap(), Value::Int(2));
}

/// How many of `wanted` connections this process may hold, with some left for itself.
fn connections_at_most(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    let soft: usize = soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024);
    let count = wanted.min(soft.saturating_sub(200));
    if count < wanted {
        say_skipped(&format!(
            "{count} connections instead of {wanted}, raise `ulimit -n`"
        ));
    }
    count
}

#[tokio::test]
async fn a_flood_past_the_limit_is_refused_in_words_and_those_inside_are_served() {
    const MAX: usize = 200;
    const TRIES: usize = 100_000;
    let shard = Shard::redis(0).await;
    let proxy = one_worker(&shard, "clients_max = 200").await;
    let mut inside = Vec::new();
    for _ in 0..MAX {
        let mut wire = client(&proxy).await;
        assert_eq!(wire.run("PING").await.unwrap().text(), "PONG");
        inside.push(wire);
    }
    let (mut tried, at_once) = (0, connections_at_most(3000 - MAX));
    while tried < TRIES {
        tried += at_once;
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let addr = proxy.addr.clone();
            flood.spawn(async move {
                let wire = Wire::connect(&addr).await;
                let mut wire = wire.expect("a connection past the limit");
                wire.raw_until_quiet(SOON).await
            });
        }
        for wire in &mut inside {
            assert_eq!(wire.run("PING").await.unwrap().text(), "PONG");
        }
        while let Some(told) = flood.join_next().await {
            let (said, ending) = told.unwrap();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(said, "-ERR max number of clients reached\r\n");
            assert_eq!(ending, Ending::Closed);
        }
    }
    drop(inside);
    sessions_are(&proxy, 0).await;
    let mut again = Vec::new();
    for _ in 0..MAX {
        let mut wire = client(&proxy).await;
        assert_eq!(wire.run("PING").await.unwrap().text(), "PONG");
        again.push(wire);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    assert!(open.count() < MAX + 100, "refused clients stay open");
    let closed = Duration::from_secs(5);
    let (said, _) = client(&proxy).await.raw_until_quiet(closed).await;
    assert!(said.starts_with(b"-ERR max number"));
}
