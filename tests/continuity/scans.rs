//! Iterations: every element that was there throughout is returned, and they end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const KEYS: usize = 20_000;
const MEMBERS: usize = 5_000;
/// Keys of one MSET and members of one command while the data are loaded.
const AT_ONCE: usize = 500;

fn key(number: usize) -> String {
    format!("stays:{number}")
}

async fn load(wire: &mut Wire) {
    let numbers: Vec<usize> = (0..KEYS).collect();
    for some in numbers.chunks(AT_ONCE) {
        let mut mset = vec!["MSET".to_owned()];
        mset.extend(
            some.iter()
                .flat_map(|number| [key(*number), "x".to_owned()]),
        );
        assert!(wire.call(&mset).await.unwrap().ok());
    }
    for some in numbers[..MEMBERS].chunks(AT_ONCE) {
        let mut hset = vec!["HSET".to_owned(), "hash".to_owned()];
        let mut sadd = vec!["SADD".to_owned(), "set".to_owned()];
        let mut zadd = vec!["ZADD".to_owned(), "zset".to_owned()];
        for number in some {
            hset.extend([key(*number), "x".to_owned()]);
            sadd.push(key(*number));
            zadd.extend([number.to_string(), key(*number)]);
        }
        for command in [hset, sadd, zadd] {
            assert_eq!(
                wire.call(&command).await.unwrap(),
                Value::Int(some.len() as i64)
            );
        }
    }
}

/// What is iterated over, and how its replies are read.
#[derive(Clone, Copy, Debug)]
struct Kind {
    command: &'static [&'static str],
    /// An element takes so many places in a reply.
    width: usize,
    elements: usize,
}

const KINDS: [Kind; 4] = [
    Kind {
        command: &["SCAN"],
        width: 1,
        elements: KEYS,
    },
    Kind {
        command: &["HSCAN", "hash"],
        width: 2,
        elements: MEMBERS,
    },
    Kind {
        command: &["SSCAN", "set"],
        width: 1,
        elements: MEMBERS,
    },
    Kind {
        command: &["ZSCAN", "zset"],
        width: 2,
        elements: MEMBERS,
    },
];

/// Iterates on one connection after the other, as a client library with a pool does, until the
/// server says that it is the end; gives what is missing.
async fn iterate(wires: &mut [Wire], kind: Kind, count: usize, steps: &AtomicU64) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut cursor = "0".to_owned();
    for step in 0.. {
        let mut command: Vec<String> = kind.command.iter().map(|word| (*word).into()).collect();
        command.extend([cursor, "COUNT".to_owned(), count.to_string()]);
        let which = step % wires.len();
        let reply = wires[which].call(&command).await.unwrap();
        let [next, elements] = reply.items() else {
            panic!("{command:?}: {reply:?}");
        };
        let elements = elements.items().iter().step_by(kind.width);
        seen.extend(
            elements
                .map(Value::text)
                .filter(|key| key.starts_with("stays:")),
        );
        steps.fetch_add(1, Ordering::Relaxed);
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    let all = (0..kind.elements).map(key);
    all.filter(|key| !seen.contains(key)).collect()
}

async fn keep_iterating(
    proxy: String,
    (kind, connections): (Kind, usize),
    work: Work,
    steps: Arc<AtomicU64>,
) {
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::connect(&proxy).await.unwrap());
    }
    let mut dice = Dice::new(kind.elements as u64);
    while !work.is_over() {
        let count = 5 + dice.roll(20) as usize;
        let missing = iterate(&mut wires, kind, count, &steps).await;
        let some = &missing[..missing.len().min(3)];
        assert!(
            missing.is_empty(),
            "{kind:?}: {} missing: {some:?}",
            missing.len()
        );
        work.did_one();
    }
}

/// Adds and removes other keys and members, so that tables grow and shrink.
async fn write_others(mut wire: Wire, work: Work) {
    let mut dice = Dice::new(1);
    while !work.is_over() {
        let mut pipeline = Vec::new();
        for _ in 0..20 {
            let other = format!("other:{}", dice.roll(5_000));
            for line in [
                "SET {} x",
                "HSET hash {} x",
                "SADD set {}",
                "ZADD zset 1 {}",
            ] {
                let line = line.replace("{}", &other);
                put_request(&mut pipeline, &line.split(' ').collect::<Vec<_>>());
            }
            let gone = format!("other:{}", dice.roll(5_000));
            for line in ["DEL {}", "HDEL hash {}", "SREM set {}", "ZREM zset {}"] {
                let line = line.replace("{}", &gone);
                put_request(&mut pipeline, &line.split(' ').collect::<Vec<_>>());
            }
        }
        wire.send_raw(&pipeline).await.unwrap();
        for _ in 0..160 {
            let reply = wire.reply().await.unwrap();
            assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
        }
        tokio::task::yield_now().await;
    }
}

