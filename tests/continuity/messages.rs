//! Subscriptions: every message that is published through the proxy arrives once and in order,
//! whatever becomes of the masters.

use std::time::Duration;

use crate::shuttle::{Work, to_and_fro};
use crate::support::*;

const LAST: &str = "the end";

/// How somebody listens: the commands that subscribe, and where the payload of a message stands.
#[derive(Clone, Copy, Debug)]
struct Listens {
    subscribe: &'static str,
    resp3: bool,
    payload: usize,
}

const LISTEN: [Listens; 4] = [
    Listens {
        subscribe: "SUBSCRIBE numbers others",
        resp3: false,
        payload: 2,
    },
    Listens {
        subscribe: "SUBSCRIBE numbers",
        resp3: true,
        payload: 2,
    },
    Listens {
        subscribe: "PSUBSCRIBE num*",
        resp3: false,
        payload: 3,
    },
    Listens {
        subscribe: "PSUBSCRIBE n?mbers x*",
        resp3: true,
        payload: 3,
    },
];

async fn listen(proxy: &Proxy, how: Listens) -> Wire {
    let mut wire = client(proxy).await;
    if how.resp3 {
        wire.run("HELLO 3").await.unwrap();
    }
    let names = how.subscribe.split(' ').count() - 1;
    wire.send(&how.subscribe.split(' ').collect::<Vec<_>>())
        .await
        .unwrap();
    for number in 1..=names {
        let confirmed = wire.reply().await.unwrap();
        assert_eq!(confirmed.items()[2], Value::Int(number as i64));
    }
    wire
}

/// Everything up to the last message; the numbers must be 0, 1, 2, ... without gap or repetition.
async fn hear(mut wire: Wire, how: Listens) -> (Wire, u64) {
    let mut expected = 0;
    loop {
        let message = wire.reply().await.unwrap();
        let payload = message.items()[how.payload].text();
        if payload == LAST {
            return (wire, expected);
        }
        assert_eq!(payload, expected.to_string(), "{how:?} after {expected}");
        expected += 1;
    }
}

async fn publish(mut wire: Wire, command: String, work: Work) -> u64 {
    let mut number = 0;
    while !work.is_over() {
        let reply = wire
            .run(&format!("{command} numbers {number}"))
            .await
            .unwrap();
        assert!(matches!(reply, Value::Int(_)), "{reply:?}");
        number += 1;
        work.did_one();
    }
    wire.call(&[command.as_str(), "numbers", LAST])
        .await
        .unwrap();
    number
}

async fn check_messages(shard: Shard, publishes: &str, listeners: &[Listens], strict: bool) {
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut hearing = Vec::new();
    for how in listeners {
        let wire = listen(&proxy, *how).await;
        hearing.push((*how, tokio::spawn(hear(wire, *how))));
    }
    // Waits all the time for a message that comes at the end.
    let mut idle = client(&proxy).await;
    idle.run("SUBSCRIBE quiet").await.unwrap();
    let publisher = client(&proxy).await;
    let publishing = tokio::spawn(publish(publisher, publishes.to_owned(), work.clone()));
    to_and_fro(&shard, &proxy, 8, async || work.goes_on(100).await).await;
    work.end();
    let published = publishing.await.unwrap();
    for (how, listener) in hearing {
        let (mut wire, heard) = listener.await.unwrap();
        assert_eq!(heard, published, "{how:?}");
        subscribed_as_on_a_server(&mut wire, how, strict).await;
    }
    let mut wire = client(&proxy).await;
    wire.run("PUBLISH quiet now").await.unwrap();
    let message = idle.reply().await.unwrap();
    assert_eq!(message.items()[2], Value::bulk("now"));
}

