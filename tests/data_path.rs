//! What clients do and get: as if they were connected to the server itself.

mod support;

use std::time::Duration;

use support::*;

#[tokio::test]
async fn a_request_may_arrive_in_any_pieces() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut input = Vec::new();
    put_request(&mut input, &["SET", "k", "some value"]);
    put_request(&mut input, &["GET", "k"]);
    for size in [1, 2, 3, 7] {
        let mut wire = client(&proxy).await;
        for piece in input.chunks(size) {
            wire.send_raw(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(wire.reply().await.unwrap().ok());
        assert_eq!(wire.reply().await.unwrap(), Value::bulk("some value"));
    }
}

#[tokio::test]
async fn half_a_request_disturbs_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut half = client(&proxy).await;
    half.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nonly a part")
        .await
        .unwrap();
    let mut other = client(&proxy).await;
    assert!(other.run("SET other 1").await.unwrap().ok());
    drop(half);
    assert_eq!(other.run("GET k").await.unwrap(), Value::Null);
}

#[tokio::test]
async fn a_value_of_100_mb_goes_there_and_back() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let value: Vec<u8> = (0..100_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut wire = client(&proxy).await.with_deadline(Duration::from_secs(60));
    let reply = wire
        .call(&[b"SET".as_slice(), b"big", value.as_slice()])
        .await
        .unwrap();
    assert!(reply.ok(), "{reply:?}");
    let mut other = client(&proxy).await;
    wire.send(&["GET", "big"]).await.unwrap();
    // The large reply is on its way and nobody reads it yet; others are served meanwhile.
    assert!(other.run("SET small 1").await.unwrap().ok());
    let back = wire.reply().await.unwrap();
    assert!(back == Value::Bulk(value), "the value came back changed");
}

#[tokio::test]
async fn hello_3_speaks_resp3_and_hello_2_goes_back() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut wire = client(&proxy).await;
    let greeting = wire.run("HELLO 3 SETNAME modern").await.unwrap();
    let texts: Vec<String> = greeting.items().iter().map(Value::text).collect();
    let proto = texts
        .iter()
        .position(|text| text == "proto")
        .expect("a proto field");
    assert_eq!(texts[proto + 1], "3");
    wire.run("HSET h a 1").await.unwrap();
    wire.send(&["HGETALL", "h"]).await.unwrap();
    let (map, _) = wire.raw_until_quiet(Duration::from_millis(200)).await;
    assert_eq!(map, b"%1\r\n$1\r\na\r\n$1\r\n1\r\n");
    assert_eq!(
        wire.run("CLIENT GETNAME").await.unwrap(),
        Value::bulk("modern")
    );
    wire.run("HELLO 2").await.unwrap();
    wire.send(&["HGETALL", "h"]).await.unwrap();
    let (list, _) = wire.raw_until_quiet(Duration::from_millis(200)).await;
    assert_eq!(list, b"*2\r\n$1\r\na\r\n$1\r\n1\r\n");
}

#[tokio::test]
async fn subscribers_of_both_protocols_hear_what_is_published() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut plain = client(&proxy).await;
    let mut modern = client(&proxy).await;
    modern.run("HELLO 3").await.unwrap();
    for wire in [&mut plain, &mut modern] {
        wire.run("SUBSCRIBE news").await.unwrap();
    }
    let mut publisher = client(&proxy).await;
    assert_eq!(
        publisher.run("PUBLISH news hello").await.unwrap(),
        Value::Int(2)
    );
    let message = Value::Array(["message", "news", "hello"].map(Value::bulk).to_vec());
    assert_eq!(plain.reply().await.unwrap(), message);
    assert_eq!(modern.reply().await.unwrap(), message);
    // In RESP3 a subscriber may run other commands.
    assert!(modern.run("SET k v").await.unwrap().ok());
}

#[tokio::test]
async fn a_blocked_pop_is_woken_by_another_client() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut popper = client(&proxy).await;
    popper.send(&["BLPOP", "queue", "15"]).await.unwrap();
    assert_eq!(
        client(&proxy).await.run("RPUSH queue job").await.unwrap(),
        Value::Int(1)
    );
    let expected = Value::Array(["queue", "job"].map(Value::bulk).to_vec());
    assert_eq!(popper.reply().await.unwrap(), expected);
}

