//! Whole operations against real servers, with a gate and a route that only remember.

#[path = "nodes/proxy.rs"]
mod proxy;
#[path = "nodes/servers.rs"]
mod servers;

use std::time::Duration;

use pointsman::config::{Config, SilentProxies, SwitchoverConfig};
use pointsman::resp::reply::Value;
use pointsman::switchover::preflight::check_shard;
use pointsman::switchover::report::{Outcome, Report, Resync};
use pointsman::switchover::view::{AbortAnswer, Control, StartError};
use proxy::{Gate, Proxy, after_crash, begun, master, recovered};
use servers::{STEP, Server, kvrocks, shard, until};

async fn check_switched(servers: &[Server], proxy: &Proxy, report: &Report) {
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    assert_eq!(report.reasons, Vec::<String>::new());
    assert_eq!((report.writes_held, report.writes_not_carried), (3, 0));
    assert!(
        report.hold_ms > 0.0 && report.hold_ms <= report.total_ms,
        "{report:?}"
    );
    assert_eq!(master(proxy), *servers[1].name);
    assert_eq!(proxy.log(), ["open", "hold", "open"]);
    assert!(servers[1].is_master().await && !servers[0].is_master().await);
    let resyncs: Vec<Resync> = report.replicas.iter().map(|one| one.resync).collect();
    assert_eq!(
        resyncs,
        vec![Resync::Partial; servers.len() - 1],
        "{report:?}"
    );
    assert!(servers[1].ask(&["SET", "after", "1"]).await.is_ok());
    for replica in [&servers[0], &servers[servers.len() - 1]].into_iter() {
        until("the write to arrive", async || {
            replica.ask(&["GET", "after"]).await.text() == Some("1")
        })
        .await;
    }
}

#[tokio::test]
async fn redis_is_switched_and_everybody_follows() {
    let servers = shard("redis-server", 2, &[]).await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    let report = proxy.switchover(&servers[1]).await;
    eprintln!("{report:#?}");
    check_switched(&servers, &proxy, &report).await;
}

#[tokio::test]
async fn kvrocks_is_switched_and_everybody_follows() {
    let Some(binary) = kvrocks() else { return };
    let servers = shard(&binary, 2, &[]).await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    let report = proxy.switchover(&servers[1]).await;
    eprintln!("{report:#?}");
    check_switched(&servers, &proxy, &report).await;
}

#[tokio::test]
async fn ten_switchovers_there_and_back_lose_no_write_of_a_client_that_bypasses_the_proxy() {
    let servers = shard("redis-server", 1, &[]).await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = tokio::task::JoinSet::new();
    for server in &servers {
        let (mut direct, stop) = (server.connect().await, stop.clone());
        let list = format!("writes:{}", server.port);
        writers.spawn(async move {
            let mut acknowledged = 0_i64;
            while !stop.is_cancelled() {
                let answer = direct.call(&["RPUSH", &list, "x"], STEP).await.unwrap();
                acknowledged += i64::from(matches!(answer, Value::Integer(_)));
            }
            (list, acknowledged)
        });
    }
    for round in 0..10 {
        let report = proxy.switchover(&servers[(round + 1) % 2]).await;
        assert_eq!(
            report.outcome,
            Outcome::Switched,
            "round {round}: {report:?}"
        );
        assert_eq!(report.replicas[0].resync, Resync::Partial, "round {round}");
    }
    stop.cancel();
    for (list, acknowledged) in writers.join_all().await {
        let kept = servers[0].ask(&["LLEN", &list]).await.number();
        assert!(acknowledged > 0);
        assert_eq!(kept, Some(acknowledged), "acknowledged writes to {list}");
    }
}

#[tokio::test]
async fn a_dry_run_looks_and_touches_nothing() {
    let servers = shard("redis-server", 1, &[]).await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    let report = proxy.order(&servers[1], true).await;
    assert!(
        report.dry_run && report.outcome == Outcome::Switched,
        "{report:?}"
    );
    let report = proxy.order(&servers[0], true).await;
    assert!(
        report.dry_run && report.outcome == Outcome::Refused,
        "{report:?}"
    );
    assert_eq!(
        (master(&proxy), proxy.log()),
        (servers[0].name.to_string(), vec!["open"])
    );
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn a_refused_operation_names_its_reasons_and_holds_nothing() {
    let servers = shard("redis-server", 1, &[]).await;
    servers[1]
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    let report = proxy.switchover(&servers[1]).await;
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(
        report.reasons[0].contains("min-replicas-to-write"),
        "{report:?}"
    );
    assert_eq!((report.hold_ms, proxy.log()), (0.0, vec!["open"]));
}

#[tokio::test]
async fn lanes_that_cannot_be_prepared_are_a_refusal_with_their_reason() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        unprepared: true,
        ..Gate::default()
    };
    let proxy = Proxy::start(&servers, gate, |_| {}).ready().await;
    let report = proxy.switchover(&servers[1]).await;
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(
        report.reasons.iter().any(|one| one.contains("no lane")),
        "{report:?}"
    );
}