/// In RESP2 nothing but (un)subscribing and PING is possible, where the server is `strict`;
/// afterwards everything is again.
async fn subscribed_as_on_a_server(wire: &mut Wire, how: Listens, strict: bool) {
    let refuses = strict && !how.resp3;
    let get = wire.run("GET nothing").await.unwrap();
    assert_eq!(matches!(get, Value::Error(_)), refuses, "{how:?}: {get:?}");
    let ping = wire.run("PING").await.unwrap();
    assert_eq!(!ping.items().is_empty(), refuses, "{how:?}: {ping:?}");
    let names: Vec<&str> = how.subscribe.split(' ').skip(1).collect();
    let command = how.subscribe.replace("SUBSCRIBE", "UNSUBSCRIBE");
    wire.send(&command.split(' ').collect::<Vec<_>>())
        .await
        .unwrap();
    for left in (0..names.len()).rev() {
        let confirmed = wire.reply().await.unwrap();
        assert_eq!(confirmed.items()[2], Value::Int(left as i64));
    }
    assert_eq!(wire.run("GET nothing").await.unwrap(), Value::Null);
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_through_switchovers() {
    check_messages(Shard::redis(1).await, "PUBLISH", &LISTEN, true).await;
}

#[tokio::test]
async fn shard_messages_arrive_once_and_in_order_through_switchovers() {
    let of = |resp3| Listens {
        subscribe: "SSUBSCRIBE numbers",
        resp3,
        payload: 2,
    };
    check_messages(
        Shard::redis(1).await,
        "SPUBLISH",
        &[of(false), of(true)],
        true,
    )
    .await;
}

/// Who has subscribed in a transaction hears the same as who has not; a second transaction ends one
/// of the subscriptions again.
#[tokio::test]
async fn subscriptions_of_a_transaction_are_moved_too() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut wire = client(&proxy).await;
        wire.run(hello).await.unwrap();
        for line in [
            "MULTI",
            "SUBSCRIBE gone numbers",
            "PSUBSCRIBE n*",
            "UNSUBSCRIBE gone",
        ] {
            let reply = wire.run(line).await.unwrap();
            assert!(matches!(reply, Value::Simple(_)), "{line}: {reply:?}");
        }
        wire.send(&["EXEC"]).await.unwrap();
        wire.raw_until(b"\r\n$4\r\ngone\r\n:2\r\n", Duration::from_secs(5))
            .await;
        let mut publishing = client(&proxy).await;
        to_and_fro(&shard, &proxy, 4, async || {
            let heard = publishing.run("PUBLISH gone x").await.unwrap();
            assert_eq!(heard, Value::Int(0));
            let heard = publishing.run("PUBLISH numbers 7").await.unwrap();
            assert_eq!(heard, Value::Int(2));
            for (payload, word) in [(2, "message"), (3, "pmessage")] {
                let message = wire.reply().await.unwrap();
                assert_eq!(message.items()[0], Value::bulk(word), "{hello}");
                assert_eq!(message.items()[payload], Value::bulk("7"), "{hello}");
            }
        })
        .await;
    }
}

/// Nobody is left out whose transaction is open while the master changes.
#[tokio::test]
async fn a_transaction_that_subscribes_is_queued_again_on_the_next_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for line in ["MULTI", "INCR k", "CLIENT REPLY OFF", "SUBSCRIBE numbers"] {
        let reply = wire.run(line).await.unwrap();
        assert!(matches!(reply, Value::Simple(_)), "{line}: {reply:?}");
    }
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    wire.send(&["EXEC"]).await.unwrap();
    let expected = b"*3\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$7\r\nnumbers\r\n:1\r\n";
    let (bytes, _) = wire.raw_until(expected, Duration::from_secs(5)).await;
    assert_eq!(bytes, expected);
    let mut publishing = client(&proxy).await;
    let heard = publishing.run("PUBLISH numbers 7").await.unwrap();
    assert_eq!(heard, Value::Int(1));
}

#[tokio::test]
async fn messages_of_kvrocks_arrive_once_and_in_order_through_switchovers() {
    // One that does not speak RESP3 says yes to HELLO 3 all the same, and goes on in RESP2.
    for resp3 in ["no", "yes"] {
        let Some(shard) = Shard::kvrocks_with(1, &["--resp3-enabled", resp3]).await else {
            return;
        };
        check_messages(shard, "PUBLISH", &LISTEN, false).await;
    }
}

async fn write(mut wire: Wire, work: Work) -> u64 {
    let mut number = 0;
    while !work.is_over() {
        let reply = wire.run(&format!("SET {number} x")).await.unwrap();
        assert!(reply.ok(), "{reply:?}");
        number += 1;
        work.did_one();
    }
    wire.call(&["SET", LAST, "x"]).await.unwrap();
    number
}

#[tokio::test]
async fn an_event_is_heard_for_every_write_through_switchovers() {
    let options = ["--notify-keyspace-events", "KEA"];
    let shard = Shard::redis_with(1, &options).await;
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let how = Listens {
        subscribe: "SUBSCRIBE __keyevent@0__:set",
        resp3: false,
        payload: 2,
    };
    let hearing = tokio::spawn(hear(listen(&proxy, how).await, how));
    let writing = tokio::spawn(write(client(&proxy).await, work.clone()));
    to_and_fro(&shard, &proxy, 8, async || work.goes_on(100).await).await;
    work.end();
    let written = writing.await.unwrap();
    assert_eq!(hearing.await.unwrap().1, written);
}
