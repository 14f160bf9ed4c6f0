//! Scripts and functions: what the old master knew, the new one knows, and nothing else.

use pointsman::cli::demo::servers::EngineKind;
use pointsman::resp::sha1::sha1;

use crate::shuttle::{Work, to_and_fro};
use crate::support::*;

fn hex(script: &str) -> String {
    let digest = sha1(script.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a script in its full length once, and by its digest from then on: itself and those sent
/// before it, alone, in pipelines and in transactions. Kvrocks knows scripts of `EVAL` and those of
/// `EVAL_RO` apart, so `reads` says which a client uses.
async fn run_ever_more(mut wire: Wire, client: usize, work: Work) {
    let reads = client % 2 == 1;
    let (eval, evalsha) = if reads {
        ("EVAL_RO", "EVALSHA_RO")
    } else {
        ("EVAL", "EVALSHA")
    };
    let script = |number: usize| format!("return 'script {number} of {client}'");
    let answer = |number: usize| Value::bulk(format!("script {number} of {client}"));
    let mut sent = 0;
    while !work.is_over() {
        let reply = wire.call(&[eval, &script(sent), "0"]).await.unwrap();
        assert_eq!(reply, answer(sent));
        sent += 1;
        let some = [0, sent / 2, sent - 1];
        for number in some {
            let digest = hex(&script(number));
            let reply = wire.call(&[evalsha, &digest, "0"]).await.unwrap();
            assert_eq!(reply, answer(number), "{digest}");
        }
        let mut pipeline = Vec::new();
        for number in some {
            let digest = hex(&script(number));
            put_request(&mut pipeline, &["ECHO", "before"]);
            put_request(&mut pipeline, &[evalsha, &digest, "0"]);
            put_request(&mut pipeline, &["SCRIPT", "EXISTS", &digest]);
        }
        put_request(&mut pipeline, &["MULTI"]);
        for number in some {
            put_request(&mut pipeline, &[evalsha, &hex(&script(number)), "0"]);
        }
        put_request(&mut pipeline, &["EXEC"]);
        wire.send_raw(&pipeline).await.unwrap();
        for number in some {
            assert_eq!(wire.reply().await.unwrap(), Value::bulk("before"));
            assert_eq!(wire.reply().await.unwrap(), answer(number));
            let exists = wire.reply().await.unwrap();
            assert_eq!(exists, Value::Array(vec![Value::Int(1)]));
        }
        for _ in 0..1 + some.len() {
            assert!(matches!(wire.reply().await.unwrap(), Value::Simple(_)));
        }
        let results = wire.reply().await.unwrap();
        assert_eq!(results, Value::Array(some.map(answer).to_vec()));
        work.did_one();
    }
}

async fn check_known(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut running = Vec::new();
    for number in 0..4 {
        let wire = client(&proxy).await;
        running.push(tokio::spawn(run_ever_more(wire, number, work.clone())));
    }
    let mut loading = client(&proxy).await;
    let loaded = ["SCRIPT", "LOAD", "return 'loaded'"];
    let digest = loading.call(&loaded).await.unwrap().text();
    to_and_fro(&shard, &proxy, 6, async || {
        work.goes_on(8).await;
        let reply = loading.call(&["EVALSHA", &digest, "0"]).await.unwrap();
        assert_eq!(reply, Value::bulk("loaded"));
    })
    .await;
    work.end();
    for client in running {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn scripts_sent_before_are_known_after() {
    check_known(Shard::redis(1).await).await;
}

#[tokio::test]
async fn scripts_sent_to_kvrocks_before_are_known_after() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_known(shard).await;
    }
}

/// An open transaction has the script in its queue already when the master changes.
async fn check_queued(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let (mut bringing, mut running) = (client(&proxy).await, client(&proxy).await);
    let script = "return 'queued'";
    assert!(running.run("MULTI").await.unwrap().ok());
    bringing.call(&["EVAL", script, "0"]).await.unwrap();
    let queued = running.call(&["EVALSHA", &hex(script), "0"]).await.unwrap();
    assert_eq!(queued, Value::Simple("QUEUED".into()));
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    let results = running.run("EXEC").await.unwrap();
    assert_eq!(results, Value::Array(vec![Value::bulk("queued")]));
}

#[tokio::test]
async fn a_script_that_is_queued_is_known_to_the_next_master() {
    check_queued(Shard::redis(1).await).await;
}

#[tokio::test]
async fn a_script_that_is_queued_is_known_to_the_next_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_queued(shard).await;
    }
}

