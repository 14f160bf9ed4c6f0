//! Commands that would pull the ground away under the proxy: refused, passed, or taken over, as the
//! operator says.

mod support;

use support::*;

fn commands(lines: &str) -> Settings {
    Settings {
        commands: lines.into(),
        ..patient()
    }
}

async fn says(wire: &mut Wire, line: &str) -> String {
    wire.run(line).await.expect("a reply").text()
}

async fn blocked_clients(node: &mut Wire) -> usize {
    let info = node.run("INFO clients").await.unwrap().text();
    field(&info, "blocked_clients").unwrap().parse().unwrap()
}

#[tokio::test]
async fn by_default_what_changes_the_master_is_refused_with_advice() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut client = client(&proxy).await;
    for line in [
        "REPLICAOF 127.0.0.1 1",
        "FAILOVER",
        "SHUTDOWN NOSAVE",
        "PSYNC ? -1",
        "REPLCONF capa eof",
        "CLUSTER RESET",
        "SCRIPT DEBUG YES",
    ] {
        let said = says(&mut client, line).await;
        assert!(said.contains("refused by pointsman: "), "{line}: {said}");
    }
    assert_eq!(says(&mut client, "MULTI").await, "OK");
    assert!(says(&mut client, "SHUTDOWN").await.contains("refused"));
    assert!(says(&mut client, "EXEC").await.starts_with("EXECABORT"));
    assert_eq!(says(&mut client, "PING").await, "PONG");
}

#[tokio::test]
async fn what_is_passed_is_the_servers_business() {
    let shard = Shard::redis(0).await;
    let lines =
        "replicaof = \"pass\"\nshutdown = \"pass\"\ncluster = \"pass\"\nfailover = \"pass\"";
    let proxy = shard.proxy_with(commands(lines)).await;
    let mut client = client(&proxy).await;
    assert_eq!(says(&mut client, "REPLICAOF NO ONE").await, "OK");
    let said = says(&mut client, "CLUSTER RESET").await;
    assert!(said.contains("cluster support disabled"), "{said}");
    let said = says(&mut client, "FAILOVER").await;
    assert_eq!(said, "ERR FAILOVER requires connected replicas.");
    let said = says(&mut client, "SHUTDOWN ABORT").await;
    assert_eq!(said, "ERR No shutdown in progress.");
    client.send(&["SHUTDOWN", "NOSAVE"]).await.unwrap();
    assert!(matches!(client.reply().await, Err(WireError::Closed)));
}

#[tokio::test]
async fn a_pause_blocks_each_writer_on_its_own_and_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut node = shard.wire(0).await;
    let (mut pauser, mut reader) = (client(&proxy).await, client(&proxy).await);
    let mut writers = [client(&proxy).await, client(&proxy).await];
    for writer in &mut writers {
        // They have written before, so they share a lane.
        assert_eq!(says(writer, "SET before 1").await, "OK");
    }
    assert_eq!(says(&mut pauser, "CLIENT PAUSE 100000 WRITE").await, "OK");
    for writer in &mut writers {
        assert_eq!(says(writer, "GET before").await, "1");
        writer.send(&["INCR", "n"]).await.unwrap();
    }
    wait_until("both writers are blocked", async || {
        blocked_clients(&mut node).await == 2
    })
    .await;
    assert_eq!(says(&mut reader, "GET n").await, "");
    assert_eq!(says(&mut pauser, "GET before").await, "1");

    assert_eq!(says(&mut pauser, "CLIENT UNPAUSE").await, "OK");
    let mut sum = 0;
    for writer in &mut writers {
        sum += writer.reply().await.unwrap().text().parse::<i64>().unwrap();
    }
    assert_eq!(sum, 1 + 2);
}

#[tokio::test]
async fn the_write_of_a_paused_client_that_leaves_is_not_executed() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut node = shard.wire(0).await;
    let (mut pauser, mut writer) = (client(&proxy).await, client(&proxy).await);
    assert_eq!(says(&mut pauser, "CLIENT PAUSE 100000 WRITE").await, "OK");
    writer.send(&["SET", "k", "ghost"]).await.unwrap();
    wait_until("the writer is blocked", async || {
        blocked_clients(&mut node).await == 1
    })
    .await;
    drop(writer);
    wait_until("the server let it go", async || {
        blocked_clients(&mut node).await == 0
    })
    .await;
    assert_eq!(says(&mut pauser, "CLIENT UNPAUSE").await, "OK");
    assert_eq!(says(&mut pauser, "GET k").await, "");
}