#[tokio::test]
async fn writes_that_do_not_drain_end_the_operation_where_it_began() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stuck: true,
        ..Gate::default()
    };
    let proxy = Proxy::start(&servers, gate, |_| {}).ready().await;
    let report = proxy.switchover(&servers[1]).await;
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert!(report.reasons[0].contains("drain_timeout_ms"), "{report:?}");
    assert_eq!(proxy.log(), ["open", "hold", "open"]);
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn a_second_order_is_told_which_operation_runs_and_an_abort_ends_that_one() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stuck: true,
        ..Gate::default()
    };
    let patient = |config: &mut SwitchoverConfig| config.drain_timeout = STEP;
    let proxy = Proxy::start(&servers, gate, patient).ready().await;
    let to = servers[1].name.to_string();
    let order = |dry_run| proxy.shards.switchover("a".to_owned(), to.clone(), dry_run);
    let id = order(false).await.unwrap();
    assert_eq!(order(false).await, Err(StartError::Busy { id: id.clone() }));
    until("the hold", async || {
        proxy.shards.operation(&id).unwrap().phase == "hold"
    })
    .await;
    assert_eq!(proxy.shards.status("a").unwrap().gate, "holding");
    assert_eq!(proxy.shards.abort(&id), AbortAnswer::Aborting);
    let report = proxy.shards.wait(id.clone()).await.unwrap();
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(report.reasons, ["aborted by order"]);
    assert_eq!(proxy.shards.abort(&id), AbortAnswer::Ended);
    assert_eq!(proxy.shards.abort("nothing"), AbortAnswer::Unknown);
}

#[tokio::test]
async fn a_stop_undoes_what_runs_and_starts_nothing_more() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stuck: true,
        ..Gate::default()
    };
    let patient = |config: &mut SwitchoverConfig| config.drain_timeout = STEP;
    let proxy = Proxy::start(&servers, gate, patient).ready().await;
    let to = servers[1].name.to_string();
    let id = proxy
        .shards
        .switchover("a".to_owned(), to.clone(), false)
        .await
        .unwrap();
    until("the hold", async || {
        proxy.shards.operation(&id).unwrap().phase == "hold"
    })
    .await;
    proxy.shards.stop().await;
    let report = proxy.shards.wait(id).await.unwrap();
    assert_eq!(report.outcome, Outcome::RolledBack);
    let late = proxy.shards.switchover("a".to_owned(), to, false).await;
    assert_eq!(late, Err(StartError::ShuttingDown));
}

#[tokio::test]
async fn a_master_that_somebody_else_changed_is_followed() {
    let servers = shard("redis-server", 1, &[]).await;
    let proxy = Proxy::start(&servers, Gate::default(), |_| {})
        .ready()
        .await;
    assert_eq!(master(&proxy), *servers[0].name);
    assert!(servers[1].ask(&["REPLICAOF", "NO", "ONE"]).await.is_ok());
    let port = servers[1].port.to_string();
    assert!(
        servers[0]
            .ask(&["REPLICAOF", "127.0.0.1", &port])
            .await
            .is_ok()
    );
    until("the route to follow", async || {
        master(&proxy) == *servers[1].name
    })
    .await;
}

#[tokio::test]
async fn an_operation_that_a_crash_cut_off_behind_the_fence_is_undone_at_the_next_start() {
    let servers = shard("redis-server", 1, &[]).await;
    assert!(
        servers[0]
            .ask(&["REPLICAOF", "127.0.0.1", "1"])
            .await
            .is_ok()
    );
    let proxy = after_crash(&servers, &begun(&servers)).ready().await;
    assert_eq!(master(&proxy), *servers[0].name);
    assert!(servers[0].is_master().await);
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(proxy.log().last(), Some(&"open"));
}

#[tokio::test]
async fn an_operation_that_a_crash_cut_off_behind_the_promotion_is_finished_at_the_next_start() {
    let servers = shard("redis-server", 2, &[]).await;
    assert!(
        servers[0]
            .ask(&["REPLICAOF", "127.0.0.1", "1"])
            .await
            .is_ok()
    );
    assert!(servers[1].ask(&["REPLICAOF", "NO", "ONE"]).await.is_ok());
    let proxy = after_crash(&servers, &begun(&servers)).ready().await;
    assert_eq!(master(&proxy), *servers[1].name);
    let report = recovered(&proxy).await;
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    servers[0].await_link(&servers[1]).await;
    servers[2].await_link(&servers[1]).await;
    let directory = proxy.state_dir.path().join("pointsman-a.journal");
    until("the end in the journal", async || {
        std::fs::read_to_string(&directory)
            .unwrap()
            .contains("\"end\"")
    })
    .await;
}

