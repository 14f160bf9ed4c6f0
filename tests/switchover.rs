//! Switchovers as operators order them and as clients live through them.

mod support;

use support::*;

#[tokio::test]
async fn under_load_nothing_is_lost_and_no_client_notices() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    assert_eq!((report.from, report.to), (shard.addr(0), shard.addr(1)));
    assert_eq!(report.writes_not_carried, 0);
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
    assert_eq!(shard.master().await, Some(shard.addr(1)));
    shard.in_sync(&shard.addr(1)).await;
}

#[tokio::test]
async fn to_and_fro_nothing_is_lost_and_replicas_resume_without_a_full_copy() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    for target in [1, 0, 2, 1, 0] {
        let to = shard.addr(target);
        let report = switchover(&proxy, &to).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        assert!(
            report
                .replicas
                .iter()
                .all(|replica| replica.resync != "full"),
            "{report:?}"
        );
        clients.go_on().await;
        shard.in_sync(&to).await;
    }
    let checked = clients.finish(&shard).await;
    checked.assert_clean();
    assert!(
        checked.direct.refused > 0,
        "the direct writer never met an old master"
    );
}

#[tokio::test]
async fn kvrocks_changes_its_master_under_load() {
    let Some(shard) = Shard::kvrocks(2).await else {
        return;
    };
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    for target in [1, 0] {
        let report = switchover(&proxy, &shard.addr(target)).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        clients.go_on().await;
        shard.in_sync(&shard.addr(target)).await;
    }
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn without_load_a_switchover_holds_nobody_and_the_status_shows_the_new_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let before = status(&proxy).await;
    assert_eq!(before["master"], shard.addr(0).as_str());
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(
        (report.outcome.as_str(), report.writes_held),
        ("switched", 0),
        "{report:?}"
    );
    let after = status(&proxy).await;
    assert_eq!(after["master"], shard.addr(1).as_str());
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
    assert_eq!(after["gate"], "open");
}

#[tokio::test]
async fn a_report_names_the_phases_and_the_operation_can_be_looked_up() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    let names: Vec<&str> = report
        .phases
        .iter()
        .map(|phase| phase.name.as_str())
        .collect();
    for phase in ["preflight", "pre_dial", "hold", "fence", "prove", "promote"] {
        assert!(names.contains(&phase), "no phase {phase} in {names:?}");
    }
    assert!(report.hold_ms > 0.0 && report.total_ms >= report.hold_ms);
    let view = operation(&proxy, &report.id).await.json().unwrap();
    assert_eq!(view["state"], "ended");
    assert_eq!(view["report"]["outcome"], "switched");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let epoch = status(&proxy).await["epoch"].clone();
    let clients = Clients::start(&shard, &proxy).await;
    let body = serde_json::json!({ "to": shard.addr(1), "dry_run": true }).to_string();
    let answer = proxy
        .admin
        .post(&format!("/v1/shards/{SHARD}/switchover"), body)
        .await
        .unwrap();
    let report: Report = serde_json::from_str(&answer.body).expect(&answer.body);
    assert!(report.dry_run && report.reasons.is_empty(), "{report:?}");
    assert_eq!(report.hold_ms, 0.0);
    clients.go_on().await;
    assert_eq!(shard.master().await, Some(shard.addr(0)));
    assert_eq!(status(&proxy).await["epoch"], epoch);
    let checked = clients.finish(&shard).await;
    checked.assert_clean();
    assert_eq!(checked.direct.refused, 0);
}

/// A pause that somebody else set keeps writes without their replies, so that the drain, and with
/// it the hold, lasts as long as the pause.
#[tokio::test]
async fn reads_go_on_while_writes_are_held() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    shard
        .wire(0)
        .await
        .run("CLIENT PAUSE 800 WRITE")
        .await
        .unwrap();
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    clients.go_on().await;
    let checked = clients.finish(&shard).await;
    checked.assert_clean();
    assert!(checked.slowest_write_ms() > 500.0, "no write was held");
    let slowest_read_ms = checked.slowest_read_ms();
    assert!(
        slowest_read_ms < 400.0,
        "a read waited for {slowest_read_ms} ms"
    );
}

#[tokio::test]
async fn pipelined_writes_stay_in_order_across_switchovers() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let addr = proxy.addr.clone();
    let counting = tokio::spawn(async move {
        let mut wire = Wire::connect(&addr).await.unwrap();
        let (mut expected, mut batch) = (0, Vec::new());
        for _ in 0..20 {
            put_request(&mut batch, &["INCR", "counter"]);
            put_request(&mut batch, &["GET", "counter"]);
        }
        while expected < 20_000 {
            wire.send_raw(&batch).await.unwrap();
            for _ in 0..20 {
                expected += 1;
                assert_eq!(wire.reply().await.unwrap(), Value::Int(expected));
                assert_eq!(
                    wire.reply().await.unwrap(),
                    Value::bulk(expected.to_string())
                );
            }
        }
    });
    for target in [1, 0, 1] {
        let report = switchover(&proxy, &shard.addr(target)).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        shard.in_sync(&shard.addr(target)).await;
    }
    counting.await.unwrap();
}

