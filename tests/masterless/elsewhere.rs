//! `reads_without_master = "replica"`.

use crate::support::*;
use crate::way::{Way, proxy_through};
use crate::writers::{WRITERS, Writers};
use crate::{followed, known, missed, promote, proxy};

/// Calls of `GET` that a node has executed.
async fn gets(shard: &Shard, node: usize) -> u64 {
    let info = shard.wire(node).await.run("INFO commandstats").await;
    let info = info.unwrap().text();
    let calls = field(&info, "cmdstat_get").and_then(|line| {
        let calls = line.strip_prefix("calls=")?;
        calls.split(',').next()?.parse().ok()
    });
    calls.unwrap_or(0)
}

#[tokio::test]
async fn readers_go_on_while_writers_wait_for_the_next_master() {
    let mut shard = Shard::redis(2).await;
    Readers::prepare(&shard).await;
    let proxy = proxy(&shard, "replica").await;
    known(&proxy).await;
    let readers = Readers::start(&proxy).await;
    let writers = Writers::start(&proxy).await;
    let mut writer = client(&proxy).await.with_deadline(SOON);

    shard.set.nodes[0].kill();
    missed(&proxy, &shard.addr(0)).await;
    writer.send(&["SET", "held", "1"]).await.unwrap();
    readers.go_on().await;
    let acked = writers.acked();
    readers.go_on().await;
    assert_eq!(writers.acked(), acked, "a write was acknowledged");

    // The other one, which is read from, has nothing to follow any more.
    promote(&shard, 2, "which", "the new master").await;
    let other = shard.wire(1).await.run("REPLICAOF 127.0.0.1 1").await;
    assert!(other.unwrap().ok());
    followed(&proxy, &shard.addr(2)).await;
    let mut reader = client(&proxy).await;
    let read = reader.run("GET which").await.unwrap();
    assert_eq!(read, Value::bulk("the new master"));
    assert!(writer.reply().await.unwrap().ok());
    readers.go_on().await;
    let elsewhere = gets(&shard, 1).await;
    readers.go_on().await;
    assert_eq!(gets(&shard, 1).await, elsewhere, "reads did not go back");
    readers.finish().await;
    writers.go_on().await;
    // Whose write was under way when the master died.
    assert!(writers.closed() <= WRITERS as u64);
    writers.finish().await;
}

#[tokio::test]
async fn a_pipeline_of_reads_and_writes_keeps_its_order() {
    let mut shard = Shard::redis(1).await;
    let proxy = proxy(&shard, "replica").await;
    // One that has written before uses other lanes than one that has not.
    let mut clients = [client(&proxy).await, client(&proxy).await];
    for key in 0..clients.len() {
        let key = format!("order{key}");
        assert!(clients[0].call(&["SET", &key, "old"]).await.unwrap().ok());
    }
    shard.in_sync(&shard.addr(0)).await;
    known(&proxy).await;

    shard.set.nodes[0].kill();
    missed(&proxy, &shard.addr(0)).await;
    for (at, client) in clients.iter_mut().enumerate() {
        let key = format!("order{at}");
        client.send(&["GET", &key]).await.unwrap();
        client.send(&["GETSET", &key, "new"]).await.unwrap();
        client.send(&["GET", &key]).await.unwrap();
        client.send(&["MULTI"]).await.unwrap();
        client.send(&["GET", &key]).await.unwrap();
        client.send(&["EXEC"]).await.unwrap();
        client.send(&["GET", "which"]).await.unwrap();
        // Of all this only the first is answered without a master.
        assert_eq!(client.reply().await.unwrap(), Value::bulk("old"));
    }
    promote(&shard, 1, "which", "the new master").await;
    for client in &mut clients {
        assert_eq!(client.reply().await.unwrap(), Value::bulk("old"));
        assert_eq!(client.reply().await.unwrap(), Value::bulk("new"));
        assert!(client.reply().await.unwrap().ok());
        assert_eq!(client.reply().await.unwrap().text(), "QUEUED");
        let executed = client.reply().await.unwrap();
        assert_eq!(executed.items(), [Value::bulk("new")]);
        let read = client.reply().await.unwrap();
        assert_eq!(read, Value::bulk("the new master"));
    }
}