#[tokio::test]
async fn credentials_are_checked_by_the_server_and_kept_apart() {
    let shard = Shard::redis(0).await;
    let mut admin = shard.wire(0).await;
    for user in ["alice on >one ~a:* +@all", "bob on >two ~b:* +get"] {
        assert!(
            admin
                .run(&format!("ACL SETUSER {user}"))
                .await
                .unwrap()
                .ok()
        );
    }
    let proxy = shard.proxy().await;
    let (mut alice, mut bob) = (client(&proxy).await, client(&proxy).await);
    let wrong = alice.run("AUTH alice two").await.unwrap().text();
    assert!(wrong.starts_with("WRONGPASS"), "{wrong}");
    assert!(alice.run("AUTH alice one").await.unwrap().ok());
    assert!(bob.run("AUTH bob two").await.unwrap().ok());
    assert!(alice.run("SET a:k v").await.unwrap().ok());
    assert!(
        alice
            .run("SET b:k v")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert!(
        bob.run("SET b:k v")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert!(
        bob.run("GET a:k")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert_eq!(bob.run("GET b:k").await.unwrap(), Value::Null);
    assert_eq!(alice.run("ACL WHOAMI").await.unwrap(), Value::bulk("alice"));
}

#[tokio::test]
async fn a_server_that_wants_a_password_wants_it_from_clients_of_the_proxy_too() {
    let shard = Shard::redis(0).await;
    shard
        .wire(0)
        .await
        .run("CONFIG SET requirepass secret")
        .await
        .unwrap();
    let settings = Settings {
        shard: "password = \"secret\"".into(),
        ..Settings::default()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut wire = client(&proxy).await;
    assert!(
        wire.run("GET k")
            .await
            .unwrap()
            .text()
            .starts_with("NOAUTH")
    );
    assert!(
        wire.run("AUTH wrong")
            .await
            .unwrap()
            .text()
            .starts_with("WRONGPASS")
    );
    assert!(wire.run("AUTH secret").await.unwrap().ok());
    assert!(wire.run("SET k v").await.unwrap().ok());
}

#[tokio::test]
async fn each_client_has_an_id_of_its_own_that_stays() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let (mut one, mut two) = (client(&proxy).await, client(&proxy).await);
    let id = one.run("CLIENT ID").await.unwrap();
    assert_ne!(id, two.run("CLIENT ID").await.unwrap());
    one.run("MULTI").await.unwrap();
    one.run("EXEC").await.unwrap();
    assert_eq!(one.run("CLIENT ID").await.unwrap(), id);
}

#[tokio::test]
async fn one_client_past_the_limit_is_told_so_and_the_others_stay() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(proxy_settings("clients_max = 5")).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut wire = client(&proxy).await;
        wire.run("PING").await.unwrap();
        clients.push(wire);
    }
    let mut sixth = client(&proxy).await;
    let (answer, ending) = sixth.raw_until_quiet(Duration::from_secs(5)).await;
    assert_eq!(
        String::from_utf8_lossy(&answer),
        "-ERR max number of clients reached\r\n"
    );
    assert_eq!(ending, Ending::Closed);
    for wire in &mut clients {
        assert_eq!(
            wire.run("PING").await.unwrap(),
            Value::Simple("PONG".into())
        );
    }
    drop(clients.pop());
    wait_until("the free place is given away", async || {
        client(&proxy)
            .await
            .run("PING")
            .await
            .is_ok_and(|reply| reply.text() == "PONG")
    })
    .await;
}

#[tokio::test]
async fn a_request_at_a_limit_is_served_and_one_past_it_refused() {
    let shard = Shard::redis(0).await;
    let lines = "inline_bytes_max = 2000\nbulk_bytes_max = 1024\nelements_max = 10";
    let proxy = shard.proxy_with(proxy_settings(lines)).await;
    let mut wire = client(&proxy).await;
    let (fits, too_long) = ("x".repeat(1024), "x".repeat(1025));
    assert!(wire.call(&["SET", "k", &fits]).await.unwrap().ok());
    let reply = wire.call(&["SET", "k", &too_long]).await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: invalid bulk length");
    let mut wire = client(&proxy).await;
    let ten = "MGET 1 2 3 4 5 6 7 8 9";
    assert_eq!(wire.run(ten).await.unwrap().items().len(), 9);
    let reply = wire.run(&format!("{ten} 10")).await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: invalid multibulk length");
    let mut wire = client(&proxy).await;
    wire.send_raw(&[b'x'; 2100]).await.unwrap();
    let reply = wire.reply().await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: too big inline request");
}

#[tokio::test]
async fn a_thousand_clients_are_served_side_by_side() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(client(&proxy).await);
    }
    for (number, wire) in clients.iter_mut().enumerate() {
        wire.send(&["SET", &format!("k{number}"), &number.to_string()])
            .await
            .unwrap();
        wire.send(&["GET", &format!("k{number}")]).await.unwrap();
    }
    for (number, wire) in clients.iter_mut().enumerate() {
        assert!(wire.reply().await.unwrap().ok());
        assert_eq!(wire.reply().await.unwrap(), Value::bulk(number.to_string()));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut other = client(&proxy).await;
    other
        .call(&["SET", "k", &"x".repeat(100_000)])
        .await
        .unwrap();
    let mut lazy = client(&proxy).await;
    for _ in 0..100 {
        lazy.send(&["GET", "k"]).await.unwrap();
    }
    for number in 0..1000 {
        assert_eq!(other.run("INCR n").await.unwrap(), Value::Int(number + 1));
    }
    for _ in 0..100 {
        assert_eq!(lazy.reply().await.unwrap().text().len(), 100_000);
    }
}