#[tokio::test]
async fn a_pause_in_a_transaction_is_one_and_a_refused_pause_is_none() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut node = shard.wire(0).await;
    let (mut pauser, mut writer) = (client(&proxy).await, client(&proxy).await);
    assert!(says(&mut pauser, "CLIENT PAUSE soon").await.contains("not"));
    assert_eq!(says(&mut writer, "SET k 0").await, "OK");
    for line in ["MULTI", "CLIENT PAUSE 100000 WRITE", "EXEC"] {
        says(&mut pauser, line).await;
    }
    writer.send(&["INCR", "k"]).await.unwrap();
    wait_until("the writer is blocked", async || {
        blocked_clients(&mut node).await == 1
    })
    .await;
    assert_eq!(says(&mut pauser, "CLIENT UNPAUSE").await, "OK");
    assert_eq!(writer.reply().await.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn after_sync_the_connection_carries_the_stream_of_writes() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(commands("replication = \"pass\"")).await;
    let (mut replica, mut writer) = (client(&proxy).await, client(&proxy).await);
    // What the server refuses leaves the connection one of requests and replies.
    let said = says(&mut replica, "PSYNC").await;
    assert!(said.contains("wrong number of arguments"), "{said}");
    assert_eq!(says(&mut replica, "PING").await, "PONG");
    assert_eq!(says(&mut replica, "REPLCONF listening-port 1").await, "OK");

    replica.send_raw(b"SYNC\r\n").await.unwrap();
    wait_until("the replica is attached", async || {
        let info = says(&mut writer, "INFO replication").await;
        info.contains("state=online")
    })
    .await;
    assert_eq!(says(&mut writer, "SET key in-the-stream").await, "OK");
    let (stream, _) = replica.raw_until(b"$13\r\nin-the-stream\r\n", SOON).await;
    assert!(stream.starts_with(b"$") || stream.starts_with(b"\n"));
    let shown = String::from_utf8_lossy(&stream);
    assert!(shown.ends_with("in-the-stream\r\n"), "{shown}");
}

#[tokio::test]
async fn a_replica_behind_the_proxy_follows_to_the_new_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(commands("replication = \"pass\"")).await;
    let outside = Shard::redis(0).await;
    let mut replica = outside.wire(0).await;
    let (host, port) = proxy.addr.rsplit_once(':').unwrap();
    let mut writer = client(&proxy).await;
    says(&mut writer, "SET before 1").await;
    assert!(replica.call(&["REPLICAOF", host, port]).await.unwrap().ok());
    wait_until("the replica has what was written before", async || {
        says(&mut replica, "GET before").await == "1"
    })
    .await;

    let target = shard.addr(1);
    let report = switchover(&proxy, &target).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert_eq!(says(&mut writer, "SET after 1").await, "OK");
    wait_until("the replica follows the new master", async || {
        says(&mut replica, "GET after").await == "1"
    })
    .await;
}

#[tokio::test]
async fn failover_can_be_the_proxys_own_switchover() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(commands("failover = \"switchover\""))
        .await;
    let mut client = client(&proxy).await;
    for (line, error) in [
        ("FAILOVER ABORT", "ERR No failover in progress."),
        (
            "FAILOVER TO 127.0.0.1 1",
            "ERR FAILOVER target HOST and PORT is not a replica.",
        ),
        ("FAILOVER TO 127.0.0.1", "ERR syntax error"),
        (
            "FAILOVER TIMEOUT 0",
            "ERR FAILOVER timeout must be greater than 0",
        ),
    ] {
        assert_eq!(says(&mut client, line).await, error, "{line}");
    }
    let target = shard.addr(1);
    wait_until("the proxy has seen the replica", async || {
        let nodes = status(&proxy).await["nodes"].clone();
        nodes
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["link"] == "up"))
    })
    .await;
    assert_eq!(says(&mut client, "FAILOVER TIMEOUT 10000").await, "OK");
    wait_until("the replica is master", async || {
        shard.master().await.as_ref() == Some(&target)
    })
    .await;
    assert_eq!(says(&mut client, "SET k v").await, "OK");
    assert_eq!(status(&proxy).await["master"], target.as_str());
}

#[tokio::test]
async fn who_may_not_fail_over_the_server_may_not_switch_over_the_proxy() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(commands("failover = \"switchover\""))
        .await;
    let mut client = client(&proxy).await;
    let rule = "ACL SETUSER low on >pw ~* +@all -failover";
    assert_eq!(says(&mut client, rule).await, "OK");
    assert_eq!(says(&mut client, "AUTH low pw").await, "OK");
    let said = says(&mut client, "FAILOVER").await;
    assert!(said.starts_with("NOPERM"), "{said}");
    let before = shard.addr(0);
    assert_eq!(shard.master().await, Some(before));
}