/// A session with something begun on the old master, and what it must see on the new one.
async fn across(shard: &Shard, proxy: &Proxy, before: &[&str]) -> Wire {
    let mut wire = client(proxy).await;
    for line in before {
        let reply = wire.run(line).await.unwrap();
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    let report = switchover(proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    wire
}

#[tokio::test]
async fn a_transaction_begun_before_is_executed_after() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = across(&shard, &proxy, &["SET k 1", "MULTI", "INCR k", "GET k"]).await;
    assert_eq!(
        wire.run("INCR k").await.unwrap(),
        Value::Simple("QUEUED".into())
    );
    let expected = Value::Array(vec![Value::Int(2), Value::bulk("2"), Value::Int(3)]);
    assert_eq!(wire.run("EXEC").await.unwrap(), expected);
}

#[tokio::test]
async fn a_watch_from_before_never_hides_a_change() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = across(&shard, &proxy, &["SET k 1", "WATCH k"]).await;
    client(&proxy).await.run("SET k other").await.unwrap();
    wire.run("MULTI").await.unwrap();
    wire.run("SET k mine").await.unwrap();
    assert_eq!(wire.run("EXEC").await.unwrap(), Value::Null);
    assert_eq!(wire.run("GET k").await.unwrap(), Value::bulk("other"));
}

#[tokio::test]
async fn a_blocked_pop_gets_what_is_pushed_after() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut popper = client(&proxy).await;
    popper.send(&["BLPOP", "queue", "15"]).await.unwrap();
    wait_until("the pop blocks", async || {
        let info = shard
            .wire(0)
            .await
            .run("INFO clients")
            .await
            .unwrap()
            .text();
        field(&info, "blocked_clients") == Some("1")
    })
    .await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    client(&proxy).await.run("RPUSH queue job").await.unwrap();
    let expected = Value::Array(vec![Value::bulk("queue"), Value::bulk("job")]);
    assert_eq!(popper.reply().await.unwrap(), expected);
    assert_eq!(popper.run("LLEN queue").await.unwrap(), Value::Int(0));
}

/// One consumer pops what one producer pushes, through switchovers to and fro.
async fn check_queue(shard: Shard) {
    const JOBS_PER_SWITCH: usize = 50;
    let proxy = shard.proxy_with(patient()).await;
    let mut popper = client(&proxy).await;
    let mut pusher = client(&proxy).await;
    let targets = [1, 0, 1, 0];
    let popping = tokio::spawn(async move {
        let mut popped = Vec::new();
        while popped.len() < targets.len() * JOBS_PER_SWITCH {
            match popper
                .run("BLPOP queue 0")
                .await
                .expect("the popper is served")
            {
                Value::Array(pair) => popped.push(pair[1].clone().text()),
                other => panic!("BLPOP answered {other:?}"),
            }
        }
        popped
    });
    let mut expected = Vec::new();
    for target in targets {
        // The consumer is blocked when the first of these orders comes, and catches up in between.
        let report = switchover(&proxy, &shard.addr(target)).await;
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        for _ in 0..JOBS_PER_SWITCH {
            let job = format!("job-{}", expected.len());
            pusher.run(&format!("RPUSH queue {job}")).await.unwrap();
            expected.push(job);
        }
        shard.in_sync(&shard.addr(target)).await;
    }
    assert_eq!(popping.await.unwrap(), expected);
}

#[tokio::test]
async fn a_queue_loses_and_repeats_no_job() {
    check_queue(Shard::redis(1).await).await;
}

#[tokio::test]
async fn a_queue_on_kvrocks_loses_and_repeats_no_job() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_queue(shard).await;
    }
}

#[tokio::test]
async fn a_subscriber_gets_each_message_once() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut subscriber = client(&proxy).await;
    subscriber.run("SUBSCRIBE news").await.unwrap();
    let mut publisher = client(&proxy).await;
    publisher.run("PUBLISH news before").await.unwrap();
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    publisher.run("PUBLISH news after").await.unwrap();
    publisher.run("PUBLISH news last").await.unwrap();
    for text in ["before", "after", "last"] {
        let message = ["message", "news", text].map(Value::bulk).to_vec();
        assert_eq!(subscriber.reply().await.unwrap(), Value::Array(message));
    }
}

#[tokio::test]
async fn database_name_and_id_stay() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    let id = wire.run("CLIENT ID").await.unwrap();
    for line in ["SELECT 3", "CLIENT SETNAME worker", "SET k in-three"] {
        assert!(wire.run(line).await.unwrap().ok(), "{line}");
    }
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    assert_eq!(wire.run("GET k").await.unwrap(), Value::bulk("in-three"));
    assert_eq!(
        wire.run("CLIENT GETNAME").await.unwrap(),
        Value::bulk("worker")
    );
    assert_eq!(wire.run("CLIENT ID").await.unwrap(), id);
    let mut direct = shard.wire(1).await;
    direct.run("SELECT 3").await.unwrap();
    assert_eq!(direct.run("GET k").await.unwrap(), Value::bulk("in-three"));
}

#[tokio::test]
async fn a_script_known_before_can_be_called_by_its_digest_after() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    let script = "return redis.call('incr', KEYS[1])";
    let digest = wire.call(&["SCRIPT", "LOAD", script]).await.unwrap().text();
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    let reply = wire.call(&["EVALSHA", &digest, "1", "k"]).await.unwrap();
    assert_eq!(reply, Value::Int(1));
}

/// Libraries ask on every new connection for what only newer servers know.
#[tokio::test]
async fn a_command_that_the_server_does_not_know_leaves_nothing_that_must_be_carried() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for line in ["CLIENT MAINT_NOTIFICATIONS ON", "NOSUCHCOMMAND x"] {
        let direct = shard.wire(0).await.run(line).await.unwrap();
        assert!(direct.text().contains("unknown"), "{direct:?}");
        assert_eq!(wire.run(line).await.unwrap(), direct);
    }
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    assert!(wire.run("SET k after").await.unwrap().ok());
}
