//! `MULTI`: queued before, in the middle of and after switchovers, executed once.

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const CLIENTS: u64 = 6;
const SWITCHOVERS: usize = 6;
/// Commands queued in one go by the client with the long transaction.
const LONG_BURST: usize = 100;

/// Increments two counters in one transaction, again and again; gives the number of commits.
async fn count_in_pairs(mut wire: Wire, seed: u64, work: Work) -> i64 {
    let mut dice = Dice::new(seed);
    let mut commits = 0;
    while !work.is_over() {
        assert!(wire.run("MULTI").await.unwrap().ok());
        let more = dice.roll(4);
        for command in ["INCR left", "INCR right"] {
            let queued = wire.run(command).await.unwrap();
            assert_eq!(queued, Value::Simple("QUEUED".into()));
        }
        for _ in 0..more {
            let queued = wire.run("GET left").await.unwrap();
            assert_eq!(queued, Value::Simple("QUEUED".into()));
        }
        let results = wire.run("EXEC").await.unwrap();
        let results = results.items();
        assert_eq!(results.len() as u64, 2 + more, "{results:?}");
        assert_eq!(results[0], results[1], "a transaction was torn");
        commits += 1;
        work.did_one();
    }
    commits
}

async fn check_pairs(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut counting = Vec::new();
    for seed in 0..CLIENTS {
        let wire = client(&proxy).await;
        counting.push(tokio::spawn(count_in_pairs(wire, seed, work.clone())));
    }
    to_and_fro(&shard, &proxy, SWITCHOVERS, async || work.goes_on(30).await).await;
    work.end();
    let mut commits = 0;
    for client in counting {
        commits += client.await.unwrap();
    }
    let mut wire = client(&proxy).await;
    for counter in ["GET left", "GET right"] {
        let count = wire.run(counter).await.unwrap();
        assert_eq!(count, Value::bulk(commits.to_string()));
    }
}

#[tokio::test]
async fn transactions_commit_once_and_whole_through_switchovers() {
    check_pairs(Shard::redis(1).await).await;
}

#[tokio::test]
async fn transactions_on_kvrocks_commit_once_and_whole_through_switchovers() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_pairs(shard).await;
    }
}

/// Repeating a long queue takes longer than the time to the next switchover.
#[tokio::test]
async fn a_long_transaction_outlives_switchovers_in_quick_succession() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut wire = client(&proxy).await;
    let queueing = tokio::spawn({
        let work = work.clone();
        async move {
            assert!(wire.run("MULTI").await.unwrap().ok());
            while !work.is_over() {
                wire.send_raw(&b"INCR long\r\n".repeat(LONG_BURST))
                    .await
                    .unwrap();
                for _ in 0..LONG_BURST {
                    let queued = wire.reply().await.unwrap();
                    assert_eq!(queued, Value::Simple("QUEUED".into()));
                }
                work.did_one();
            }
            wire.run("EXEC").await.unwrap()
        }
    });
    work.goes_on(20_000 / LONG_BURST as u64).await;
    to_and_fro(&shard, &proxy, SWITCHOVERS, async || ()).await;
    work.end();
    let results = queueing.await.unwrap();
    let queued = work.done() as usize * LONG_BURST;
    assert_eq!(results.items().len(), queued, "not all was executed");
    assert_eq!(results.items().last(), Some(&Value::Int(queued as i64)));
}

/// Nothing of it was executed, so there is nothing that could not be carried.
#[tokio::test]
async fn a_refused_transaction_leaves_a_session_that_can_be_carried() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    // As long as keys are watched the session stays on the connection that it has.
    let before = [
        &["MULTI", "NOSUCHCOMMAND", "EXEC", "WATCH k"][..],
        &["UNWATCH", "MULTI", "NOSUCHCOMMAND"],
    ];
    for (lines, target) in before.into_iter().zip([shard.addr(1), shard.addr(0)]) {
        for line in lines {
            wire.run(line).await.unwrap();
        }
        let report = switchover(&proxy, &target).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        shard.in_sync(&target).await;
    }
    let aborted = wire.run("EXEC").await.unwrap();
    assert!(
        matches!(&aborted, Value::Error(text) if text.starts_with("EXECABORT")),
        "{aborted:?}"
    );
    assert!(wire.run("SET k v").await.unwrap().ok());
}
