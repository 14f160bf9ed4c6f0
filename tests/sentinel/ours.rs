//! A switchover that is ordered of the proxy, in a shard that Sentinels watch.

use std::time::{Duration, Instant};

use crate::support::*;
use crate::watchers::{DOWN_AFTER_MS, NAME, QUORUM, Watchers};
use crate::writers::{WRITERS, Writers};

/// Sentinel undoes what it was not told of after 29 s (measured).
const WATCHED: Duration = Duration::from_secs(40);

/// Every Sentinel has the settings that it was started with.
async fn check_settings(watchers: &Watchers) {
    for at in 0..watchers.addrs.len() {
        for (name, value) in [
            ("quorum", QUORUM),
            ("down-after-milliseconds", DOWN_AFTER_MS),
            ("failover-timeout", "7000"),
            ("parallel-syncs", "3"),
        ] {
            assert_eq!(watchers.field(at, name).await, value, "{name}");
        }
    }
}

#[tokio::test]
async fn sentinels_are_told_of_a_switchover_and_neither_undo_nor_fight_it() {
    let mut shard = Shard::redis(2).await;
    let watchers = Watchers::over(&shard).await;
    let proxy = shard.proxy_with(watchers.settings()).await;
    let writers = Writers::start(&proxy).await;
    let target = shard.addr(1);

    let report = switchover(&proxy, &target).await;

    assert_eq!(report.outcome, "switched", "{report:?}");
    assert_eq!(watchers.masters().await, vec![target.clone(); 3]);
    check_settings(&watchers).await;
    // A node that is not run for half a second is no reason to fail over while this is watched.
    watchers.down_after("5000").await;
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        assert_eq!(status(&proxy).await["master"], target);
        assert_eq!(watchers.masters().await, vec![target.clone(); 3]);
        assert_eq!(shard.master().await.as_ref(), Some(&target));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    watchers.agree(&target, 2).await;
    assert_eq!(writers.closed(), 0);

    watchers.down_after(DOWN_AFTER_MS).await;
    shard.set.nodes[1].kill();
    wait_until("the Sentinels replace the new master", async || {
        let masters = watchers.masters().await;
        let found = status(&proxy).await["master"].as_str().map(str::to_owned);
        masters
            .iter()
            .all(|one| *one != target && Some(one) == found.as_ref())
    })
    .await;
    writers.go_on().await;
    assert!(writers.closed() <= WRITERS as u64);
    writers.finish().await;
}

#[tokio::test]
async fn a_switchover_is_refused_beside_a_sentinel_that_the_config_does_not_name() {
    let shard = Shard::redis(1).await;
    let watchers = Watchers::over(&shard).await;
    let named = &watchers.addrs[..2];
    let settings = Settings {
        shard: format!("sentinels = {named:?}\nsentinel_master = {NAME:?}"),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;

    let report = switchover(&proxy, &shard.addr(1)).await;

    assert_eq!(report.outcome, "refused", "{report:?}");
    let reasons = report.reasons.join("\n");
    let stranger = format!("knows another one at {}", watchers.addrs[2]);
    assert!(reasons.contains(&stranger), "{reasons}");
    assert!(reasons.contains("a Sentinel watches"), "{reasons}");
    assert_eq!(watchers.masters().await, vec![shard.addr(0); 3]);
}

#[tokio::test]
async fn a_switchover_is_refused_while_a_sentinel_cannot_be_told() {
    let shard = Shard::redis(1).await;
    let mut watchers = Watchers::over(&shard).await;
    let proxy = shard.proxy_with(watchers.settings()).await;
    watchers.kill(2);

    let report = switchover(&proxy, &shard.addr(1)).await;

    assert_eq!(report.outcome, "refused", "{report:?}");
    let reasons = report.reasons.join("\n");
    assert!(reasons.contains(&watchers.addrs[2]), "{reasons}");
}
