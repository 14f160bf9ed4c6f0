//! Two proxies in front of the same nodes: what one of them does, and what neither does.

use std::path::Path;
use std::sync::Arc;

use crate::by_hand::{change_by_hand, followed};
use crate::crowd::{Crowd, Kinds};
use crate::support::*;

/// A second proxy of a shard; its journal is its own.
struct Other {
    proxy: Proxy,
    _workspace: Arc<Workspace>,
}

impl Other {
    async fn of(shard: &Shard, settings: Settings) -> Other {
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