#[tokio::test]
async fn a_target_that_falls_silent_ends_the_operation_without_two_masters() {
    let servers = shard("redis-server", 1, &[]).await;
    let proxy = Proxy::start(
        &servers,
        Gate {
            stuck: true,
            ..Gate::default()
        },
        |config| {
            config.drain_timeout = STEP;
        },
    )
    .ready()
    .await;
    let to = servers[1].name.to_string();
    let id = proxy
        .shards
        .switchover("a".to_owned(), to, false)
        .await
        .unwrap();
    until("the hold", async || {
        proxy.shards.operation(&id).unwrap().phase == "hold"
    })
    .await;
    servers[1].signal("-STOP");
    proxy.shards.abort(&id);
    let report = proxy.shards.wait(id).await.unwrap();
    servers[1].signal("-CONT");
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn an_old_master_that_falls_silent_is_restored_when_it_answers_again() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stops: Some(servers[0].pid()),
        ..Gate::default()
    };
    let short = |config: &mut SwitchoverConfig| {
        config.pause_timeout = Duration::from_millis(300);
        // Otherwise it is undone before the fence: how many proxies listen is not known.
        config.silent_proxies = SilentProxies::Report;
    };
    let proxy = Proxy::start(&servers, gate, short).ready().await;
    let to = servers[1].name.to_string();
    let id = proxy
        .shards
        .switchover("a".to_owned(), to, false)
        .await
        .unwrap();
    let report = proxy.shards.wait(id.clone()).await.unwrap();
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert_eq!(
        proxy.log(),
        ["open", "hold", "open"],
        "nobody waits longer than the hold may last"
    );
    assert_eq!(
        proxy.shards.status("a").unwrap().operation,
        Some(id),
        "restoring goes on"
    );
    assert!(!servers[1].is_master().await, "never two masters");
    servers[0].signal("-CONT");
    until("the old master to be restored", async || {
        proxy.shards.status("a").unwrap().operation.is_none() && servers[0].is_master().await
    })
    .await;
    assert!(servers[0].ask(&["SET", "k", "v"]).await.is_ok());
    servers[1].await_link(&servers[0]).await;
}

#[tokio::test]
async fn a_target_that_falls_silent_behind_the_fence_is_not_promoted() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stops: Some(servers[1].pid()),
        ..Gate::default()
    };
    let proxy = Proxy::start(&servers, gate, |_| {}).ready().await;
    let report = proxy.switchover(&servers[1]).await;
    servers[1].signal("-CONT");
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert!(
        report
            .reasons
            .iter()
            .any(|one| one.contains("did not answer")),
        "{report:?}"
    );
    assert!(servers[0].is_master().await && !servers[1].is_master().await);
    assert!(servers[0].ask(&["SET", "k", "v"]).await.is_ok());
}

#[tokio::test]
async fn writes_that_cannot_be_carried_in_time_end_the_operation_with_a_rollback() {
    let servers = shard("redis-server", 1, &[]).await;
    let gate = Gate {
        stops: Some(servers[1].pid()),
        ..Gate::default()
    };
    let short = |config: &mut SwitchoverConfig| config.sync_timeout = Duration::from_millis(50);
    let proxy = Proxy::start(&servers, gate, short).ready().await;
    let report = proxy.switchover(&servers[1]).await;
    servers[1].signal("-CONT");
    assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
    assert!(report.reasons[0].contains("sync_timeout_ms"), "{report:?}");
    assert!(servers[0].is_master().await);
}

#[tokio::test]
async fn check_names_what_would_be_in_the_way() {
    let servers = shard("redis-server", 1, &[]).await;
    servers[1]
        .ask(&["CONFIG", "SET", "replica-read-only", "no"])
        .await;
    let nodes = format!(
        "\"{}\", \"{}\", \"127.0.0.1:1\"",
        servers[0].name, servers[1].name
    );
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:7000\"\n[[shard]]\nname = \"a\"\n\
         listen = \"127.0.0.1:7001\"\nnodes = [{nodes}]\n"
    );
    let config = Config::parse(&text, "config.toml").unwrap();
    let (proxy, switchover) = (&config.proxy, &config.switchover);
    let checks = check_shard(&config.shards[0], proxy, switchover).await;
    let roles: Vec<&str> = checks.iter().map(|check| check.role.as_str()).collect();
    assert_eq!(roles, ["master", "replica", "unknown"]);
    assert_eq!(checks[0].problems, Vec::<String>::new());
    assert!(
        checks[1].problems[0].contains("replica-read-only"),
        "{checks:?}"
    );
    assert!(
        checks[2].problems[0].contains("cannot be reached"),
        "{checks:?}"
    );
    assert_eq!(checks[0].engine.as_deref(), Some("redis"));
}
