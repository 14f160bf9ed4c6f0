//! Operations that wait for a node which does not answer, while somebody else makes another master.

use std::time::Duration;

use pointsman::config::SwitchoverConfig;
use pointsman::switchover::journal::Begin;
use pointsman::switchover::report::{Outcome, Report, Resync};
use pointsman::switchover::view::{AbortAnswer, Control, NodeRole};
use pointsman::topology::facts::{Link, Role};

use super::proxy::{CUT_OFF, Gate, Proxy, after_crash, begun, master, recovered};
use super::relay::{Fate, Relay};
use super::servers::{Server, shard, until};
use super::{fence, promote, settled};

/// What stays away is not waited for before the report.
const QUICK: Duration = Duration::from_millis(100);

fn impatient(config: &mut SwitchoverConfig) {
    config.pause_timeout = Duration::from_millis(500);
    config.demote_timeout = QUICK;
}

/// A proxy that has begun a switchover to the second server; `silent` answers nothing from the hold
/// on.
async fn begun_beside(servers: &[Server], silent: &Server) -> (Proxy, String, Report) {
    let gate = Gate {
        stops: Some(silent.pid()),
        ..Gate::default()
    };
    let quick = |config: &mut SwitchoverConfig| config.demote_timeout = QUICK;
    let proxy = Proxy::start(servers, gate, quick).ready().await;
    known(&proxy).await;
    let to = servers[1].name.to_string();
    let ordered = proxy.shards.switchover("a".to_owned(), to, false).await;
    let id = ordered.unwrap();
    let report = proxy.shards.wait(id.clone()).await.unwrap();
    (proxy, id, report)
}

/// The proxy has seen how far every node is.
async fn known(proxy: &Proxy) {
    until("every node to have been looked at", async || {
        let status = proxy.shards.status("a").unwrap();
        status.nodes.iter().all(|node| node.offset > Some(0))
    })
    .await;
}

async fn over(proxy: &Proxy) {
    until("the operation to be over", async || {
        proxy.shards.status("a").unwrap().operation.is_none()
    })
    .await;
}

/// It was reported with something left to do, and has ended since, saying why.
async fn left(proxy: &Proxy, id: &str, report: &Report, why: &str) {
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    let mut resyncs = report.replicas.iter().map(|one| one.resync);
    assert!(resyncs.any(|one| one == Resync::Pending), "{report:?}");
    over(proxy).await;
    let last = proxy.shards.operation(id).unwrap().report.unwrap();
    assert_eq!(last.outcome, Outcome::Switched, "{last:?}");
    assert!(last.reasons.iter().any(|one| one.contains(why)), "{last:?}");
}

#[tokio::test]
async fn a_master_made_while_a_replica_stays_away_is_followed() {
    let servers = shard("redis-server", 3, &[]).await;
    let (proxy, id, report) = begun_beside(&servers, &servers[3]).await;
    assert_eq!(master(&proxy), *servers[1].name);
    // An operator, who knows nothing of what is still to be done.
    promote(&servers[2]).await;
    servers[1].follow(&servers[2]).await;
    until("the route to follow", async || {
        master(&proxy) == *servers[2].name
    })
    .await;
    left(&proxy, &id, &report, "somebody else").await;
    servers[3].signal("-CONT");
}

#[tokio::test]
async fn what_waits_for_a_replica_is_given_up_by_order() {
    let servers = shard("redis-server", 2, &[]).await;
    let (proxy, id, report) = begun_beside(&servers, &servers[2]).await;
    assert_eq!(proxy.shards.abort(&id), AbortAnswer::Leaving);
    left(&proxy, &id, &report, "given up").await;
    assert_eq!(proxy.shards.abort(&id), AbortAnswer::Ended);
    assert_eq!(master(&proxy), *servers[1].name);
    assert!(servers[1].is_master().await);
    // The next start has nothing to do either.
    let state_dir = proxy.state_dir;
    proxy.shards.stop().await;
    let journal = std::fs::read_to_string(state_dir.path().join("pointsman-a.journal")).unwrap();
    assert!(
        journal.lines().last().unwrap().contains("\"end\""),
        "{journal}"
    );
    servers[2].signal("-CONT");
}