#[tokio::test]
async fn the_client_library_most_people_use_works() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let client = redis::Client::open(format!("redis://{}/2?protocol=resp3", proxy.addr)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic().set("k", 41).ignore().incr("k", 1);
    let (number,): (i64,) = pipe.query_async(&mut connection).await.unwrap();
    assert_eq!(number, 42);
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    let text: String = script.key("k").invoke_async(&mut connection).await.unwrap();
    assert_eq!(text, "42");
}

/// Runs a command that needs a connection of the session's own, taken from the pool.
async fn store_large(wire: &mut Wire) -> Value {
    let value = "x".repeat(100_000);
    wire.call(&["SET", "large", &value]).await.unwrap()
}

// The server stays in the transaction when DISCARD is refused; the connection went to the pool.
#[tokio::test]
async fn a_transaction_that_was_not_discarded_is_nobody_elses() {
    let shard = Shard::redis(0).await;
    let proxy = shard
        .proxy_with(proxy_settings("workers = 1\npinned_idle_max = 1"))
        .await;
    let (mut one, mut other) = (client(&proxy).await, client(&proxy).await);
    one.run("MULTI").await.unwrap();
    let refused = one.run("DISCARD x").await.unwrap().text();
    assert!(refused.contains("wrong number"), "{refused}");
    assert_eq!(one.run("GET k").await.unwrap().text(), "QUEUED");
    assert!(store_large(&mut other).await.ok());
    assert!(one.run("DISCARD").await.unwrap().ok());
    assert!(store_large(&mut one).await.ok());
}

// A relay that stopped because its replies were untaken was not always told that they had been.
#[tokio::test]
async fn a_client_that_reads_late_gets_every_reply_on_a_connection_of_its_own() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let big = "x".repeat(30_000_000);
    let mut other = client(&proxy).await;
    assert!(other.call(&["SET", "big", &big]).await.unwrap().ok());
    let mut late = client(&proxy).await;
    assert!(late.run("WATCH k").await.unwrap().ok());
    late.send(&["GET", "big"]).await.unwrap();
    for part in 0..10 {
        // Whatever the proxy does meanwhile, it serves others.
        for _ in 0..50 {
            other.run("INCR n").await.unwrap();
        }
        late.send(&["ECHO", &part.to_string()]).await.unwrap();
    }
    assert_eq!(late.reply().await.unwrap().text().len(), big.len());
    for part in 0..10 {
        assert_eq!(late.reply().await.unwrap(), Value::bulk(part.to_string()));
    }
}

