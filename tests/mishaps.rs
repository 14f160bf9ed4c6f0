//! What may go wrong around the promotion, against real servers: lost replies, nodes that restart,
//! writes that leak, writes that are given up.

#[path = "nodes/proxy.rs"]
mod proxy;
#[path = "nodes/relay.rs"]
mod relay;
#[path = "nodes/servers.rs"]
mod servers;
#[path = "nodes/superseded.rs"]
mod superseded;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use pointsman::config::SwitchoverConfig;
use pointsman::switchover::journal::Begin;
use pointsman::switchover::plan::Dialect;
use pointsman::switchover::report::{Outcome, Report, Resync};
use pointsman::switchover::view::{Control, NodeRole};
use pointsman::topology::facts::{Life, Link, Role};
use proxy::{CUT_OFF, Gate, Proxy, after_crash, begun, master, recovered};
use relay::{Fate, Relay};
use servers::{Server, kvrocks, shard, until};
use tokio::sync::Notify;

async fn fence(server: &Server, port: u16) {
    let port = port.to_string();
    assert!(server.ask(&["SLAVEOF", "127.0.0.1", &port]).await.is_ok());
}

async fn promote(server: &Server) {
    assert!(server.ask(&["SLAVEOF", "NO", "ONE"]).await.is_ok());
}

/// Waits until the recovery has asked `server` a whole round of questions.
async fn settled(server: &Server) {
    until("the recovery to ask", async || {
        let calls = server.ask(&["INFO", "commandstats"]).await;
        calls
            .text()
            .is_some_and(|text| text.contains("cmdstat_client|list"))
    })
    .await;
}

#[tokio::test]
async fn a_promotion_whose_reply_is_lost_is_found_to_have_happened() {
    let servers = shard("redis-server", 1, &[]).await;
    let relay = Relay::start(&servers[1].name, Fate::Swallowed).await;
    let nodes = [servers[0].name.as_ref(), relay.name.as_str()];
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(&nodes, state_dir, Gate::default(), |_| {})
        .ready()
        .await;
    let report = proxy.order_to(&relay.name, false).await;
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    assert_eq!(report.writes_not_carried, 0);
    assert_eq!(
        proxy.log(),
        ["open", "hold", "open"],
        "held until it was known"
    );
    assert_eq!(master(&proxy), relay.name);
    assert!(servers[1].is_master().await && !servers[0].is_master().await);
}

