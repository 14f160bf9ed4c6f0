//! Commands that wait on the server: whoever waits goes on waiting on the next master, and is
//! served once, in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const SWITCHOVERS: usize = 8;
const PRODUCERS: u64 = 3;
/// Elements that may be there and not consumed.
const BACKLOG: u64 = 20;

/// How often each element was handed to a consumer.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

fn see(seen: &Seen, work: &Work, element: String) {
    *seen.lock().unwrap().entry(element).or_default() += 1;
    work.did_one();
}

/// Puts unique elements where consumers wait, until the work is over; gives the commands, each of
/// which ends with its element.
async fn produce(mut wire: Wire, producer: u64, made: Work, work: Work) -> Vec<String> {
    let mut dice = Dice::new(producer);
    let (mut count, mut lines) = (0, Vec::new());
    while !work.is_over() {
        // No further ahead than this, so that consumers have to wait again and again.
        while made.done() >= work.done() + BACKLOG && !work.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        made.did_one();
        let element = format!("e{producer}-{count}");
        let line = match dice.roll(5) {
            0 => format!("LPUSH list {element}"),
            1 => format!("RPUSH list {element}"),
            2 => format!("RPUSH moved {element}"),
            3 => format!("ZADD sorted {count} {element}"),
            _ => format!("XADD stream * element {element}"),
        };
        let reply = wire.run(&line).await.unwrap();
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
        count += 1;
        lines.push(line);
    }
    lines
}

/// The element in the reply of a consumer's command.
fn element_of(command: &str, reply: &Value) -> String {
    let items = reply.items();
    match command {
        "BLMOVE" | "BRPOPLPUSH" => reply.text(),
        "BLMPOP" => items[1].items()[0].text(),
        "BZMPOP" => items[1].items()[0].items()[0].text(),
        "XREADGROUP" => items[0].items()[1].items()[0].items()[1].items()[1].text(),
        _ => items[1].text(),
    }
}

/// What becomes of a client that the server never answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    IsWrong,
    /// It comes back on another connection. Kvrocks may forget a client, and its time-out with it,
    /// when an element comes in the instant in which the time is over: without a proxy one of 3 000
    /// to 9 000 commands, on two busy cores. `CLIENT LIST` shows a reply that it never sends.
    ComesBack,
}

/// Takes elements with one command, again and again; `TIME` stands for its time-out.
async fn consume(
    addr: String,
    line: String,
    seed: u64,
    unanswered: Unanswered,
    seen: Seen,
    (work, end): (Work, Work),
) {
    let mut wire = Wire::connect(&addr).await.unwrap();
    let mut dice = Dice::new(seed);
    let command = line.split(' ').next().unwrap_or_default().to_owned();
    while !end.is_over() {
        // Mostly short, sometimes so long that it outlasts several switchovers.
        let millis = match dice.roll(6) {
            0 => 1500,
            _ => 20 + dice.roll(80),
        };
        let time = match command.as_str() {
            "XREADGROUP" => millis.to_string(),
            _ => format!("{:.3}", millis as f64 / 1000.0),
        };
        let reply = wire.run(&line.replace("TIME", &time)).await;
        if let (Err(WireError::Deadline(_)), Unanswered::ComesBack) = (&reply, unanswered) {
            eprintln!("forgotten by the server: {line}, for {time}");
            wire = Wire::connect(&addr).await.unwrap();
            continue;
        }
        match reply.unwrap_or_else(|error| panic!("{line}: {error}")) {
            Value::Null => {}
            Value::Array(none) if none.is_empty() => {}
            Value::Error(text) => panic!("{line}: {text}"),
            reply => see(&seen, &work, element_of(&command, &reply)),
        }
    }
}

async fn check_queue(shard: Shard, lines: &[&str], unanswered: Unanswered) {
    let proxy = shard.proxy_with(patient()).await;
    let (seen, work, end) = (Seen::default(), Work::default(), Work::default());
    let mut wire = client(&proxy).await;
    let made = wire.run("XGROUP CREATE stream group $ MKSTREAM").await;
    assert!(made.unwrap().ok());
    let mut consumers = Vec::new();
    for (seed, line) in lines.iter().enumerate() {
        let (addr, line) = (proxy.addr.clone(), (*line).to_owned());
        let (seen, works) = (seen.clone(), (work.clone(), end.clone()));
        let consumer = consume(addr, line, seed as u64, unanswered, seen, works);
        consumers.push(tokio::spawn(consumer));
    }
    let (mut producers, made) = (Vec::new(), Work::default());
    for producer in 0..PRODUCERS {
        let wire = client(&proxy).await;
        producers.push(tokio::spawn(produce(
            wire,
            producer,
            made.clone(),
            work.clone(),
        )));
    }
    to_and_fro(&shard, &proxy, SWITCHOVERS, async || work.goes_on(60).await).await;
    work.end();
    let mut produced = Vec::new();
    for producer in producers {
        produced.extend(producer.await.unwrap());
    }
    let lost = || {
        let seen = seen.lock().unwrap();
        let is_lost = |line: &String| {
            let element = line.rsplit(' ').next().unwrap_or_default();
            !seen.contains_key(element)
        };
        let lost = produced.iter().filter(|line| is_lost(line));
        lost.cloned().collect::<Vec<String>>()
    };
    let deadline = Instant::now() + SOON;
    while !lost().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(lost().is_empty(), "lost: {:?}", lost());
    end.end();
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let seen = seen.lock().unwrap();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "consumed twice: {twice:?}");
    assert_eq!(seen.len(), produced.len());
}