async fn check_flushed(shard: Shard, in_transaction: bool) {
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    let (flushed, later) = ("return 'flushed'", "return 'later'");
    wire.call(&["EVAL", flushed, "0"]).await.unwrap();
    let run = ["EVALSHA", &hex(flushed), "0"];
    to_and_fro(&shard, &proxy, 2, async || {
        assert_eq!(wire.call(&run).await.unwrap(), Value::bulk("flushed"));
    })
    .await;
    // Both nodes have been master and have run it.
    if in_transaction {
        wire.run("MULTI").await.unwrap();
        wire.run("SCRIPT FLUSH").await.unwrap();
        wire.call(&["EVAL", later, "0"]).await.unwrap();
        let results = wire.run("EXEC").await.unwrap();
        let expected = [Value::Simple("OK".into()), Value::bulk("later")];
        assert_eq!(results, Value::Array(expected.to_vec()));
    } else {
        assert!(wire.run("SCRIPT FLUSH").await.unwrap().ok());
        wire.call(&["EVAL", later, "0"]).await.unwrap();
    }
    let mut other = client(&proxy).await;
    to_and_fro(&shard, &proxy, 3, async || {
        let reply = other.call(&run).await.unwrap();
        assert!(reply.text().starts_with("NOSCRIPT"), "{reply:?}");
        let reply = other.call(&["EVALSHA", &hex(later), "0"]).await.unwrap();
        assert_eq!(reply, Value::bulk("later"));
    })
    .await;
}

#[tokio::test]
async fn what_was_flushed_does_not_come_back_with_another_master() {
    check_flushed(Shard::redis(1).await, false).await;
}

#[tokio::test]
async fn what_was_flushed_in_a_transaction_does_not_come_back_and_what_stood_behind_it_does() {
    check_flushed(Shard::redis(1).await, true).await;
}

#[tokio::test]
async fn what_was_flushed_does_not_come_back_with_another_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_flushed(shard, false).await;
    }
}

#[tokio::test]
async fn noscript_is_the_answer_where_nobody_has_sent_the_script_through_this_proxy() {
    let shard = Shard::redis(1).await;
    let (direct, before) = ("return 'direct'", "return 'before'");
    let mut node = shard.wire(0).await;
    node.call(&["SCRIPT", "LOAD", direct]).await.unwrap();
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    wire.call(&["EVAL", before, "0"]).await.unwrap();
    drop((wire, proxy));
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for script in [direct, before] {
        let known = wire.call(&["EVALSHA", &hex(script), "0"]).await.unwrap();
        assert!(matches!(known, Value::Bulk(_)), "{known:?}");
    }
    switchover(&proxy, &shard.addr(1)).await;
    for script in [direct, before] {
        let reply = wire.call(&["EVALSHA", &hex(script), "0"]).await.unwrap();
        assert!(reply.text().starts_with("NOSCRIPT"), "{reply:?}");
    }
}

#[tokio::test]
async fn nobody_has_a_script_loaded_that_he_may_not_load() {
    let shard = Shard::redis(1).await;
    for node in 0..2 {
        let mut wire = shard.wire(node).await;
        let user = "ACL SETUSER runner on >pw ~* +@all -eval -script";
        assert!(wire.run(user).await.unwrap().ok());
    }
    let proxy = shard.proxy_with(patient()).await;
    let (mut admin, mut runner) = (client(&proxy).await, client(&proxy).await);
    assert!(runner.run("AUTH runner pw").await.unwrap().ok());
    let (allowed, smuggled) = ("return 'allowed'", "return 'smuggled'");
    admin.call(&["EVAL", allowed, "0"]).await.unwrap();
    let refused = runner.call(&["EVAL", smuggled, "0"]).await.unwrap();
    assert!(refused.text().starts_with("NOPERM"), "{refused:?}");
    to_and_fro(&shard, &proxy, 3, async || {
        let reply = runner.call(&["EVALSHA", &hex(allowed), "0"]).await.unwrap();
        assert_eq!(reply, Value::bulk("allowed"));
        for wire in [&mut runner, &mut admin] {
            let reply = wire.call(&["EVALSHA", &hex(smuggled), "0"]).await.unwrap();
            assert!(reply.text().starts_with("NOSCRIPT"), "{reply:?}");
        }
    })
    .await;
}

