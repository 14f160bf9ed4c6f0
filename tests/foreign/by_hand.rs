//! One proxy, and an operator who knows nothing of it.

use std::time::Duration;

use pointsman::cli::demo::servers::plain_role_change;

use pointsman::cli::demo::wire::{Wire, WireError};

use crate::crowd::{Crowd, Kinds};
use crate::support::*;

/// The proxy has found out that `master` is the master.
pub async fn followed(proxy: &Proxy, master: &str) {
    wait_until("the proxy follows", async || {
        let status = status(proxy).await;
        status["master"] == master && status["gate"] == "open"
    })
    .await;
}

pub async fn change_by_hand(shard: &Shard, from: usize, to: usize) {
    let (from, to) = (shard.addr(from), shard.addr(to));
    plain_role_change(&shard.addrs(), &from, &to).await.unwrap();
    shard.in_sync(&to).await;
}

/// Redis' own command, which waits for the replica by itself.
pub async fn change_by_failover(shard: &Shard, from: usize, to: usize) {
    let to = shard.addr(to);
    let (host, port) = to.rsplit_once(':').unwrap();
    let mut wire = shard.wire(from).await;
    // The master may learn later than the replica that it is in sync.
    wait_until("the failover begins", async || {
        let begun = wire.call(&["FAILOVER", "TO", host, port]).await.unwrap();
        let not_yet = begun.text().contains("target replica is not online");
        assert!(begun.ok() || not_yet, "{begun:?}");
        begun.ok()
    })
    .await;
    wait_until("the failover ends", async || {
        shard.master().await.as_ref() == Some(&to)
    })
    .await;
    for node in shard.addrs().iter().filter(|node| **node != to) {
        follow(node, &to).await.unwrap();
    }
    shard.in_sync(&to).await;
}