#[tokio::test]
async fn every_element_is_consumed_once() {
    let lines = [
        "BLPOP list TIME",
        "BRPOP nothing list TIME",
        "BLMPOP TIME 1 list LEFT",
        "BLMOVE moved taken LEFT RIGHT TIME",
        "BZPOPMIN sorted TIME",
        "BZPOPMAX sorted TIME",
        "BZMPOP TIME 1 sorted MIN",
        "XREADGROUP GROUP group one COUNT 1 BLOCK TIME STREAMS stream >",
        "XREADGROUP GROUP group two COUNT 1 BLOCK TIME STREAMS stream >",
        "BRPOPLPUSH moved taken TIME",
    ];
    check_queue(Shard::redis(1).await, &lines, Unanswered::IsWrong).await;
}

/// One consumer for a list or sorted set: of several that wait for one, Kvrocks forgets those that
/// were woken and came too late, and their time-outs with them, also without a proxy.
#[tokio::test]
async fn every_element_is_consumed_once_on_kvrocks() {
    let lines = [
        "BLPOP nothing list TIME",
        "BLMOVE moved taken LEFT RIGHT TIME",
        "BZPOPMIN sorted TIME",
        "XREADGROUP GROUP group one COUNT 1 BLOCK TIME STREAMS stream >",
        "XREADGROUP GROUP group two COUNT 1 BLOCK TIME STREAMS stream >",
    ];
    if let Some(shard) = Shard::kvrocks(1).await {
        check_queue(shard, &lines, Unanswered::ComesBack).await;
    }
}

/// Waits until `count` clients wait on one of the nodes.
async fn until_blocked(shard: &Shard, count: usize) {
    let mut wires = [shard.wire(0).await, shard.wire(1).await];
    wait_until("commands wait on a server", async || {
        let mut blocked = 0;
        for wire in &mut wires {
            let info = wire.run("INFO clients").await.unwrap().text();
            let field = field(&info, "blocked_clients").unwrap_or("0");
            blocked += field.parse::<usize>().unwrap();
        }
        blocked >= count
    })
    .await;
}

/// Connections to either node whose last command was an `XREAD`.
async fn reading(wires: &mut [Wire]) -> Vec<(usize, String)> {
    let mut reading = Vec::new();
    for (node, wire) in wires.iter_mut().enumerate() {
        let list = wire.run("CLIENT LIST").await.unwrap().text();
        let lines = list.lines().filter(|line| line.contains(" cmd=xread"));
        let ids = lines.filter_map(|line| line.split(' ').next());
        reading.extend(ids.map(|id| (node, id.to_owned())));
    }
    reading
}

async fn switch(shard: &Shard, proxy: &Proxy, to: usize) {
    let report = switchover(proxy, &shard.addr(to)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    shard.in_sync(&shard.addr(to)).await;
}

#[tokio::test]
async fn who_waits_longest_is_served_first_after_switchovers_too() {
    const WAITERS: usize = 24;
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        waiters.push(client(&proxy).await);
    }
    let in_order: Vec<String> = (0..WAITERS).map(|at| at.to_string()).collect();
    let mut orders = Vec::new();
    // A server that gets no processor may turn them round (`shard::line`), but not every time;
    // whose packet is first would never be the right one 24 times over.
    while orders.last() != Some(&in_order) {
        assert!(orders.len() < 4, "{orders:?}");
        orders.push(served_after_switchovers(&shard, &proxy, &mut waiters).await);
    }
}