#[tokio::test]
async fn a_fence_that_may_stand_is_left_when_somebody_has_promoted_the_target() {
    let servers = shard("redis-server", 1, &[]).await;
    // The fence stands, and the node that would say so falls silent.
    let relay = Relay::start(&servers[0].name, Fate::Frozen(servers[0].pid())).await;
    let port = relay.name.rsplit_once(':').unwrap().1.parse().unwrap();
    fence(&servers[1], port).await;
    until("the target to follow through the relay", async || {
        let role = servers[1].facts().await.role;
        matches!(role, Role::Replica { port: of, link: Link::Up, .. } if of == port)
    })
    .await;
    let nodes = [relay.name.as_str(), servers[1].name.as_ref()];
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(&nodes, state_dir, Gate::default(), impatient)
        .ready()
        .await;
    known(&proxy).await;
    let to = servers[1].name.to_string();
    let ordered = proxy.shards.switchover("a".to_owned(), to, false).await;
    let report = proxy.shards.wait(ordered.unwrap()).await.unwrap();
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert_eq!(master(&proxy), relay.name);
    promote(&servers[1]).await;
    until("the route to follow", async || {
        master(&proxy) == *servers[1].name
    })
    .await;
    over(&proxy).await;
    // Nobody lifts the fence beside another master.
    servers[0].signal("-CONT");
    until("both nodes to have been looked at", async || {
        let status = proxy.shards.status("a").unwrap();
        let roles: Vec<NodeRole> = status.nodes.iter().map(|node| node.role).collect();
        roles == [NodeRole::Replica, NodeRole::Master]
    })
    .await;
    assert!(servers[1].is_master().await && !servers[0].is_master().await);
}

#[tokio::test]
async fn after_a_crash_a_third_master_is_followed_if_it_has_the_data() {
    let servers = shard("redis-server", 2, &[]).await;
    let target_offset = servers[1].facts().await.offset.unwrap();
    fence(&servers[0], 1).await;
    let begin = Begin {
        target_offset,
        ..begun(&servers)
    };
    servers[0].signal("-STOP");
    servers[1].signal("-STOP");
    promote(&servers[2]).await;
    let proxy = after_crash(&servers, &begin).ready().await;
    assert_eq!(master(&proxy), *servers[2].name);
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::Unknown, "{report:?}");
    assert!(
        report
            .reasons
            .iter()
            .any(|one| one.contains("somebody else")),
        "{report:?}"
    );
    servers[0].signal("-CONT");
    servers[1].signal("-CONT");
}

#[tokio::test]
async fn after_a_crash_a_third_master_without_the_data_is_not_followed() {
    let mut servers = shard("redis-server", 2, &[]).await;
    let target_offset = servers[1].facts().await.offset.unwrap();
    fence(&servers[0], 1).await;
    servers[2].restart().await;
    servers[0].signal("-STOP");
    servers[1].signal("-STOP");
    let begin = Begin {
        target_offset,
        ..begun(&servers)
    };
    let proxy = after_crash(&servers, &begin);
    until("every node to have been asked", async || {
        let status = proxy.shards.status("a").unwrap();
        let silent = status.nodes.iter().filter(|node| node.error.is_some());
        silent.count() == 2 && status.nodes[2].role == NodeRole::Master
    })
    .await;
    assert_eq!(master(&proxy), "");
    servers[0].signal("-CONT");
    servers[1].signal("-CONT");
    // It was not left: the two nodes decide, when they answer.
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert_eq!(master(&proxy), *servers[0].name);
}

#[tokio::test]
async fn after_a_crash_an_operator_can_take_over() {
    let servers = shard("redis-server", 1, &[]).await;
    promote(&servers[1]).await;
    let proxy = after_crash(&servers, &begun(&servers));
    // Two masters: nobody is, until one remains or somebody says that the proxy need not know.
    settled(&servers[1]).await;
    assert_eq!(proxy.shards.abort(CUT_OFF), AbortAnswer::Leaving);
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::Unknown, "{report:?}");
    assert!(
        report.reasons.iter().any(|one| one.contains("given up")),
        "{report:?}"
    );
    over(&proxy).await;
    assert_eq!(master(&proxy), "");
    servers[0].follow(&servers[1]).await;
    until("the route to follow", async || {
        master(&proxy) == *servers[1].name
    })
    .await;
}