// Sessions that waited on the server were not told of the shutdown, which took its whole time.
#[tokio::test]
async fn clients_that_wait_on_the_server_do_not_delay_the_end_of_the_proxy() {
    let shard = Shard::redis(0).await;
    let mut proxy = shard
        .proxy_with(proxy_settings("shutdown_timeout_ms = 60000"))
        .await;
    let (mut subscriber, mut blocked) = (client(&proxy).await, client(&proxy).await);
    subscriber.run("SUBSCRIBE news").await.unwrap();
    blocked.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    let mut direct = shard.wire(0).await;
    wait_until("a client is blocked", async || {
        let info = direct.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients") == Some("1")
    })
    .await;
    proxy.signal("TERM").unwrap();
    wait_until("the proxy has ended", async || proxy.ended()).await;
}

// Nobody looked after the client of a WAIT, which may last for ever.
#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_replicas_is_let_go() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut wire = client(&proxy).await;
    wire.run("SET k v").await.unwrap();
    wire.send(&["WAIT", "1", "0"]).await.unwrap();
    let mut direct = shard.wire(0).await;
    let mut blocked = async |expected: &str| {
        let info = direct.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients") == Some(expected)
    };
    wait_until("the client waits", async || blocked("1").await).await;
    drop(wire);
    wait_until("the server lets go of it", async || blocked("0").await).await;
}

// A budget of 0 was the time given to the server's answer as well.
#[tokio::test]
async fn a_hold_budget_of_zero_does_not_cut_clients_that_change_who_they_are() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(proxy_settings("hold_budget_ms = 0")).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SELECT 1").await.unwrap().ok());
    assert!(wire.run("SET k v").await.unwrap().ok());
}

#[tokio::test]
async fn reads_without_a_master_are_answered_at_once_where_they_are_not_to_wait() {
    let mut shard = Shard::redis(0).await;
    let lines = "hold_budget_ms = 3600000\nreads_without_master = \"error\"";
    let proxy = shard.proxy_with(proxy_settings(lines)).await;
    let (mut reader, mut writer) = (client(&proxy).await, client(&proxy).await);
    assert!(writer.run("SET k v").await.unwrap().ok());
    assert_eq!(reader.run("GET k").await.unwrap().text(), "v");

    shard.set.nodes[0].kill();
    wait_until("reads are answered with an error", async || {
        match reader.run("GET k").await {
            Ok(answer) => answer.text().starts_with("TRYAGAIN"),
            // The connection was lost with its request.
            Err(_) => {
                reader = client(&proxy).await;
                false
            }
        }
    })
    .await;
    let mut writer = client(&proxy).await;
    writer.send(&["SET", "k", "w"]).await.unwrap();
    assert!(
        reader
            .run("GET k")
            .await
            .unwrap()
            .text()
            .starts_with("TRYAGAIN")
    );
    let (told, _) = writer
        .raw_until_quiet(std::time::Duration::from_millis(100))
        .await;
    assert!(told.is_empty(), "a write waits: {told:?}");
}

// The refused channel was remembered, so arrays that looked like messages were taken for some.
#[tokio::test]
async fn a_refused_subscription_is_none() {
    let shard = Shard::redis(0).await;
    let mut admin = shard.wire(0).await;
    let rule = "ACL SETUSER carol on >three ~* +@all resetchannels";
    assert!(admin.run(rule).await.unwrap().ok());
    let proxy = shard.proxy().await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("AUTH carol three").await.unwrap().ok());
    let refused = wire.run("SUBSCRIBE news").await.unwrap().text();
    assert!(refused.starts_with("NOPERM"), "{refused}");
    assert!(wire.run("SELECT 1").await.unwrap().ok());
    wire.run("RPUSH l message a b").await.unwrap();
    assert_eq!(wire.run("LRANGE l 0 -1").await.unwrap().items().len(), 3);
    assert_eq!(wire.run("GET k").await.unwrap(), Value::Null);
}

