//! `CLIENT TRACKING`: what a client keeps in a cache of its own is never older than what it could
//! have known, whatever node tells it so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const KEYS: usize = 24;
const WRITERS: usize = 3;
const SWITCHOVERS: usize = 8;

/// The highest number that each key was acknowledged with.
type Acked = Arc<Vec<AtomicU64>>;

/// Writes ever higher numbers to its share of the keys.
async fn write(mut wire: Wire, share: usize, acked: Acked, work: Work) {
    let mut dice = Dice::new(share as u64);
    let mut number = 0_u64;
    while !work.is_over() {
        number += 1;
        let key = dice.roll((KEYS / WRITERS) as u64) as usize * WRITERS + share;
        let reply = wire.run(&format!("SET k{key} {number}")).await.unwrap();
        assert!(reply.ok(), "{reply:?}");
        acked[key].fetch_max(number, Ordering::SeqCst);
    }
}

/// A client that answers reads from its cache.
struct Cache {
    wire: Wire,
    known: HashMap<Vec<u8>, u64>,
    invalidated: u64,
}

impl Cache {
    async fn open(proxy: &Proxy, tracking: &str) -> Cache {
        let mut wire = client(proxy).await;
        wire.run("HELLO 3").await.unwrap();
        let reply = wire.run(&format!("CLIENT TRACKING ON {tracking}")).await;
        assert!(reply.unwrap().ok());
        Cache {
            wire,
            known: HashMap::new(),
            invalidated: 0,
        }
    }

    /// The next reply; invalidations in front of it are obeyed.
    async fn reply(&mut self) -> Value {
        loop {
            let reply = self.wire.reply().await.unwrap();
            match reply.items() {
                [Value::Bulk(kind), keys] if kind == b"invalidate" => self.invalidate(keys),
                _ => return reply,
            }
        }
    }

    fn invalidate(&mut self, keys: &Value) {
        self.invalidated += 1;
        match keys {
            Value::Array(keys) => {
                for key in keys {
                    let Value::Bulk(key) = key else {
                        panic!("an invalidation of {key:?}")
                    };
                    self.known.remove(key);
                }
            }
            all => {
                assert_eq!(*all, Value::Null);
                self.known.clear();
            }
        }
    }

    async fn run(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        self.wire.send(&words).await.unwrap();
        self.reply().await
    }

    /// Reads a key into the cache; `say` is what has to be said before.
    async fn fetch(&mut self, key: usize, say: Option<&str>) {
        let name = format!("k{key}");
        if let Some(say) = say {
            assert!(self.run(say).await.ok());
        }
        let number = self.run(&format!("GET {name}")).await;
        let number = number.text().parse().unwrap_or(0);
        self.known.insert(name.into_bytes(), number);
    }

    /// Whatever has been acknowledged before is in the cache, or nothing is.
    async fn check(&mut self, key: usize, acked: &Acked) {
        let expected = acked[key].load(Ordering::SeqCst);
        assert_eq!(self.run("PING").await, Value::Simple("PONG".into()));
        if let Some(known) = self.known.get(format!("k{key}").as_bytes()) {
            assert!(*known >= expected, "k{key}: {known} after {expected}");
        }
    }
}

async fn read(mut cache: Cache, say: Option<&'static str>, acked: Acked, work: Work) -> u64 {
    let mut dice = Dice::new(say.map_or(0, |say| say.len() as u64));
    while !work.is_over() {
        let key = dice.roll(KEYS as u64) as usize;
        if dice.roll(3) == 0 {
            cache.fetch(key, say).await;
        } else {
            cache.check(key, &acked).await;
        }
        if dice.roll(16) == 0 {
            // Not asked to be tracked, so nothing of it may be kept.
            cache.run(&format!("MGET k{key} other")).await;
        }
        work.did_one();
    }
    cache.invalidated
}

/// Two clients with such a cache read while others write, through switchovers to and fro.
async fn check_caches(tracking: &str, say: Option<&'static str>) {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let acked: Acked = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let mut writing = Vec::new();
    for share in 0..WRITERS {
        let wire = client(&proxy).await;
        writing.push(tokio::spawn(write(
            wire,
            share,
            acked.clone(),
            work.clone(),
        )));
    }
    let mut reading = Vec::new();
    for _ in 0..2 {
        let cache = Cache::open(&proxy, tracking).await;
        reading.push(tokio::spawn(read(cache, say, acked.clone(), work.clone())));
    }
    to_and_fro(&shard, &proxy, SWITCHOVERS, async || {
        work.goes_on(150).await
    })
    .await;
    work.end();
    for writer in writing {
        writer.await.unwrap();
    }
    for reader in reading {
        let invalidated = reader.await.unwrap();
        assert!(
            invalidated > SWITCHOVERS as u64,
            "{invalidated} invalidations"
        );
    }
}

#[tokio::test]
async fn a_cache_of_what_was_read_is_never_stale() {
    check_caches("", None).await;
}