/// All begin to wait, one after the other, and six switchovers later as many elements come. Who got
/// which.
async fn served_after_switchovers(
    shard: &Shard,
    proxy: &Proxy,
    waiters: &mut [Wire],
) -> Vec<String> {
    for (at, waiter) in waiters.iter_mut().enumerate() {
        waiter.send(&["BLPOP", "queue", "0"]).await.unwrap();
        until_blocked(shard, at + 1).await;
    }
    for to in [1, 0, 1, 0, 1, 0] {
        switch(shard, proxy, to).await;
        until_blocked(shard, waiters.len()).await;
    }
    let mut pusher = client(proxy).await;
    for at in 0..waiters.len() {
        pusher.run(&format!("RPUSH queue {at}")).await.unwrap();
    }
    let mut served = Vec::new();
    for waiter in waiters {
        let reply = waiter.reply().await.unwrap();
        assert_eq!(reply.items().len(), 2, "{reply:?}");
        served.push(reply.items()[1].text());
    }
    served
}

/// A reader waits for what is added from now on; exactly that is what it gets, although the master
/// changes all the while.
async fn check_from_now_on(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let (work, end) = (Work::default(), Work::default());
    let switching = async {
        to_and_fro(&shard, &proxy, SWITCHOVERS, async || work.goes_on(6).await).await;
        end.end();
    };
    tokio::join!(switching, read_from_now_on(&shard, &proxy, &work, &end));
}

async fn read_from_now_on(shard: &Shard, proxy: &Proxy, work: &Work, end: &Work) {
    let mut reader = client(proxy).await;
    let mut writer = client(proxy).await;
    let mut wires = [shard.wire(0).await, shard.wire(1).await];
    let mut number = 0;
    while !end.is_over() {
        number += 1;
        // Another command is the last one of the connection that is used next.
        assert!(reader.run("UNWATCH").await.unwrap().ok());
        let before = reading(&mut wires).await;
        let read = [
            "XREAD", "BLOCK", "0", "STREAMS", "other", "stream", "$", "$",
        ];
        reader.send(&read).await.unwrap();
        wait_until("the reader waits on a server", async || {
            let now = reading(&mut wires).await;
            now.iter().any(|one| !before.contains(one))
        })
        .await;
        for half in ["a", "b"] {
            let added = writer
                .run(&format!("XADD stream * number {number}{half}"))
                .await;
            assert!(matches!(added.unwrap(), Value::Bulk(_)));
        }
        let reply = reader.reply().await.unwrap();
        let stream = &reply.items()[0];
        assert_eq!(stream.items()[0], Value::bulk("stream"));
        let first = &stream.items()[1].items()[0];
        let expected = format!("{number}a");
        assert_eq!(
            first.items()[1].items()[1],
            Value::bulk(expected),
            "{reply:?}"
        );
        work.did_one();
    }
}

#[tokio::test]
async fn a_reader_from_now_on_misses_nothing_and_sees_nothing_old() {
    check_from_now_on(Shard::redis(1).await).await;
}

#[tokio::test]
async fn a_reader_from_now_on_of_kvrocks_misses_nothing_and_sees_nothing_old() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_from_now_on(shard).await;
    }
}

/// Of two members of a group that wait for one entry the server tells one that there is nothing; on
/// Kvrocks it tells it twice.
#[tokio::test]
async fn members_that_are_woken_for_nothing_get_one_answer_each_on_kvrocks() {
    let Some(shard) = Shard::kvrocks(0).await else {
        return;
    };
    let proxy = shard.proxy_with(patient()).await;
    let mut server = shard.wire(0).await;
    let mut writer = client(&proxy).await;
    let made = writer.run("XGROUP CREATE stream group $ MKSTREAM").await;
    assert!(made.unwrap().ok());
    let mut members = [client(&proxy).await, client(&proxy).await];
    for member in &mut members {
        // From here on each of them has one connection to the server.
        assert!(member.run("WATCH other").await.unwrap().ok());
    }
    for number in 0..40 {
        for (member, name) in members.iter_mut().zip(["one", "two"]) {
            let wait = ["XREADGROUP", "GROUP", "group", name, "COUNT", "1"];
            let whence = ["BLOCK", "0", "STREAMS", "stream", ">"];
            member.send(&[&wait[..], &whence].concat()).await.unwrap();
        }
        wait_until("both members wait", async || {
            reading(std::slice::from_mut(&mut server)).await.len() == 2
        })
        .await;
        let added = writer.run(&format!("XADD stream * number {number}")).await;
        assert!(matches!(added.unwrap(), Value::Bulk(_)));
        let mut answers = Vec::new();
        for member in &mut members {
            answers.push(member.reply().await.unwrap());
            let text = format!("after {number}");
            assert_eq!(
                member.call(&["ECHO", &text]).await.unwrap(),
                Value::bulk(text),
                "{answers:?}"
            );
        }
        let with_entry = answers.iter().filter(|answer| !answer.items().is_empty());
        assert_eq!(with_entry.count(), 1, "{answers:?}");
        assert!(answers.contains(&Value::Null), "{answers:?}");
    }
}

