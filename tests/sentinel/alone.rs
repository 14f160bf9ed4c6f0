//! No Sentinel watches the shard, and the proxy was told to replace a dead master by itself.

use std::time::Instant;

use pointsman::switchover::report::{Outcome, Report};
use pointsman::switchover::view::{Control, OperationView};

use crate::control::{Gate, Proxy as ControlPath, master as routed};
use crate::failover::{check_writers, metric};
use crate::servers::{self, Server, until};
use crate::support::*;
use crate::writers::Writers;

const ALONE: &str = "promote_on_failure = true\ndown_after_ms = 500\n";

fn alone() -> Settings {
    Settings {
        shard: ALONE.to_owned(),
        ..patient()
    }
}

/// The proxy's master, when it is another one than `old` and takes writes.
async fn another_than(old: &str, proxy: &Proxy) -> String {
    let mut found = String::new();
    wait_until("another master", async || {
        let status = status(proxy).await;
        found = status["master"].as_str().unwrap_or_default().to_owned();
        !found.is_empty() && found != old && status["gate"] == "open"
    })
    .await;
    found
}

/// The operation that runs.
async fn running(proxy: &Proxy) -> String {
    status(proxy).await["operation"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The last report of an operation, when nothing is left to do.
async fn last_report(proxy: &Proxy, id: &str) -> Report {
    wait_until("the operation is over", async || {
        status(proxy).await["operation"].is_null()
    })
    .await;
    let view: OperationView =
        serde_json::from_value(operation(proxy, id).await.json().unwrap()).unwrap();
    view.report.unwrap()
}

#[tokio::test]
async fn a_master_that_died_is_replaced_and_so_is_the_next() {
    let mut shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(alone()).await;
    let writers = Writers::start(&proxy).await;
    known(&proxy).await;
    shard.set.nodes[0].kill();
    let second = another_than(&shard.addr(0), &proxy).await;
    writers.go_on().await;
    // What waits for the first one is left, and the second is replaced as well.
    let at = shard
        .addrs()
        .iter()
        .position(|addr| *addr == second)
        .unwrap();
    let third = shard.addr(3 - at);
    wait_until("the third node follows the second", async || {
        let role = role(&mut shard.wire(3 - at).await).await.unwrap();
        matches!(role, Role::Replica { master, .. } if master == second)
    })
    .await;
    wait_until("the proxy has seen it", async || {
        let status = status(&proxy).await;
        status["nodes"][at]["role"] == "master" && status["nodes"][3 - at]["link"] == "up"
    })
    .await;
    // Of what a look has brought the proxy knows for sure when another one has begun behind it;
    // the first may have been under way for both.
    for _ in 0..3 {
        looked_at(&proxy, at).await;
    }
    shard.set.nodes[at].kill();
    assert_eq!(another_than(&second, &proxy).await, third);
    check_writers(writers, &proxy, 2).await;
}

/// The proxy has asked a node from now on.
async fn looked_at(proxy: &Proxy, node: usize) {
    let began = Instant::now();
    wait_until("the node has been looked at", async || {
        let since = began.elapsed().as_millis() as u64;
        let status = status(proxy).await;
        let ago = status["nodes"][node]["seen_ms_ago"].as_u64();
        ago.is_some_and(|ago| ago < since)
    })
    .await;
}

/// The proxy has seen how far the nodes that live are.
async fn known(proxy: &Proxy) {
    wait_until("the nodes have been looked at", async || {
        let status = status(proxy).await;
        let nodes = status["nodes"].as_array().unwrap();
        nodes
            .iter()
            .all(|node| node["error"].is_string() || node["offset"].as_u64() > Some(0))
    })
    .await;
}

#[tokio::test]
async fn an_old_master_that_comes_back_with_writes_of_its_own_is_fenced_and_keeps_them() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(alone()).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET before 1").await.unwrap().ok());
    shard.in_sync(&shard.addr(0)).await;
    known(&proxy).await;
    let mut direct = shard.wire(0).await;
    assert!(direct.run("PING").await.is_ok());
    shard.set.nodes[0].freeze().unwrap();
    // A client that bypasses the proxy writes; it will be answered when the node thaws.
    direct.send(&["SET", "tail", "1"]).await.unwrap();
    for replica in [1, 2] {
        let cut = shard
            .wire(replica)
            .await
            .run("CLIENT KILL TYPE master")
            .await;
        assert!(cut.is_ok());
    }
    another_than(&shard.addr(0), &proxy).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET after 1").await.unwrap().ok());
    let id = running(&proxy).await;
    shard.set.nodes[0].thaw().unwrap();
    assert!(direct.reply().await.unwrap().ok(), "it was a master");

    let report = last_report(&proxy, &id).await;

    assert_eq!(report.outcome, Outcome::SwitchedWithLeak, "{report:?}");
    assert!(report.writes_not_carried > 0, "{report:?}");
    assert!(
        report.reasons.join("\n").contains("out of reach"),
        "{report:?}"
    );
    assert!(metric(&proxy, "pointsman_writes_not_carried_total", "").await > 0);
    let refused = direct.run("SET tail 2").await.unwrap().text();
    assert!(refused.starts_with("READONLY"), "{refused}");
    assert_eq!(direct.run("GET tail").await.unwrap(), Value::bulk("1"));
    assert_eq!(wire.run("GET after").await.unwrap(), Value::bulk("1"));
    assert_eq!(wire.run("GET tail").await.unwrap(), Value::Null);
}

/// The master dies, a replica takes its place, and it follows when it has been started again.
async fn check_return(mut nodes: Vec<Server>) {
    let names: Vec<&str> = nodes.iter().map(|one| one.name.as_ref()).collect();
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = ControlPath::with(&names, ALONE, state_dir, Gate::default(), |_| {})
        .ready()
        .await;
    until("every node to have been looked at", async || {
        let status = proxy.shards.status("a").unwrap();
        status.nodes.iter().all(|node| node.offset > Some(0))
    })
    .await;
    nodes[0].signal("-KILL");
    until("the replica to be master", async || {
        routed(&proxy) == *nodes[1].name
    })
    .await;
    assert_eq!(nodes[1].ask(&["GET", "before"]).await.text(), Some("1"));
    nodes[0].restart().await;
    nodes[0].await_link(&nodes[1]).await;
    assert_eq!(nodes[0].ask(&["GET", "before"]).await.text(), Some("1"));
    until("the operation to be over", async || {
        proxy.shards.status("a").unwrap().operation.is_none()
    })
    .await;
}

#[tokio::test]
async fn an_old_master_that_comes_back_empty_follows_the_new_one() {
    check_return(servers::shard("redis-server", 1, &[]).await).await;
}

#[tokio::test]
async fn a_kvrocks_that_comes_back_with_what_the_new_master_has_follows_it() {
    let Some(binary) = servers::kvrocks() else {
        return;
    };
    check_return(servers::shard(&binary, 1, &[]).await).await;
}

#[tokio::test]
async fn nobody_is_promoted_by_a_proxy_that_was_not_told_to() {
    let mut shard = Shard::redis(1).await;
    let settings = Settings {
        proxy: "hold_budget_ms = 1500\n".to_owned(),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET before 1").await.unwrap().ok());
    known(&proxy).await;
    shard.set.nodes[0].kill();
    // Answered when the budget is over, which is longer than it takes a proxy that may.
    let mut wire = client(&proxy).await;
    let answer = wire.run("SET after 1").await.unwrap().text();
    assert!(answer.starts_with("TRYAGAIN"), "{answer}");
    let role = role(&mut shard.wire(1).await).await.unwrap();
    assert!(!matches!(role, Role::Master), "{role:?}");
}
