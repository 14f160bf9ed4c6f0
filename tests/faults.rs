//! Switchovers that must not happen, or must be undone: nothing is lost, no client notices, and the
//! old master goes on.

mod support;

use support::*;

/// Orders a switchover to `to` under load, after `spoil` made it impossible.
///
/// However it ends, writes are acknowledged afterwards, none is lost and no client saw an error.
async fn check(settings: Settings, outcomes: &[&str], to: impl Fn(&Shard) -> String, spoil: Spoil) {
    let mut shard = Shard::redis(2).await;
    if spoil == Spoil::NoRoleChange {
        for node in 0..3 {
            let mut wire = shard.wire(node).await;
            let user = "ACL SETUSER keeper on >secret ~* &* +@all -replicaof -slaveof";
            assert!(wire.run(user).await.unwrap().ok());
        }
    }
    let proxy = shard.proxy_with(settings).await;
    let clients = Clients::start(&shard, &proxy).await;
    let to = to(&shard);
    match spoil {
        Spoil::Nothing | Spoil::NoRoleChange => {}
        Spoil::KillTarget => shard.set.nodes[1].kill(),
        Spoil::FreezeTarget => shard.set.nodes[1].freeze().unwrap(),
        Spoil::ChainTarget => {
            follow(&shard.addr(1), &shard.addr(2)).await.unwrap();
            wait_until("the chain is up", async || {
                let info = shard
                    .wire(1)
                    .await
                    .run("INFO replication")
                    .await
                    .unwrap()
                    .text();
                field(&info, "master_link_status") == Some("up")
            })
            .await;
        }
        Spoil::PauseTarget => {
            shard
                .wire(1)
                .await
                .run("CLIENT PAUSE 20000 WRITE")
                .await
                .unwrap();
            clients.go_on().await;
        }
    }
    let report = switchover(&proxy, &to).await;
    assert!(outcomes.contains(&report.outcome.as_str()), "{report:?}");
    assert!(
        report.outcome == "switched" || !report.reasons.is_empty(),
        "no reason: {report:?}"
    );
    clients.go_on().await;
    if spoil == Spoil::FreezeTarget {
        shard.set.nodes[1].thaw().unwrap();
    }
    if report.outcome != "switched" {
        assert_eq!(status(&proxy).await["master"], shard.addr(0).as_str());
        assert_eq!(status(&proxy).await["gate"], "open");
    }
    clients.finish(&shard).await.assert_clean();
}

#[derive(Clone, Copy, PartialEq)]
enum Spoil {
    Nothing,
    KillTarget,
    FreezeTarget,
    /// The target follows another replica instead of the master.
    ChainTarget,
    /// The target answers but applies nothing of what its master sends.
    PauseTarget,
    /// The proxy's user may not change roles.
    NoRoleChange,
}

#[tokio::test]
async fn a_node_that_is_not_configured_is_refused() {
    check(
        Settings::default(),
        &["refused"],
        |_| "127.0.0.1:1".into(),
        Spoil::Nothing,
    )
    .await;
}

#[tokio::test]
async fn the_master_itself_is_refused() {
    check(
        Settings::default(),
        &["refused"],
        |shard| shard.addr(0),
        Spoil::Nothing,
    )
    .await;
}

#[tokio::test]
async fn a_dead_target_is_refused() {
    check(
        Settings::default(),
        &["refused"],
        |shard| shard.addr(1),
        Spoil::KillTarget,
    )
    .await;
}

#[tokio::test]
async fn a_target_that_follows_another_node_is_refused() {
    check(
        Settings::default(),
        &["refused"],
        |shard| shard.addr(1),
        Spoil::ChainTarget,
    )
    .await;
}

#[tokio::test]
async fn a_target_that_hangs_is_given_up() {
    let outcomes = ["refused", "rolled_back"];
    check(
        Settings::default(),
        &outcomes,
        |shard| shard.addr(1),
        Spoil::FreezeTarget,
    )
    .await;
}

#[tokio::test]
async fn a_target_that_lags_too_far_is_refused() {
    let settings = switchover_settings("max_lag = 1000");
    check(
        settings,
        &["refused"],
        |shard| shard.addr(1),
        Spoil::PauseTarget,
    )
    .await;
}