#[tokio::test]
async fn a_replica_that_serves_no_stale_data_is_not_read_from() {
    let mut shard = Shard::redis(2).await;
    Readers::prepare(&shard).await;
    let stale = "CONFIG SET replica-serve-stale-data no";
    assert!(shard.wire(1).await.run(stale).await.unwrap().ok());
    let proxy = proxy(&shard, "replica").await;
    known(&proxy).await;
    let readers = Readers::start(&proxy).await;

    shard.set.nodes[0].kill();
    missed(&proxy, &shard.addr(0)).await;
    readers.go_on().await;
    assert!(gets(&shard, 2).await > 0, "who answered?");

    // Where nobody serves stale data, reads wait.
    assert!(shard.wire(2).await.run(stale).await.unwrap().ok());
    let mut waiting = client(&proxy).await.with_deadline(SOON);
    waiting.send(&["GET", "which"]).await.unwrap();
    wait_until("it was refused", async || {
        let info = shard.wire(2).await.run("INFO errorstats").await.unwrap();
        info.text().contains("errorstat_MASTERDOWN")
    })
    .await;
    promote(&shard, 1, "which", "the new master").await;
    follow(&shard.addr(2), &shard.addr(1)).await.unwrap();
    let read = waiting.reply().await.unwrap();
    assert_eq!(read, Value::bulk("the new master"));
    readers.go_on().await;
    readers.finish().await;
}

#[tokio::test]
async fn reads_go_back_to_the_same_master_when_it_answers_again() {
    let shard = Shard::redis(1).await;
    Readers::prepare(&shard).await;
    let lines = "connect_timeout_ms = 200\nlanes = 1\nreads_without_master = \"replica\"";
    let proxy = shard.proxy_with(proxy_settings(lines)).await;
    known(&proxy).await;
    shard.set.nodes[0].freeze().unwrap();
    let mut reader = client(&proxy).await.with_deadline(SOON);

    let read = reader.run("GET read0").await.unwrap();
    assert_eq!(read, Value::bulk("value 0 of database 0"));
    assert!(gets(&shard, 1).await > 0, "who answered?");

    shard.set.nodes[0].thaw().unwrap();
    wait_until("the master is read from", async || {
        let before = gets(&shard, 0).await;
        reader.run("GET read0").await.unwrap();
        gets(&shard, 0).await > before
    })
    .await;
}

#[tokio::test]
async fn a_master_that_others_are_connected_to_is_not_missed() {
    let mut shard = Shard::redis(1).await;
    let way = Way::start(shard.addr(0)).await;
    follow(&shard.addr(1), &way.name).await.unwrap();
    let lines = "workers = 1\nhold_budget_ms = 300\nreads_without_master = \"replica\"";
    let proxy = proxy_through(&way, &shard, &proxy_settings(lines)).await;
    let mut writer = client(&proxy).await.with_deadline(SOON);
    // Connecting may take longer than its budget.
    wait_until("it is written", async || {
        writer.run("SET fresh 1").await.unwrap().ok()
    })
    .await;
    wait_until("the replica has it", async || {
        let read = shard.wire(1).await.run("GET fresh").await.unwrap();
        read == Value::bulk("1")
    })
    .await;
    let before = gets(&shard, 1).await;
    known(&proxy).await;

    // Nobody can connect any more, and who is connected does not notice.
    way.close().await;
    let mut reader = client(&proxy).await.with_deadline(SOON);
    let read = reader.run("GET fresh").await.unwrap();
    assert!(read.text().starts_with("TRYAGAIN"), "{read:?}");
    assert_eq!(writer.run("GET fresh").await.unwrap(), Value::bulk("1"));
    assert_eq!(gets(&shard, 1).await, before, "a replica was asked");

    // Now they do.
    shard.set.nodes[0].kill();
    wait_until("the replica is asked", async || {
        let read = reader.run("GET fresh").await.unwrap();
        read == Value::bulk("1")
    })
    .await;
    assert!(gets(&shard, 1).await > before, "who answered?");
}