/// A switchover in which `mishap` befalls the old master while the target has been promoted and
/// the proxy does not know yet.
async fn check_promoted(servers: &mut [Server], mishap: impl AsyncFnOnce(&mut [Server])) -> Report {
    let (come, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let relay = Relay::start(&servers[1].name, Fate::Parked(come.clone(), go.clone())).await;
    let nodes = [servers[0].name.as_ref(), relay.name.as_str()];
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(&nodes, state_dir, Gate::default(), |_| {})
        .ready()
        .await;
    let ordered = proxy.order_to(&relay.name, false);
    tokio::pin!(ordered);
    tokio::select! {
        report = &mut ordered => panic!("it came to no promotion: {report:?}"),
        () = come.notified() => {}
    }
    let (report, ()) = tokio::join!(ordered, async {
        mishap(servers).await;
        go.notify_one();
    });
    assert_eq!(master(&proxy), relay.name);
    assert!(servers[1].is_master().await);
    let old = servers[0].facts().await.role;
    assert_ne!(old, Role::Master, "never two masters");
    report
}

/// Somebody lifts the fence by hand, writes, and puts it back.
async fn check_leak(servers: &mut [Server]) {
    let report = check_promoted(servers, async |servers| {
        let Role::Replica { host, port, .. } = servers[0].facts().await.role else {
            panic!("no fence");
        };
        promote(&servers[0]).await;
        assert!(servers[0].ask(&["SET", "leaked", "1"]).await.is_ok());
        let port = port.to_string();
        assert!(servers[0].ask(&["SLAVEOF", &host, &port]).await.is_ok());
    })
    .await;
    assert_eq!(report.outcome, Outcome::SwitchedWithLeak, "{report:?}");
    assert!(report.writes_not_carried > 0, "{report:?}");
    assert_eq!(report.replicas[0].resync, Resync::Failed);
    let leaked = servers[0].ask(&["GET", "leaked"]).await;
    assert_eq!(leaked.text(), Some("1"), "it is still there");
}

#[tokio::test]
async fn writes_that_leak_past_the_fence_are_counted_and_their_node_is_kept_apart() {
    check_leak(&mut shard("redis-server", 1, &[]).await).await;
}

#[tokio::test]
async fn an_old_master_that_restarts_as_master_is_fenced_and_kept_apart() {
    let mut servers = shard("redis-server", 1, &[]).await;
    let report = check_promoted(&mut servers, async |servers| servers[0].restart().await).await;
    assert_eq!(report.outcome, Outcome::SwitchedWithLeak, "{report:?}");
    assert_eq!(servers[1].ask(&["GET", "before"]).await.text(), Some("1"));
}

#[tokio::test]
async fn an_old_master_that_somebody_else_took_over_is_left_alone() {
    let mut servers = shard("redis-server", 1, &[]).await;
    let stranger = Server::redis(&[]).await;
    let port = stranger.port;
    let report = check_promoted(&mut servers, async |servers| fence(&servers[0], port).await).await;
    assert_eq!(report.outcome, Outcome::SwitchedWithLeak, "{report:?}");
    let role = servers[0].facts().await.role;
    assert!(
        matches!(role, Role::Replica { port: of, .. } if of == port),
        "{role:?}"
    );
}

/// A look at the nodes that began before the switchover and ends after it shows the old master as
/// master and the target as its replica.
#[tokio::test]
async fn what_the_nodes_said_before_a_switchover_does_not_move_the_route_after_it() {
    let servers = shard("redis-server", 1, &[]).await;
    let (armed, come, go) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
    );
    let late = Fate::Late(armed.clone(), come.clone(), go.clone());
    let relay = Relay::start(&servers[0].name, late).await;
    let port: u16 = relay.name.rsplit(':').next().unwrap().parse().unwrap();
    fence(&servers[1], port).await;
    until("the target to follow by that name", async || {
        let role = servers[1].facts().await.role;
        matches!(role, Role::Replica { port: of, link: Link::Up, .. } if of == port)
    })
    .await;
    let nodes = [relay.name.as_str(), servers[1].name.as_ref()];
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(&nodes, state_dir, Gate::default(), |_| {})
        .ready()
        .await;
    armed.store(true, Relaxed);
    come.notified().await;
    let report = proxy.order_to(&servers[1].name, false).await;
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    let epoch = proxy.shards.status("a").unwrap().epoch;
    go.notify_one();
    until("the watch to see both in their new roles", async || {
        let status = proxy.shards.status("a").unwrap();
        let roles: Vec<NodeRole> = status.nodes.iter().map(|node| node.role).collect();
        roles == [NodeRole::Replica, NodeRole::Master]
    })
    .await;
    assert_eq!(proxy.shards.status("a").unwrap().epoch, epoch);
    assert_eq!(master(&proxy), *servers[1].name);
}

#[tokio::test]
async fn a_target_that_restarted_without_its_data_never_counts_as_promoted() {
    let mut servers = shard("redis-server", 1, &[]).await;
    fence(&servers[0], 1).await;
    let target_offset = servers[1].facts().await.offset.unwrap();
    assert!(target_offset > 0);
    servers[1].restart().await;
    let begin = Begin {
        target_offset,
        ..begun(&servers)
    };
    let proxy = after_crash(&servers, &begin);
    settled(&servers[1]).await;
    let id = CUT_OFF;
    assert_eq!(proxy.shards.operation(id).unwrap().phase, "recover");
    assert_eq!(proxy.shards.status("a").unwrap().gate, "shut");
    // What an operator does when told.
    fence(&servers[1], servers[0].port).await;
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert_eq!(master(&proxy), *servers[0].name);
    assert_eq!(servers[0].ask(&["GET", "before"]).await.text(), Some("1"));
    servers[1].await_link(&servers[0]).await;
}

#[tokio::test]
async fn two_masters_are_told_apart_when_the_old_one_forgot_its_fence_in_a_restart() {
    let servers = shard("redis-server", 1, &[]).await;
    promote(&servers[1]).await;
    let life = Life {
        run_id: Some("of an earlier run".to_owned()),
        ..Life::default()
    };
    let begin = Begin {
        old_life: Some(life),
        ..begun(&servers)
    };
    let proxy = after_crash(&servers, &begin).ready().await;
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    assert_eq!(master(&proxy), *servers[1].name);
    servers[0].await_link(&servers[1]).await;
}

#[tokio::test]
async fn what_the_target_lacks_when_it_is_forced_is_counted_and_kept() {
    let servers = shard("redis-server", 1, &[]).await;
    assert!(
        servers[1]
            .ask(&["CLIENT", "PAUSE", "60000", "WRITE"])
            .await
            .is_ok()
    );
    assert!(servers[0].ask(&["SET", "given-up", "1"]).await.is_ok());
    let force = |config: &mut SwitchoverConfig| {
        config.force_on_timeout = true;
        config.sync_timeout = Duration::from_millis(100);
    };
    let proxy = Proxy::start(&servers, Gate::default(), force).ready().await;
    let report = proxy.switchover(&servers[1]).await;
    assert_eq!(report.outcome, Outcome::SwitchedWithLeak, "{report:?}");
    assert!(report.writes_not_carried > 0, "{report:?}");
    assert_eq!(master(&proxy), *servers[1].name);
    assert!(servers[1].is_master().await && !servers[0].is_master().await);
    assert_eq!(servers[0].ask(&["GET", "given-up"]).await.text(), Some("1"));
}

