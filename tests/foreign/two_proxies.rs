//! Two proxies in front of the same nodes: what one of them does, and what neither does.

use std::path::Path;
use std::sync::Arc;

use crate::by_hand::{change_by_hand, followed};
use crate::crowd::{Crowd, Kinds};
use crate::support::*;

/// A second proxy of a shard; its journal is its own.
pub struct Other {
    pub proxy: Proxy,
    _workspace: Arc<Workspace>,
}

impl Other {
    pub async fn of(shard: &Shard, settings: Settings) -> Other {
        let workspace = Workspace::create("pointsman-test").expect("a temporary directory");
        let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
        let started = Proxy::start(binary, &workspace, &shard.addrs(), &settings).await;
        Other {
            proxy: started.unwrap_or_else(|error| panic!("{error:#}")),
            _workspace: workspace,
        }
    }
}

#[tokio::test]
async fn two_proxies_follow_the_same_hand() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy().await;
    let other = Other::of(&shard, Settings::default()).await;
    let crowd = Crowd::start(&[&one, &other.proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_hand(&shard, from, to).await;
        followed(&one, &shard.addr(to)).await;
        followed(&other.proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

#[tokio::test]
async fn a_switchover_of_another_proxy_is_not_noticed_by_clients() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(&shard, patient()).await;
    let crowd = Crowd::start(&[&one, &other.proxy], Kinds::All).await;
    for to in [1, 2, 0] {
        let driver = if to == 2 { &other.proxy } else { &one };
        let report = switchover(driver, &shard.addr(to)).await;
        assert_eq!(report.outcome, "switched", "{report:?}");
        followed(&one, &shard.addr(to)).await;
        followed(&other.proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

// Both would have fenced the same master, and promoted one target each.
#[tokio::test]
async fn of_two_orders_at_once_one_is_carried_out_and_the_other_told_of_it() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(&shard, patient()).await;
    let crowd = Crowd::start(&[&one, &other.proxy], Kinds::All).await;
    for _ in 0..5 {
        let from = shard.master().await.expect("one master");
        let others: Vec<String> = shard
            .addrs()
            .into_iter()
            .filter(|node| *node != from)
            .collect();
        let reports = tokio::join!(
            switchover(&one, &others[0]),
            switchover(&other.proxy, &others[1])
        );
        let reports = [reports.0, reports.1];
        // One that was ordered when the other had ended is an order of its own.
        let switched = reports
            .iter()
            .filter(|report| report.outcome == "switched")
            .count();
        assert!(
            switched == 1 || reports[0].from != reports[1].from,
            "{reports:?}"
        );
        for refused in reports.iter().filter(|report| report.outcome != "switched") {
            assert_eq!(refused.outcome, "refused", "{refused:?}");
        }
        let told = |report: &Report| {
            report
                .reasons
                .iter()
                .any(|why| why.contains("another proxy"))
        };
        assert!(switched == 2 || reports.iter().any(told), "{reports:?}");
        wait_until("there is one master", async || {
            shard.master().await.is_some()
        })
        .await;
        let master = shard.master().await.expect("one master");
        shard.in_sync(&master).await;
        followed(&one, &master).await;
        followed(&other.proxy, &master).await;
        crowd.go_on().await;
    }
    let master = shard.master().await.expect("one master");
    crowd.finish(&master).await;
}