#[tokio::test]
async fn a_cache_by_prefixes_is_never_stale() {
    check_caches("BCAST PREFIX k PREFIX other:", None).await;
}

#[tokio::test]
async fn a_cache_of_everything_is_never_stale() {
    check_caches("BCAST", None).await;
}

#[tokio::test]
async fn a_cache_of_what_was_opted_in_is_never_stale() {
    check_caches("OPTIN", Some("CLIENT CACHING YES")).await;
}

#[tokio::test]
async fn a_cache_of_what_was_not_opted_out_is_never_stale() {
    check_caches("OPTOUT", None).await;
}

async fn switch(shard: &Shard, proxy: &Proxy, to: usize) {
    let report = switchover(proxy, &shard.addr(to)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    shard.in_sync(&shard.addr(to)).await;
}

#[tokio::test]
async fn a_client_that_does_nothing_is_told_to_forget_its_cache() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut cache = Cache::open(&proxy, "").await;
    cache.fetch(1, None).await;
    for to in [1, 0, 1] {
        switch(&shard, &proxy, to).await;
        let all = Value::Array(vec![Value::bulk("invalidate"), Value::Null]);
        assert_eq!(cache.wire.reply().await.unwrap(), all);
    }
    // What it reads on the new master is tracked there.
    cache.known.clear();
    cache.fetch(1, None).await;
    client(&proxy).await.run("SET k1 5").await.unwrap();
    let one = Value::Array(vec![
        Value::bulk("invalidate"),
        Value::Array(vec![Value::bulk("k1")]),
    ]);
    assert_eq!(cache.wire.reply().await.unwrap(), one);
}

#[tokio::test]
async fn what_was_said_about_caching_before_counts_for_the_next_command_after() {
    for (tracking, say, is_tracked) in [
        ("OPTIN", "CLIENT CACHING YES", true),
        ("OPTIN", "PING", false),
        ("OPTOUT", "CLIENT CACHING NO", false),
        ("OPTOUT", "PING", true),
    ] {
        let shard = Shard::redis(1).await;
        let proxy = shard.proxy_with(patient()).await;
        let mut cache = Cache::open(&proxy, tracking).await;
        cache.run(say).await;
        switch(&shard, &proxy, 1).await;
        cache.run("GET k1").await;
        // Said once, it counts for one command.
        cache.run("GET k2").await;
        let before = cache.invalidated;
        let mut writer = client(&proxy).await;
        writer.run("SET k1 1").await.unwrap();
        cache.run("PING").await;
        let told = cache.invalidated > before;
        assert_eq!(told, is_tracked, "{tracking}, {say}");
        writer.run("SET k2 1").await.unwrap();
        let before = cache.invalidated;
        cache.run("PING").await;
        assert_eq!(
            cache.invalidated > before,
            tracking == "OPTOUT",
            "{tracking}, {say}"
        );
    }
}

#[tokio::test]
async fn tracking_switched_on_in_a_transaction_is_carried_as_well() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    wire.run("HELLO 3").await.unwrap();
    for line in ["MULTI", "CLIENT TRACKING ON BCAST PREFIX k", "GET k1"] {
        wire.run(line).await.unwrap();
    }
    switch(&shard, &proxy, 1).await;
    let results = wire.run("EXEC").await.unwrap();
    assert_eq!(results.items(), [Value::Simple("OK".into()), Value::Null]);
    switch(&shard, &proxy, 0).await;
    let all = Value::Array(vec![Value::bulk("invalidate"), Value::Null]);
    assert_eq!(wire.reply().await.unwrap(), all);
    client(&proxy).await.run("SET k9 1").await.unwrap();
    let one = Value::Array(vec![
        Value::bulk("invalidate"),
        Value::Array(vec![Value::bulk("k9")]),
    ]);
    assert_eq!(wire.reply().await.unwrap(), one);
}

#[tokio::test]
async fn after_tracking_the_session_is_as_before_and_its_connection_is_closed() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut cache = Cache::open(&proxy, "").await;
    cache.fetch(1, None).await;
    let mut direct = shard.wire(0).await;
    let tracks = async |direct: &mut Wire| {
        let list = direct.run("CLIENT LIST").await.unwrap().text();
        let line = list.lines().find(|line| line.contains(" flags=t"));
        line.map(|line| line.split(' ').next().unwrap_or_default().to_owned())
    };
    let id = tracks(&mut direct).await.expect("a connection that tracks");
    assert!(cache.run("CLIENT TRACKING OFF").await.ok());
    wait_until("the connection is closed", async || {
        let list = direct.run("CLIENT LIST").await.unwrap().text();
        !list.contains(&format!("{id} "))
    })
    .await;
    client(&proxy).await.run("SET k1 7").await.unwrap();
    assert_eq!(cache.run("GET k1").await, Value::bulk("7"));
    switch(&shard, &proxy, 1).await;
    assert_eq!(cache.run("GET k1").await, Value::bulk("7"));
    assert_eq!(cache.invalidated, 0);
}