#[tokio::test]
async fn roles_are_written_to_the_nodes_own_config_files_where_wanted() {
    let servers = shard("redis-server", 2, &[]).await;
    for replica in &servers[1..] {
        assert!(replica.ask(&["CONFIG", "REWRITE"]).await.is_ok());
    }
    let rewrite = |config: &mut SwitchoverConfig| config.config_rewrite = true;
    let proxy = Proxy::start(&servers, Gate::default(), rewrite)
        .ready()
        .await;
    let report = proxy.switchover(&servers[1]).await;
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    let line = format!("replicaof 127.0.0.1 {}", servers[1].port);
    for node in [&servers[0], &servers[2]] {
        assert!(node.config_file().contains(&line), "{}", node.config_file());
    }
    assert!(!servers[1].config_file().contains("replicaof"));
}

/// A Kvrocks shard in the middle of an operation whose proxy died.
fn begun_on_kvrocks(servers: &[Server], sink_port: u16) -> Begin {
    let mut begin = begun(servers);
    begin.engine = "kvrocks".to_owned();
    begin.role_command = "SLAVEOF".to_owned();
    begin.sink_port = sink_port;
    begin.facts.dialect = Dialect::Kvrocks;
    begin.facts.knows_pause = false;
    begin
}

#[tokio::test]
async fn a_kvrocks_operation_that_a_crash_cut_off_is_undone_or_finished_by_the_roles() {
    let Some(binary) = kvrocks() else { return };
    for promoted in [false, true] {
        let servers = shard(&binary, 2, &[]).await;
        // A sink that was there and died with the proxy.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sink_port = listener.local_addr().unwrap().port();
        drop(listener);
        fence(&servers[0], sink_port).await;
        if promoted {
            promote(&servers[1]).await;
        }
        let proxy = after_crash(&servers, &begun_on_kvrocks(&servers, sink_port))
            .ready()
            .await;
        let report = recovered(&proxy).await;
        let (expected, leads, follows) = match promoted {
            false => (Outcome::RolledBack, 0, 1),
            true => (Outcome::Switched, 1, 0),
        };
        assert_eq!(report.outcome, expected, "{report:?}");
        assert_eq!(master(&proxy), *servers[leads].name);
        assert!(servers[leads].ask(&["SET", "k", "v"]).await.is_ok());
        servers[follows].await_link(&servers[leads]).await;
        servers[2].await_link(&servers[leads]).await;
    }
}

#[tokio::test]
async fn a_kvrocks_master_is_fenced_at_the_address_that_the_config_names() {
    let Some(binary) = kvrocks() else { return };
    let servers = shard(&binary, 1, &[]).await;
    let named = |config: &mut SwitchoverConfig| config.fence_address = Some("127.0.0.1".to_owned());
    let proxy = Proxy::start(&servers, Gate::default(), named).ready().await;
    for (from, to) in [(0, 1), (1, 0)] {
        let report = proxy.switchover(&servers[to]).await;
        assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
        servers[from].await_link(&servers[to]).await;
    }
}

#[tokio::test]
async fn writes_that_leak_past_a_kvrocks_fence_are_counted_and_their_node_is_kept_apart() {
    let Some(binary) = kvrocks() else { return };
    check_leak(&mut shard(&binary, 1, &[]).await).await;
}

#[tokio::test]
async fn an_old_master_that_stays_away_does_not_keep_the_proxy_from_ending() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stops: Some(servers[0].pid()),
        ..Gate::default()
    };
    let short = |config: &mut SwitchoverConfig| {
        config.pause_timeout = Duration::from_millis(300);
        config.demote_timeout = Duration::from_millis(100);
    };
    let proxy = Proxy::start(&servers, gate, short).ready().await;
    let to = servers[1].name.to_string();
    let id = proxy
        .shards
        .switchover("a".to_owned(), to, false)
        .await
        .unwrap();
    let report = proxy.shards.wait(id).await.unwrap();
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert_eq!(proxy.shards.status("a").unwrap().gate, "open");
    let stopped = tokio::time::timeout(servers::LONG, proxy.shards.stop()).await;
    servers[0].signal("-CONT");
    assert!(
        stopped.is_ok(),
        "it waits for a node that does not come back"
    );
}