// Each line moved all that was behind it: a megabyte of them stopped a worker for seconds.
/// What is queued counts: the limit holds when EXEC runs it.
#[tokio::test]
async fn at_the_limit_a_client_subscribes_and_past_it_neither_alone_nor_in_a_transaction() {
    const MAX: usize = 65_536;
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let subscribe = |names: std::ops::Range<usize>| {
        let words = names.map(|number| number.to_string());
        ["SUBSCRIBE".to_owned()].into_iter().chain(words)
    };
    let mut wire = client(&proxy).await;
    let too_many = Value::Error(format!("ERR more than {MAX} subscriptions"));
    let all: Vec<String> = subscribe(0..MAX + 1).collect();
    assert_eq!(wire.call(&all).await.unwrap(), too_many);

    let half: Vec<String> = subscribe(0..MAX / 2).collect();
    let rest: Vec<String> = subscribe(MAX / 2..MAX).collect();
    let queued = Value::Simple("QUEUED".into());
    for last in ["PING", "SUBSCRIBE one-more"] {
        assert!(wire.run("MULTI").await.unwrap().ok());
        assert_eq!(wire.call(&half).await.unwrap(), queued);
        assert_eq!(wire.call(&rest).await.unwrap(), queued);
        let reply = wire.run(last).await.unwrap();
        if last == "PING" {
            assert!(wire.run("DISCARD").await.unwrap().ok());
            continue;
        }
        assert_eq!(reply, too_many);
        let refused = wire.run("EXEC").await.unwrap();
        assert!(refused.text().starts_with("EXECABORT"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_megabyte_of_typed_commands_is_read_in_its_length() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(proxy_settings("workers = 1")).await;
    let mut wire = client(&proxy).await.with_deadline(Duration::from_secs(60));
    let count = 100_000;
    let mut sending = b"SET k v\r\n".repeat(count);
    sending.extend_from_slice(b"PING\r\n");
    wire.send_raw(&sending).await.unwrap();
    for _ in 0..count {
        assert!(wire.reply().await.unwrap().ok());
    }
    assert_eq!(wire.reply().await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn a_password_set_while_the_proxy_runs_counts_for_every_new_client() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut early = client(&proxy).await;
    assert!(early.run("SET k 1").await.unwrap().ok());
    let mut direct = shard.wire(0).await;
    let set = direct.run("CONFIG SET requirepass secret").await.unwrap();
    assert!(set.ok(), "{set:?}");

    let refused =
        |answer: &Value| matches!(answer, Value::Error(text) if text.starts_with("NOAUTH"));
    wait_until("new clients are asked for the password", async || {
        let answer = client(&proxy).await.run("GET k").await.unwrap();
        refused(&answer)
    })
    .await;
    // Every way to the server counts, also those that use a connection of their own.
    for line in ["MULTI", "BLPOP q 1", "SELECT 1", "SUBSCRIBE c", "HELLO 3"] {
        let answer = client(&proxy).await.run(line).await.unwrap();
        assert!(refused(&answer), "{line}: {answer:?}");
    }
    // Who was there before stays, as on the server itself.
    assert_eq!(early.run("GET k").await.unwrap(), Value::bulk("1"));

    let mut late = client(&proxy).await;
    assert!(late.run("AUTH secret").await.unwrap().ok());
    assert_eq!(late.run("GET k").await.unwrap(), Value::bulk("1"));
}

#[tokio::test]
async fn a_worker_that_is_asked_nothing_sleeps() {
    let shard = Shard::redis(0).await;
    let lines = "workers = 1\nbusy_poll_us = 1000";
    let proxy = shard.proxy_with(proxy_settings(lines)).await;
    let mut wire = client(&proxy).await;
    for _ in 0..100 {
        assert!(wire.run("SET k v").await.unwrap().ok());
    }
    wait_until("the worker sleeps", async || {
        worker_state(proxy.pid()) == Some('S')
    })
    .await;
    assert!(wire.run("SET k v").await.unwrap().ok());
}

/// What the first worker's thread does, in the letters of `ps`.
fn worker_state(pid: u32) -> Option<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains("(worker-0)"))?;
    stat.rsplit_once(") ")?.1.chars().next()
}