#[tokio::test]
async fn what_is_sent_behind_a_command_that_waits_is_answered_behind_it() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    let mut batch = Vec::new();
    for words in [
        &["INCR", "n"][..],
        &["BLPOP", "queue", "0"],
        &["INCR", "n"],
        &["BRPOP", "queue", "0"],
        &["INCR", "n"],
    ] {
        put_request(&mut batch, words);
    }
    wire.send_raw(&batch).await.unwrap();
    until_blocked(&shard, 1).await;
    switch(&shard, &proxy, 1).await;
    let mut pusher = client(&proxy).await;
    pusher.run("RPUSH queue one").await.unwrap();
    until_blocked(&shard, 1).await;
    switch(&shard, &proxy, 0).await;
    pusher.run("RPUSH queue two").await.unwrap();
    let popped = |element: &str| Value::Array(["queue", element].map(Value::bulk).to_vec());
    for expected in [
        Value::Int(1),
        popped("one"),
        Value::Int(2),
        popped("two"),
        Value::Int(3),
    ] {
        assert_eq!(wire.reply().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_time_out_goes_on_through_switchovers() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    wire.send(&["BLPOP", "queue", "1.5"]).await.unwrap();
    for to in [1, 0] {
        switch(&shard, &proxy, to).await;
    }
    assert_eq!(wire.reply().await.unwrap(), Value::Null);
    // A pop that has ended takes nothing.
    assert_eq!(wire.run("RPUSH queue x").await.unwrap(), Value::Int(1));
    assert_eq!(wire.run("LLEN queue").await.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn keys_watched_by_who_waits_are_not_vouched_for() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("WATCH k").await.unwrap().ok());
    wire.send(&["BLPOP", "queue", "0"]).await.unwrap();
    until_blocked(&shard, 1).await;
    switch(&shard, &proxy, 1).await;
    client(&proxy).await.run("RPUSH queue x").await.unwrap();
    assert_eq!(wire.reply().await.unwrap().items().len(), 2);
    for line in ["MULTI", "SET k 1"] {
        wire.run(line).await.unwrap();
    }
    assert_eq!(wire.run("EXEC").await.unwrap(), Value::Null);
}

#[tokio::test]
async fn who_waits_keeps_what_else_it_has_open() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for line in ["HELLO 3", "CLIENT TRACKING ON", "SUBSCRIBE news", "GET k"] {
        wire.run(line).await.unwrap();
    }
    wire.send(&["BLPOP", "queue", "0"]).await.unwrap();
    let mut other = client(&proxy).await;
    let bulks = |texts: &[&str]| Value::Array(texts.iter().map(Value::bulk).collect());
    for to in [1, 0, 1] {
        until_blocked(&shard, 1).await;
        switch(&shard, &proxy, to).await;
        let all = Value::Array(vec![Value::bulk("invalidate"), Value::Null]);
        assert_eq!(wire.reply().await.unwrap(), all);
        assert_eq!(
            other.run("PUBLISH news hello").await.unwrap(),
            Value::Int(1)
        );
        let message = bulks(&["message", "news", "hello"]);
        assert_eq!(wire.reply().await.unwrap(), message);
    }
    other.run("RPUSH queue x").await.unwrap();
    assert_eq!(wire.reply().await.unwrap(), bulks(&["queue", "x"]));
    wire.run("GET k").await.unwrap();
    other.run("SET k 1").await.unwrap();
    let one = Value::Array(vec![Value::bulk("invalidate"), bulks(&["k"])]);
    assert_eq!(wire.reply().await.unwrap(), one);
}

#[tokio::test]
async fn waiting_for_replicas_goes_on_and_counts_those_of_the_new_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET k 1").await.unwrap().ok());
    // More replicas than there are: it lasts its whole time.
    wire.send(&["WAIT", "2", "1500"]).await.unwrap();
    until_blocked(&shard, 1).await;
    for to in [1, 0] {
        switch(&shard, &proxy, to).await;
    }
    assert_eq!(wire.reply().await.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn a_write_from_before_is_waited_for_after() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET k 1").await.unwrap().ok());
    switch(&shard, &proxy, 1).await;
    assert_eq!(wire.run("WAIT 1 0").await.unwrap(), Value::Int(1));
    // The only replica is stopped: nobody can say that it has the next write.
    shard.set.nodes[0].freeze().unwrap();
    assert!(wire.run("SET k 2").await.unwrap().ok());
    assert_eq!(wire.run("WAIT 1 100").await.unwrap(), Value::Int(0));
    assert_eq!(
        client(&proxy).await.run("WAIT 1 100").await.unwrap(),
        Value::Int(0)
    );
    shard.set.nodes[0].thaw().unwrap();
    assert_eq!(wire.run("WAIT 1 0").await.unwrap(), Value::Int(1));
}