async fn check_functions(shard: Shard, peek: &str) {
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    let library = format!(
        "#!lua name=counting\n\
         redis.register_function('up', function(keys) return redis.call('INCR', keys[1]) end)\n\
         redis.register_function{peek}"
    );
    let loaded = wire.call(&["FUNCTION", "LOAD", &library]).await.unwrap();
    assert!(!matches!(loaded, Value::Error(_)), "{loaded:?}");
    let mut count = 0;
    to_and_fro(&shard, &proxy, 4, async || {
        for _ in 0..20 {
            count += 1;
            let up = wire.run("FCALL up 1 counter").await.unwrap();
            assert_eq!(up, Value::Int(count));
            let peek = wire.run("FCALL_RO peek 1 counter").await.unwrap();
            assert_eq!(peek, Value::bulk(count.to_string()));
        }
    })
    .await;
    let gone = wire.run("FUNCTION DELETE counting").await.unwrap();
    assert!(gone.ok(), "{gone:?}");
    // Kvrocks goes on to run what it has deleted, until it is restarted.
    if shard.set.engine.kind == EngineKind::Redis {
        to_and_fro(&shard, &proxy, 1, async || {
            let refused = wire.run("FCALL up 1 counter").await.unwrap();
            assert!(matches!(refused, Value::Error(_)), "{refused:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn functions_are_the_same_on_every_master() {
    let peek = "{function_name='peek', flags={'no-writes'}, \
                callback=function(keys) return redis.call('GET', keys[1]) end}";
    check_functions(Shard::redis(1).await, peek).await;
}

#[tokio::test]
async fn functions_are_the_same_on_every_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        let peek = "('peek', function(keys) return redis.call('GET', keys[1]) end)";
        check_functions(shard, peek).await;
    }
}

/// What somebody sends who may run nothing displaces no script of those who may.
#[tokio::test]
async fn scripts_of_clients_that_are_not_let_in_displace_nobodys() {
    let shard = Shard::redis(1).await;
    for node in 0..2 {
        let mut wire = shard.wire(node).await;
        for option in ["masterauth", "requirepass"] {
            let set = wire.run(&format!("CONFIG SET {option} secret")).await;
            assert!(set.unwrap().ok(), "{option}");
        }
    }
    let settings = Settings {
        shard: "password = \"secret\"".to_owned(),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut known = client(&proxy).await;
    assert!(known.run("AUTH secret").await.unwrap().ok());
    let answer = known.call(&["EVAL", "return 'known'", "0"]).await.unwrap();
    assert_eq!(answer, Value::bulk("known"));
    for round in 0..4 {
        let mut stranger = client(&proxy).await;
        let mut batch = Vec::new();
        for number in 400 * round..400 * (round + 1) {
            put_request(&mut batch, &["EVAL", &format!("return {number}"), "0"]);
            put_request(
                &mut batch,
                &["SCRIPT", "LOAD", &format!("return -{number}")],
            );
        }
        stranger.send_raw(&batch).await.unwrap();
        for _ in 0..800 {
            let refused = stranger.reply().await.unwrap();
            assert!(refused.text().starts_with("NOAUTH"), "{refused:?}");
        }
    }
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    let digest = hex("return 'known'");
    let answer = known.call(&["EVALSHA", &digest, "0"]).await.unwrap();
    assert_eq!(answer, Value::bulk("known"));
}
