//! Every order to a node, against real servers.

#[path = "nodes/servers.rs"]
mod servers;

use std::time::Duration;

use pointsman::cli::demo::port::Port;
use pointsman::config::Secret;
use pointsman::resp::reply::Value;
use pointsman::switchover::attach::{Tail, compare_tails};
use pointsman::switchover::orders::{
    Change, Orders, Reading, SinkAddress, own_offset, read_target,
};
use pointsman::switchover::preflight::{Question, preflight};
use pointsman::switchover::resolve::settle;
use pointsman::switchover::sink::Sink;
use pointsman::topology::facts::Role;
use pointsman::topology::node::{Connection, Credentials, Engine, NodeError};
use servers::{STEP, Server, kvrocks, say_skipped, shard, until};

async fn orders(server: &Server) -> Orders {
    let facts = server.facts().await;
    let mut connection = server.connect().await;
    Orders::probe(&mut connection, facts.engine, facts.version, STEP)
        .await
        .unwrap()
}

fn question(servers: &[Server], to: usize) -> Question {
    Question {
        nodes: servers.iter().map(|server| server.name.clone()).collect(),
        credentials: Credentials::default(),
        name: "pointsman-test".to_owned(),
        from: servers[0].name.clone(),
        to: servers[to].name.clone(),
        max_lag: 1 << 20,
        within: STEP,
        sentinels: None,
    }
}

/// The reasons of a preflight that must fail.
async fn refusals(servers: &[Server], to: usize) -> Vec<String> {
    preflight(&question(servers, to))
        .await
        .err()
        .expect("preflight passed")
}

async fn check_refused(servers: &[Server], to: usize, reason: &str) {
    let reasons = refusals(servers, to).await;
    assert!(
        reasons.iter().any(|one| one.contains(reason)),
        "{reason:?} is not in {reasons:?}"
    );
}

#[tokio::test]
async fn redis_knows_pause_and_replicaof() {
    let server = Server::redis(&[]).await;
    let orders = orders(&server).await;
    assert_eq!(orders.engine, Engine::Redis);
    assert_eq!(orders.abilities.role_command, "REPLICAOF");
    assert!(orders.abilities.pause && orders.abilities.feeds_behind_fence);
}

#[tokio::test]
async fn a_fenced_master_refuses_writes_and_stands_at_the_offset_its_replica_reaches() {
    let servers = shard("redis-server", 1, &[]).await;
    let orders = orders(&servers[0]).await;
    let mut old = servers[0].connect().await;
    let mut target = servers[1].connect().await;
    old.call(&["SET", "k", "v"], STEP).await.unwrap();
    let sink = SinkAddress::closed_port("test");
    let pause = Some(Duration::from_secs(30));
    let Change::Done(fenced_at) = orders.fence(&mut old, &sink, pause, STEP).await else {
        panic!("no fence");
    };
    let refused = servers[0].ask(&["SET", "k", "w"]).await;
    assert!(
        refused.error().unwrap().starts_with("READONLY"),
        "the pause has ended: {refused:?}"
    );
    until("the target to reach F", async || {
        matches!(read_target(&mut target, STEP).await.unwrap(),
            Reading::Following { offset: Some(offset), connected: true, .. } if offset == fenced_at)
    })
    .await;
    assert_eq!(own_offset(&mut old, STEP).await.unwrap(), fenced_at);

    assert!(
        matches!(orders.promote(&mut target, STEP).await, Change::Done(offset)
        if offset == fenced_at)
    );
    orders
        .attach(&mut old, &servers[1].name, STEP)
        .await
        .unwrap();
    servers[0].await_link(&servers[1]).await;
    let syncs = servers[1].facts().await.syncs;
    assert_eq!(
        (syncs.full, syncs.partial),
        (0, 1),
        "a partial resynchronisation"
    );
}

#[tokio::test]
async fn a_fence_can_be_taken_down_again() {
    let servers = shard("redis-server", 1, &[]).await;
    let orders = orders(&servers[0]).await;
    let mut old = servers[0].connect().await;
    let sink = SinkAddress::closed_port("test");
    let fenced = orders.fence(&mut old, &sink, None, STEP).await;
    assert!(matches!(fenced, Change::Done(_)), "{fenced:?}");
    let again = orders.fence(&mut old, &sink, None, STEP).await;
    assert!(
        matches!(again, Change::Unclear(_)),
        "already there is no new fence: {again:?}"
    );
    assert!(matches!(
        orders.unfence(&mut old, STEP).await,
        Change::Done(_)
    ));
    assert!(servers[0].ask(&["SET", "k", "v"]).await.is_ok());
    servers[1].await_link(&servers[0]).await;
}