async fn check_iterations(shard: Shard) {
    let mut settings = patient();
    // The writers write as fast as they can; a busy machine's replica is behind.
    settings.switchover.push_str("\nmax_lag = 1073741824\n");
    let proxy = shard.proxy_with(settings).await;
    load(&mut client(&proxy).await).await;
    shard.in_sync(&shard.addr(0)).await;
    let (work, writing) = (Work::default(), Work::default());
    let steps = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn(write_others(client(&proxy).await, writing.clone()));
    let mut iterating = Vec::new();
    for kind in KINDS {
        for connections in [1, 3] {
            let (work, steps) = (work.clone(), Arc::clone(&steps));
            let task = keep_iterating(proxy.addr.clone(), (kind, connections), work, steps);
            iterating.push(tokio::spawn(task));
        }
    }
    let took = || steps.load(Ordering::Relaxed);
    to_and_fro(&shard, &proxy, 8, async || {
        // Far enough for iterations of both kinds to be in the middle, and some to end.
        let enough = took() + 1_000;
        wait_until("iterations go on", async || took() >= enough).await;
    })
    .await;
    work.end();
    for client in iterating {
        client.await.unwrap();
    }
    assert!(work.done() >= 8, "each ended at least once");
    writing.end();
    writer.await.unwrap();
}

#[tokio::test]
async fn iterations_return_everything_and_end_through_switchovers() {
    check_iterations(Shard::redis(1).await).await;
}

#[tokio::test]
async fn iterations_on_kvrocks_return_everything_and_end_through_switchovers() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_iterations(shard).await;
    }
}

/// The cursor's own node is away for good, or in another life: what is left is to begin anew.
#[tokio::test]
async fn an_iteration_whose_node_is_gone_begins_anew_and_ends() {
    let mut shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    load(&mut wire).await;
    shard.in_sync(&shard.addr(0)).await;
    let reply = wire.run("SCAN 0 COUNT 100").await.unwrap();
    let cursor = reply.items()[0].text();
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    shard.in_sync(&shard.addr(1)).await;
    shard.set.nodes.remove(0);
    let mut seen = HashSet::new();
    let mut cursor = cursor;
    while cursor != "0" {
        let reply = wire.call(&["SCAN", &cursor, "COUNT", "100"]).await.unwrap();
        let [next, keys] = reply.items() else {
            panic!("{reply:?}");
        };
        seen.extend(keys.items().iter().map(Value::text));
        cursor = next.text();
    }
    assert_eq!(
        (0..KEYS).map(key).filter(|key| !seen.contains(key)).count(),
        0
    );
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_info_iterates_as_well() {
    let shard = Shard::redis(1).await;
    for node in 0..2 {
        let mut wire = shard.wire(node).await;
        let user = "ACL SETUSER reader on >pw ~* +@read";
        assert!(wire.run(user).await.unwrap().ok());
    }
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    load(&mut wire).await;
    assert!(wire.run("AUTH reader pw").await.unwrap().ok());
    let (mut cursor, mut seen, mut steps) = ("0".to_owned(), HashSet::new(), 0);
    loop {
        let reply = wire.call(&["SCAN", &cursor, "COUNT", "100"]).await.unwrap();
        let [next, keys] = reply.items() else {
            panic!("{reply:?}");
        };
        seen.extend(keys.items().iter().map(Value::text));
        cursor = next.text();
        steps += 1;
        if cursor == "0" {
            break;
        }
        if steps == 50 {
            let report = switchover(&proxy, &shard.addr(1)).await;
            assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        }
    }
    assert_eq!(
        (0..KEYS).map(key).filter(|key| !seen.contains(key)).count(),
        0
    );
    assert!(steps < 2 * KEYS / 100, "it began anew: {steps} steps");
}