#[tokio::test]
async fn a_target_that_does_not_catch_up_is_given_up_or_woken() {
    let outcomes = ["refused", "rolled_back", "switched"];
    check(
        Settings::default(),
        &outcomes,
        |shard| shard.addr(1),
        Spoil::PauseTarget,
    )
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_the_role_change_keeps_its_role() {
    let shard_lines = "username = \"keeper\"\npassword = \"secret\"";
    let settings = Settings {
        shard: shard_lines.into(),
        ..Settings::default()
    };
    let outcomes = ["refused", "rolled_back"];
    check(
        settings,
        &outcomes,
        |shard| shard.addr(1),
        Spoil::NoRoleChange,
    )
    .await;
}

#[tokio::test]
async fn an_unknown_shard_and_a_malformed_order_are_answered_as_such() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy().await;
    let order = serde_json::json!({ "to": shard.addr(1) }).to_string();
    let path = format!("/v1/shards/{SHARD}/switchover");
    let unknown = "/v1/shards/nowhere/switchover";
    for (path, body, status) in [
        (unknown, order.as_str(), 404),
        (path.as_str(), "{}", 400),
        (path.as_str(), "no json", 400),
        (path.as_str(), r#"{"to":"127.0.0.1:1","force":true}"#, 400),
    ] {
        let answer = proxy.admin.post(path, body.into()).await.unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
    }
    assert_eq!(operation(&proxy, "never-was").await.status, 404);
    assert_eq!(shard.master().await, Some(shard.addr(0)));
}

/// Begins a switchover whose drain takes as long as a pause that somebody else set: `ms`.
async fn slow_switchover(shard: &Shard, proxy: &Proxy, ms: u32) -> String {
    stick_writes(shard, ms).await;
    let id = begin_switchover(proxy, &shard.addr(1)).await;
    in_phase(proxy, &id, "hold").await;
    id
}

#[tokio::test]
async fn a_second_order_is_told_about_the_first() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    let id = slow_switchover(&shard, &proxy, 1500).await;
    let body = serde_json::json!({ "to": shard.addr(2) }).to_string();
    let answer = proxy
        .admin
        .post(&format!("/v1/shards/{SHARD}/switchover"), body)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.text("id")),
        (409, id.clone()),
        "{}",
        answer.body
    );
    let report = ended(&proxy, &id).await;
    assert_eq!(
        (report.outcome.as_str(), report.to),
        ("switched", shard.addr(1))
    );
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn an_abort_before_the_promotion_is_undone_and_no_client_notices() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    let id = slow_switchover(&shard, &proxy, 1500).await;
    let answer = proxy
        .admin
        .delete(&format!("/v1/operations/{id}"))
        .await
        .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let report = ended(&proxy, &id).await;
    assert_eq!(report.outcome, "rolled_back", "{report:?}");
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
    assert_eq!(shard.master().await, Some(shard.addr(0)));
    let late = proxy
        .admin
        .delete(&format!("/v1/operations/{id}"))
        .await
        .unwrap();
    assert_eq!(late.status, 409, "{}", late.body);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_given_up() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(switchover_settings("pause_timeout_ms = 20000"))
        .await;
    let clients = Clients::start(&shard, &proxy).await;
    let id = slow_switchover(&shard, &proxy, 1500).await;
    let report = ended(&proxy, &id).await;
    assert_eq!(report.outcome, "rolled_back", "{report:?}");
    assert!(report.hold_ms < 1000.0, "{report:?}");
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn after_a_failed_switchover_the_next_one_succeeds() {
    let mut shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    shard.set.nodes[1].kill();
    assert_eq!(switchover(&proxy, &shard.addr(1)).await.outcome, "refused");
    let report = switchover(&proxy, &shard.addr(2)).await;
    // Whether a dead node beside the target is a reason to refuse is the proxy's to decide.
    assert!(
        ["switched", "refused"].contains(&report.outcome.as_str()),
        "{report:?}"
    );
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn a_proxy_killed_while_it_holds_leaves_a_master_and_every_acknowledged_write() {
    let shard = Shard::redis(1).await;
    let mut proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    slow_switchover(&shard, &proxy, 1500).await;
    proxy.kill();
    let next = shard.proxy_with(patient()).await;
    let mut wire = client(&next).await;
    assert!(wire.run("SET after restart").await.unwrap().ok());
    let checked = clients.finish(&shard).await;
    assert_eq!(checked.proof.lost(), 0, "{:?}", checked.proof.examples);
}

// The rest of an upload that was held was read as requests, and a switchover cut its client.
#[tokio::test]
async fn a_large_value_that_arrives_while_writes_are_held_stays_a_value() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(switchover_settings("drain_timeout_ms = 3000"))
        .await;
    let value = "\r\nSET injected 1\r\n".repeat(20_000);
    let mut request = Vec::new();
    put_request(&mut request, &["SET", "large", &value]);
    let (mut early, mut late) = (client(&proxy).await, client(&proxy).await);
    let mut other = client(&proxy).await;

    // The first upload has begun when the hold comes, the second begins behind it. The drain takes
    // longer than it may, so the switchover is undone.
    let (first, rest) = request.split_at(200_000);
    early.send_raw(first).await.unwrap();
    let clients = Clients::start(&shard, &proxy).await;
    stick_writes(&shard, 6000).await;
    let id = begin_switchover(&proxy, &shard.addr(1)).await;
    in_phase(&proxy, &id, "hold").await;
    late.send_raw(first).await.unwrap();
    for _ in 0..20 {
        other.run("PING").await.unwrap();
    }
    early.send_raw(rest).await.unwrap();
    late.send_raw(rest).await.unwrap();
    early.send_raw(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let report = ended(&proxy, &id).await;
    assert_ne!(report.outcome, "switched");
    assert!(early.reply().await.unwrap().ok());
    assert_eq!(early.reply().await.unwrap().text(), "PONG");
    assert!(late.reply().await.unwrap().ok());
    assert_eq!(late.run("GET injected").await.unwrap(), Value::Null);
    assert_eq!(late.run("GET large").await.unwrap(), Value::bulk(&value));
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
}

// Nothing of it had been sent, but its client was cut as if something had.
#[tokio::test]
async fn a_large_value_that_begins_behind_a_hold_goes_to_the_new_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(switchover_settings(
            "drain_timeout_ms = 10000\npause_timeout_ms = 10000",
        ))
        .await;
    let value = "x".repeat(300_000);
    let mut request = Vec::new();
    put_request(&mut request, &["SET", "large", &value]);
    let (first, rest) = request.split_at(100_000);
    let (mut wire, mut other) = (client(&proxy).await, client(&proxy).await);
    let clients = Clients::start(&shard, &proxy).await;
    let id = slow_switchover(&shard, &proxy, 1500).await;
    wire.send_raw(first).await.unwrap();
    for _ in 0..20 {
        other.run("PING").await.unwrap();
    }
    let report = ended(&proxy, &id).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    wire.send_raw(rest).await.unwrap();
    assert!(wire.reply().await.unwrap().ok());
    assert_eq!(wire.run("GET large").await.unwrap(), Value::bulk(&value));
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
}