#[tokio::test]
async fn a_user_without_the_right_to_fence_is_told_and_nothing_happens() {
    let servers = shard("redis-server", 1, &[]).await;
    let grant = [
        "ACL",
        "SETUSER",
        "op",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-replicaof",
        "-slaveof",
    ];
    for server in &servers {
        assert!(server.ask(&grant).await.is_ok());
    }
    let mut question = question(&servers, 1);
    let (username, password) = (Some("op".to_owned()), Some(Secret::new("pw")));
    question.credentials = Credentials::new(username, password);
    let reasons = preflight(&question).await.err().unwrap();
    assert!(
        reasons.iter().any(|one| one.contains("replicaof")),
        "{reasons:?}"
    );

    let orders = orders(&servers[0]).await;
    let node = &servers[0].name;
    let mut old = Connection::open(node, &question.credentials, "test", STEP)
        .await
        .unwrap();
    let fence = orders
        .fence(&mut old, &SinkAddress::closed_port("test"), None, STEP)
        .await;
    assert!(matches!(fence, Change::NotDone(_)), "{fence:?}");
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn a_target_that_catches_up_while_it_is_looked_at_is_not_refused() {
    let servers = shard("redis-server", 1, &[]).await;
    let (old, target) = (&servers[0], &servers[1]);
    assert!(
        target
            .ask(&["CLIENT", "PAUSE", "20000", "WRITE"])
            .await
            .is_ok()
    );
    assert!(old.ask(&["SET", "k", &"x".repeat(2 << 20)]).await.is_ok());
    check_refused(&servers, 1, "more than max_lag").await;

    let question = Question {
        name: "pointsman-again".to_owned(),
        ..question(&servers, 1)
    };
    let goes_on = async {
        until("the target has told how far it is", async || {
            let list = target.ask(&["CLIENT", "LIST"]).await;
            let mut lines = list.text().unwrap().lines();
            lines.any(|line| line.contains("name=pointsman-again") && line.contains("cmd=role"))
        })
        .await;
        assert!(target.ask(&["CLIENT", "UNPAUSE"]).await.is_ok());
    };
    let (passed, ()) = tokio::join!(preflight(&question), goes_on);
    assert_eq!(passed.err(), None);
}

#[tokio::test]
async fn wrong_credentials_are_an_error_that_executed_nothing() {
    let server = Server::redis(&["--requirepass", "right"]).await;
    for password in [None, Some(Secret::new("wrong"))] {
        let credentials = Credentials::new(None, password);
        let opened = Connection::open(&server.name, &credentials, "test", STEP).await;
        let error = opened.err().expect("let in");
        assert!(matches!(error, NodeError::Credentials { .. }), "{error}");
        assert!(!error.may_have_executed());
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_node_is_lost_within_the_deadline_and_its_connection_given_up() {
    let server = Server::redis(&[]).await;
    let mut connection = server.connect().await;
    server.signal("-STOP");
    let error = connection
        .call(&["PING"], Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(error, NodeError::Deadline { sent: true, .. }),
        "{error}"
    );
    assert!(error.may_have_executed());
    server.signal("-CONT");
    let error = connection.call(&["PING"], STEP).await.unwrap_err();
    assert!(!error.may_have_executed(), "nothing was sent: {error}");
}

#[tokio::test]
async fn an_order_without_an_answer_is_settled_on_a_fresh_connection() {
    let servers = shard("redis-server", 1, &[]).await;
    let mut lost = servers[1].connect_as("pointsman-op").await;
    servers[1].signal("-STOP");
    let error = lost
        .call(&["PING"], Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(error.may_have_executed());
    servers[1].signal("-CONT");
    let bystander = servers[1].connect_as("somebody").await;
    let mut fresh = servers[1].connect_as("pointsman-op").await;
    let info = settle(&mut fresh, STEP).await.unwrap();
    assert!(matches!(Role::of(&info), Some(Role::Replica { .. })));
    let list = servers[1].ask(&["CLIENT", "LIST"]).await;
    let list = list.text().unwrap();
    assert_eq!(
        list.matches("name=pointsman-op ").count(),
        1,
        "only the fresh one lives"
    );
    assert_eq!(list.matches("name=somebody ").count(), 1);
    drop((lost, bystander));
}

#[tokio::test]
async fn preflight_passes_on_a_healthy_shard_and_changes_nothing() {
    let servers = shard("redis-server", 2, &[]).await;
    let passed = preflight(&question(&servers, 1))
        .await
        .map_err(|why| panic!("{why:?}"))
        .unwrap();
    assert_eq!(passed.others.len(), 1);
    assert!(passed.facts.knows_pause);
    assert_eq!(passed.replica_read_only, "yes");
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn preflight_refuses_a_node_that_is_unknown_or_master_already() {
    let servers = shard("redis-server", 1, &[]).await;
    check_refused(&servers, 0, "is the master already").await;
    let stranger = Server::redis(&[]).await;
    let unknown = Question {
        to: stranger.name.clone(),
        ..question(&servers, 1)
    };
    let reasons = preflight(&unknown).await.err().unwrap();
    assert!(
        reasons[0].contains("is no node of this shard"),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn preflight_names_every_requirement_that_fails() {
    let servers = shard("redis-server", 2, &[]).await;
    servers[1].ask(&["CONFIG", "SET", "maxclients", "33"]).await;
    servers[1]
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    servers[0]
        .ask(&["CONFIG", "SET", "replica-read-only", "no"])
        .await;
    servers[2]
        .ask(&["CONFIG", "SET", "replica-serve-stale-data", "no"])
        .await;
    let reasons = refusals(&servers, 1).await;
    for reason in [
        "maxclients",
        "min-replicas-to-write",
        "replica-read-only",
        "serve-stale-data",
    ] {
        assert!(
            reasons.iter().any(|one| one.contains(reason)),
            "{reason} is not in {reasons:?}"
        );
    }
}

#[tokio::test]
async fn preflight_refuses_a_target_whose_password_the_old_master_does_not_know() {
    let servers = shard("redis-server", 1, &[]).await;
    let mut target = servers[1].connect().await;
    target
        .call(&["CONFIG", "SET", "requirepass", "secret"], STEP)
        .await
        .unwrap();
    servers[0]
        .ask(&["CONFIG", "SET", "requirepass", "secret"])
        .await;
    let mut question = question(&servers, 1);
    question.credentials = Credentials::new(None, Some(Secret::new("secret")));
    let reasons = preflight(&question).await.err().unwrap();
    assert!(
        reasons.iter().any(|one| one.contains("masterauth")),
        "{reasons:?}"
    );
    assert!(
        !reasons.iter().any(|one| one.contains("secret")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn preflight_refuses_roles_that_are_not_as_the_route_says() {
    let servers = shard("redis-server", 2, &[]).await;
    servers[2].ask(&["REPLICAOF", "NO", "ONE"]).await;
    check_refused(&servers, 1, "says that it is a master too").await;
    check_refused(&servers, 2, "is a master already").await;
    servers[2].ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    check_refused(&servers, 2, "follows 127.0.0.1:1").await;
    check_refused(&servers, 2, "is down").await;
}

#[tokio::test]
async fn preflight_refuses_a_node_that_is_out_of_reach() {
    let mut servers = shard("redis-server", 2, &[]).await;
    let gone = servers.pop().unwrap();
    let mut question = question(&servers, 1);
    question.nodes.push(gone.name.clone());
    drop(gone);
    let reasons = preflight(&question).await.err().unwrap();
    assert!(
        reasons.iter().any(|one| one.contains("cannot be reached")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn preflight_refuses_another_history_and_other_databases() {
    let servers = vec![
        Server::redis(&[]).await,
        Server::redis(&["--databases", "4"]).await,
    ];
    servers[1].follow(&servers[0]).await;
    check_refused(&servers, 1, "databases is 4").await;
}

#[tokio::test]
async fn preflight_refuses_a_shard_that_a_sentinel_watches() {
    let servers = shard("redis-server", 1, &[]).await;
    let sentinel = servers[0].connect_as("sentinel-0123abcd-cmd").await;
    check_refused(&servers, 1, "a Sentinel watches").await;
    drop(sentinel);
}

/// Killed when it goes out of scope.
struct Sentinel {
    child: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn preflight_finds_a_real_sentinel() {
    let servers = shard("redis-server", 1, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("sentinel.conf");
    // Its own port is of no use to anybody here; 0 would make it refuse to start.
    let port = Port::reserve().unwrap();
    let text = format!(
        "port {port}\ndir {}\nsentinel monitor main 127.0.0.1 {} 2\n",
        directory.path().display(),
        servers[0].port
    );
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new("redis-sentinel");
    let command = command.arg(&config).stdout(std::process::Stdio::null());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return say_skipped(&format!("redis-sentinel does not start: {error}")),
    };
    let _sentinel = Sentinel {
        child,
        _directory: directory,
    };
    until("the Sentinel to be found", async || {
        let reasons = preflight(&question(&servers, 1)).await.err();
        reasons.is_some_and(|all| all.iter().any(|one| one.contains("a Sentinel watches")))
    })
    .await;
}

#[tokio::test]
async fn preflight_refuses_a_shard_without_a_master() {
    let servers = shard("redis-server", 1, &[]).await;
    let nobody = Question {
        from: "".into(),
        ..question(&servers, 1)
    };
    let reasons = preflight(&nobody).await.err().expect("preflight passed");
    assert!(reasons[0].contains("no master now"), "{reasons:?}");
}

#[tokio::test]
async fn preflight_refuses_cluster_mode() {
    let servers = vec![
        Server::redis(&["--cluster-enabled", "yes"]).await,
        Server::redis(&["--cluster-enabled", "yes"]).await,
    ];
    check_refused(&servers, 1, "cluster mode").await;
}

#[tokio::test]
async fn kvrocks_is_fenced_proven_promoted_and_demoted() {
    let Some(binary) = kvrocks() else { return };
    let servers = shard(&binary, 2, &[]).await;
    let passed = preflight(&question(&servers, 1))
        .await
        .map_err(|why| panic!("{why:?}"))
        .unwrap();
    let passed = passed.with_sink(None).await.unwrap();
    let (orders, sink) = (passed.orders, passed.sink_address.clone());
    assert_eq!(orders.engine, Engine::Kvrocks);
    let (mut old, mut target) = (passed.old.connection, passed.target.connection);
    old.call(&["SET", "k", "v"], STEP).await.unwrap();
    let Change::Done(fenced_at) = orders.fence(&mut old, &sink, None, STEP).await else {
        panic!("no fence");
    };
    let refused = servers[0].ask(&["SET", "k", "w"]).await;
    assert!(
        refused.error().unwrap().starts_with("READONLY"),
        "{refused:?}"
    );
    until("the target to reach F", async || {
        matches!(read_target(&mut target, STEP).await.unwrap(),
            Reading::Following { offset: Some(offset), .. } if offset == fenced_at)
    })
    .await;
    assert!(
        matches!(orders.promote(&mut target, STEP).await, Change::Done(offset)
        if offset == fenced_at)
    );
    let mut other = servers[2].connect().await;
    orders
        .repoint(&mut other, &servers[1].name, STEP)
        .await
        .unwrap();
    orders
        .attach(&mut old, &servers[1].name, STEP)
        .await
        .unwrap();
    for replica in [&servers[0], &servers[2]] {
        replica.await_link(&servers[1]).await;
    }
    assert_eq!(servers[1].facts().await.syncs.full, 0);
    assert_eq!(servers[0].ask(&["GET", "k"]).await.text(), Some("v"));
}

#[tokio::test]
async fn a_kvrocks_fence_can_be_taken_down_again() {
    let Some(binary) = kvrocks() else { return };
    let servers = shard(&binary, 1, &[]).await;
    let orders = orders(&servers[0]).await;
    let mut old = servers[0].connect().await;
    let (local, peer) = (old.local_addr().ip(), old.peer_addr().ip());
    let sink = Sink::open(local, 0, Some(peer)).await.unwrap();
    let address = SinkAddress::of(sink.address());
    assert!(matches!(
        orders.fence(&mut old, &address, None, STEP).await,
        Change::Done(_)
    ));
    assert!(matches!(
        orders.unfence(&mut old, STEP).await,
        Change::Done(_)
    ));
    assert!(servers[0].ask(&["SET", "k", "v"]).await.is_ok());
}

#[tokio::test]
async fn kvrocks_settles_an_order_without_an_answer() {
    let Some(binary) = kvrocks() else { return };
    let server = Server::start(&binary, &[]).await;
    let lost = server.connect_as("pointsman-op").await;
    let mut fresh = server.connect_as("pointsman-op").await;
    settle(&mut fresh, STEP).await.unwrap();
    let list: Value = server.ask(&["CLIENT", "LIST"]).await;
    assert_eq!(
        list.text().unwrap().matches("name=pointsman-op ").count(),
        1
    );
    drop(lost);
}

#[tokio::test]
async fn two_kvrocks_logs_of_one_length_and_other_content_are_told_apart() {
    let Some(binary) = kvrocks() else { return };
    let one = Server::start(&binary, &[]).await;
    let other = Server::start(&binary, &[]).await;
    for (value, expected) in [("1", Tail::Same), ("2", Tail::Differs)] {
        assert!(one.ask(&["SET", "k", "1"]).await.is_ok());
        assert!(other.ask(&["SET", "k", value]).await.is_ok());
        let (mut here, mut there) = (one.connect().await, other.connect().await);
        let offset = own_offset(&mut here, STEP).await.unwrap();
        let judged = compare_tails(&mut here, &mut there, offset, STEP)
            .await
            .unwrap();
        assert_eq!(judged, expected);
    }
}