#[tokio::test]
async fn roles_changed_with_replicaof_are_not_noticed_by_clients() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_hand(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

#[tokio::test]
async fn redis_own_failover_is_not_noticed_by_clients() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_failover(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

/// The same on Kvrocks: fence, wait, promote. Its feed to the target is ended by hand, since it
/// would not follow its own replica before.
async fn change_kvrocks_by_hand(shard: &Shard, from: usize, to: usize) {
    let (mut old, mut target) = (shard.wire(from).await, shard.wire(to).await);
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = sink.local_addr().unwrap().port().to_string();
    let fenced = old.call(&["SLAVEOF", "127.0.0.1", &port]).await.unwrap();
    assert!(fenced.ok(), "{fenced:?}");
    let offset = async |wire: &mut Wire| {
        let info = wire.run("INFO replication").await.unwrap().text();
        field(&info, "slave_repl_offset").map(str::to_owned)
    };
    // A command that was woken just before still pops behind the fence: one look is not enough.
    let mut before = None;
    wait_until("the target has everything", async || {
        let now = (offset(&mut target).await, offset(&mut old).await);
        let settled = now.0 == now.1 && before.as_ref() == Some(&now);
        before = Some(now);
        settled
    })
    .await;
    target.run("SLAVEOF NO ONE").await.unwrap();
    let to = shard.addr(to);
    for node in shard.addrs().iter().filter(|node| **node != to) {
        wait_until("the others follow", async || {
            old.run("CLIENT KILL TYPE slave").await.unwrap();
            follow(node, &to).await.is_ok()
        })
        .await;
    }
    shard.in_sync(&to).await;
}

#[tokio::test]
async fn roles_changed_by_hand_on_kvrocks_are_not_noticed_by_clients() {
    let Some(shard) = Shard::kvrocks(1).await else {
        return;
    };
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 0)] {
        change_kvrocks_by_hand(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

/// The node is no master any more when it comes to what is sent, which is there already: had the
/// proxy heard of it first, it would keep a write.
async fn demote_under(node: &mut Wire, sending: impl Future<Output = Result<(), WireError>>) {
    let paused = node.run("CLIENT PAUSE 100000 WRITE").await.unwrap();
    assert!(paused.ok(), "{paused:?}");
    sending.await.unwrap();
    wait_until("the write is on the node", async || {
        let info = node.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients") == Some("1")
    })
    .await;
    let mut orders = Vec::new();
    put_request(&mut orders, &["REPLICAOF", "127.0.0.1", "1"]);
    put_request(&mut orders, &["CLIENT", "UNPAUSE"]);
    node.send_raw(&orders).await.unwrap();
    for _ in 0..2 {
        let done = node.reply().await.unwrap();
        assert!(done.ok(), "{done:?}");
    }
}

/// Nothing tells such a client's refused write from an answered one but the answer itself.
#[tokio::test]
async fn a_client_that_wants_no_replies_loses_no_write_in_holds_after_a_refusal() {
    // Refusals are counted once a second.
    const BUDGET: Duration = Duration::from_millis(2500);
    let shard = Shard::redis(1).await;
    let budget = format!("hold_budget_ms = {}", BUDGET.as_millis());
    let settings = Settings {
        proxy: budget,
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut mute = client(&proxy).await;
    mute.send(&["CLIENT", "REPLY", "OFF"]).await.unwrap();
    mute.send(&["INCR", "counter"]).await.unwrap();
    let mut master = shard.wire(0).await;
    counts_to(&mut master, 1).await;

    // It is no master for an instant, and then again.
    demote_under(&mut master, mute.send(&["INCR", "counter"])).await;
    wait_until("the write is refused", async || refusals(&proxy).await > 0).await;
    assert!(master.run("REPLICAOF NO ONE").await.unwrap().ok());
    counts_to(&mut master, 2).await;

    // Its budget is long over when the next hold comes.
    tokio::time::sleep(BUDGET + BUDGET / 4).await;
    shard.in_sync(&shard.addr(0)).await;
    let mut sent = 2;
    for to in [1, 0, 1, 0] {
        let target = shard.addr(to);
        let ordered = switchover(&proxy, &target);
        tokio::pin!(ordered);
        let mut ended = None;
        while ended.is_none() {
            let increment = mute.send(&["INCR", "counter"]);
            tokio::pin!(increment);
            // What has been begun to be sent is sent.
            loop {
                tokio::select! {
                    report = &mut ordered, if ended.is_none() => ended = Some(report),
                    written = &mut increment => break written.unwrap(),
                }
            }
            sent += 1;
            tokio::task::yield_now().await;
        }
        let report = ended.expect("a report");
        assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
        shard.in_sync(&target).await;
    }
    counts_to(&mut master, sent).await;
}

/// In a transaction other words stand for them on the server, which mean nobody or everybody.
#[tokio::test]
async fn what_is_queued_behind_a_refused_write_is_asked_again_as_the_client_asked_it() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let (mut alone, mut victim) = (client(&proxy).await, client(&proxy).await);
    let granted = alone.run("CLIENT NO-EVICT on").await.unwrap();
    assert!(granted.ok(), "it has a connection of its own: {granted:?}");
    let own = alone.run("CLIENT ID").await.unwrap().text();
    let killed = victim.run("CLIENT ID").await.unwrap().text();

    let mut old = shard.wire(0).await;
    let mut pipeline = Vec::new();
    put_request(&mut pipeline, &["SET", "k", "v"]);
    put_request(&mut pipeline, &["MULTI"]);
    put_request(&mut pipeline, &["CLIENT", "LIST", "ID", &own]);
    put_request(&mut pipeline, &["CLIENT", "KILL", "ID", &killed]);
    put_request(&mut pipeline, &["CLIENT", "REPLY", "SKIP"]);
    put_request(&mut pipeline, &["EXEC"]);
    put_request(&mut pipeline, &["PING", "skipped"]);
    put_request(&mut pipeline, &["PING", "last"]);
    demote_under(&mut old, alone.send_raw(&pipeline)).await;
    wait_until("the write is refused", async || refusals(&proxy).await > 0).await;
    let mut new = shard.wire(1).await;
    assert!(new.run("REPLICAOF NO ONE").await.unwrap().ok());

    for said in ["OK", "OK", "QUEUED", "QUEUED", "QUEUED"] {
        assert_eq!(alone.reply().await.unwrap().text(), said);
    }
    // CLIENT REPLY SKIP answers nothing, whatever the array says.
    let (array, _) = alone.raw_until(b"last\r\n", Duration::from_secs(1)).await;
    let told = String::from_utf8(array).unwrap();
    assert!(told.starts_with("*3\r\n$"), "{told}");
    assert_eq!(told.matches("id=").count(), 1, "one was asked for: {told}");
    assert!(told.contains(&format!("id={own} ")), "{told}");
    assert!(told.ends_with(":1\r\n$4\r\nlast\r\n"), "{told}");
    assert!(victim.run("PING").await.is_err(), "it was the one");
    assert_eq!(new.run("GET k").await.unwrap(), Value::bulk("v"));
}

/// A blocked command has no answer for as long as it likes; what is said of clients is said by the
/// proxy.
#[tokio::test]
async fn what_stands_behind_a_refused_write_is_asked_again_as_the_client_asked_it() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let (mut alone, mut victim) = (client(&proxy).await, client(&proxy).await);
    let granted = alone.run("CLIENT NO-EVICT on").await.unwrap();
    assert!(granted.ok(), "it has a connection of its own: {granted:?}");
    let own = alone.run("CLIENT ID").await.unwrap();
    let killed = victim.run("CLIENT ID").await.unwrap().text();

    let mut old = shard.wire(0).await;
    let mut pipeline = Vec::new();
    put_request(&mut pipeline, &["SET", "k", "v"]);
    put_request(&mut pipeline, &["CLIENT", "KILL", "ID", &killed]);
    put_request(&mut pipeline, &["CLIENT", "ID"]);
    put_request(&mut pipeline, &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
    demote_under(&mut old, alone.send_raw(&pipeline)).await;
    wait_until("the write is refused", async || refusals(&proxy).await > 0).await;
    let mut new = shard.wire(1).await;
    assert!(new.run("REPLICAOF NO ONE").await.unwrap().ok());

    let written = alone.reply().await.unwrap();
    assert!(written.ok(), "{written:?}");
    assert_eq!(
        alone.reply().await.unwrap(),
        Value::Int(1),
        "one was killed"
    );
    assert_eq!(alone.reply().await.unwrap(), own);
    assert!(victim.run("PING").await.is_err(), "it was the one");
    assert_eq!(new.run("GET k").await.unwrap(), Value::bulk("v"));
    wait_until("the reader waits", async || {
        let clients = new.run("INFO clients").await.unwrap().text();
        clients.contains("blocked_clients:1")
    })
    .await;
    let entry = new.run("XADD s 7-7 f v").await.unwrap();
    let read = alone.reply().await.unwrap();
    let first = &read.items()[0].items()[1].items()[0];
    assert_eq!(first.items()[0], entry);
}

/// Counted once a second.
async fn refusals(proxy: &Proxy) -> u64 {
    let metrics = proxy.admin.get("/metrics").await.unwrap().body;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("pointsman_refused_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

async fn counts_to(node: &mut Wire, expected: u64) {
    wait_until("every write is executed", async || {
        node.run("GET counter").await.unwrap().text() == expected.to_string()
    })
    .await;
}

/// The order that was refused had touched nothing: what the proxy knew of the replica still counts.
#[tokio::test]
async fn a_node_promoted_by_hand_after_a_refused_order_is_followed() {
    let mut shard = Shard::redis(1).await;
    let proxy = shard.proxy().await;
    let mut wire = client(&proxy).await;
    assert!(wire.run("SET key value").await.unwrap().ok());
    let target = shard.addr(1);
    shard.in_sync(&shard.addr(0)).await;
    wait_until("the replica has been looked at", async || {
        let status = status(&proxy).await;
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["offset"].as_u64() > Some(0))
    })
    .await;
    shard.set.nodes[0].kill();
    let report = switchover(&proxy, &target).await;
    assert_eq!(report.outcome, "refused", "{:?}", report.reasons);
    let mut node = shard.wire(1).await;
    assert!(node.run("REPLICAOF NO ONE").await.unwrap().ok());
    followed(&proxy, &target).await;
    let mut wire = client(&proxy).await;
    assert_eq!(wire.run("GET key").await.unwrap(), Value::bulk("value"));
}
