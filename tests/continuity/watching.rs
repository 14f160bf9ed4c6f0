//! `WATCH`: whoever counts with it counts right, and a transaction that must fail fails.

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const CLIENTS: u64 = 6;

/// Increments a counter as long as nobody else does at the same time; gives the number of
/// successes.
async fn count(mut wire: Wire, seed: u64, work: Work) -> i64 {
    let mut dice = Dice::new(seed);
    let mut successes = 0;
    while !work.is_over() {
        assert!(wire.run("WATCH counter").await.unwrap().ok());
        let value: i64 = match wire.run("GET counter").await.unwrap() {
            Value::Null => 0,
            value => value.text().parse().unwrap(),
        };
        if dice.roll(8) == 0 {
            assert!(wire.run("UNWATCH").await.unwrap().ok());
            continue;
        }
        assert!(wire.run("MULTI").await.unwrap().ok());
        let queued = wire.run(&format!("SET counter {}", value + 1)).await;
        assert_eq!(queued.unwrap(), Value::Simple("QUEUED".into()));
        match wire.run("EXEC").await.unwrap() {
            Value::Null => {}
            Value::Array(results) => {
                assert!(results[0].ok(), "{results:?}");
                successes += 1;
                work.did_one();
            }
            other => panic!("{other:?}"),
        }
    }
    successes
}

async fn check_counting(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut counting = Vec::new();
    for seed in 0..CLIENTS {
        let wire = client(&proxy).await;
        counting.push(tokio::spawn(count(wire, seed, work.clone())));
    }
    to_and_fro(&shard, &proxy, 8, async || work.goes_on(30).await).await;
    work.end();
    let mut successes = 0;
    for client in counting {
        successes += client.await.unwrap();
    }
    let counter = client(&proxy).await.run("GET counter").await.unwrap();
    assert_eq!(counter, Value::bulk(successes.to_string()));
}

#[tokio::test]
async fn a_counter_of_watching_clients_is_exact_through_switchovers() {
    check_counting(Shard::redis(1).await).await;
}

#[tokio::test]
async fn a_counter_of_watching_clients_on_kvrocks_is_exact_through_switchovers() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_counting(shard).await;
    }
}

/// The error was made on one master, the rest is queued for the next.
async fn check_refused(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for wrong in ["SET alone", "NOSUCHCOMMAND x"] {
        let target = match shard.master().await {
            Some(master) if master == shard.addr(0) => shard.addr(1),
            _ => shard.addr(0),
        };
        assert!(wire.run("MULTI").await.unwrap().ok());
        wire.run("SET k before").await.unwrap();
        let refused = wire.run(wrong).await.unwrap();
        assert!(matches!(refused, Value::Error(_)), "{refused:?}");
        let report = switchover(&proxy, &target).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        let queued = wire.run("SET k after").await.unwrap();
        assert_eq!(queued, Value::Simple("QUEUED".into()));
        let aborted = wire.run("EXEC").await.unwrap();
        assert!(aborted.text().starts_with("EXECABORT"), "{aborted:?}");
        assert_eq!(wire.run("GET k").await.unwrap(), Value::Null);
        shard.in_sync(&target).await;
    }
}

#[tokio::test]
async fn a_transaction_with_an_error_in_its_queue_is_refused_by_the_next_master_too() {
    check_refused(Shard::redis(1).await).await;
}

#[tokio::test]
async fn a_transaction_with_an_error_in_its_queue_is_refused_by_the_next_kvrocks_too() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_refused(shard).await;
    }
}
