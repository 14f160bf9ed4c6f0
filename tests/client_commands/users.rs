use crate::support::*;
use crate::{listed, two_workers, until_closed, value};

async fn user(proxy: &Proxy, name: &str) -> Wire {
    let mut wire = client(proxy).await;
    let auth = format!("AUTH {name} pw");
    assert!(wire.run(&auth).await.unwrap().ok());
    wire
}

/// Whatever a session had open, or nothing at all: the server closes a connection of a user that it
/// knows no more.
#[tokio::test]
async fn sessions_end_with_their_user_and_nobody_else_does() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    for name in ["alice", "bob"] {
        let make = format!("ACL SETUSER {name} on >pw ~* &* +@all");
        assert!(one.run(&make).await.unwrap().ok());
    }
    let mut silent = user(&proxy, "alice").await;
    let mut silent_too = user(&proxy, "alice").await;
    let mut reads = user(&proxy, "alice").await;
    let mut writes = user(&proxy, "alice").await;
    let mut subscribed = user(&proxy, "alice").await;
    let mut bob = user(&proxy, "bob").await;
    assert_eq!(reads.run("GET k").await.unwrap(), Value::Null);
    assert!(writes.run("SET k v").await.unwrap().ok());
    subscribed.run("SUBSCRIBE c").await.unwrap();
    assert_eq!(bob.run("GET k").await.unwrap().text(), "v");

    assert_eq!(one.run("ACL DELUSER alice").await.unwrap(), Value::Int(1));
    for ended in [
        &mut silent,
        &mut silent_too,
        &mut reads,
        &mut writes,
        &mut subscribed,
    ] {
        until_closed(ended).await;
    }
    assert_eq!(bob.run("ACL WHOAMI").await.unwrap().text(), "bob");
    assert_eq!(one.run("ACL WHOAMI").await.unwrap().text(), "default");
}

#[tokio::test]
async fn rights_that_are_taken_away_are_gone_for_live_sessions() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    assert!(
        one.run("ACL SETUSER alice on >pw ~* &* +@all")
            .await
            .unwrap()
            .ok()
    );
    let mut alice = user(&proxy, "alice").await;
    let mut subscribed = user(&proxy, "alice").await;
    assert!(alice.run("SET k v").await.unwrap().ok());
    subscribed.run("SUBSCRIBE c").await.unwrap();
    assert!(
        one.run("ACL SETUSER alice -set resetchannels")
            .await
            .unwrap()
            .ok()
    );
    let refused = alice.run("SET k w").await.unwrap();
    assert!(refused.text().starts_with("NOPERM"), "{refused:?}");
    assert_eq!(alice.run("GET k").await.unwrap().text(), "v");
    until_closed(&mut subscribed).await;
}

#[tokio::test]
async fn modes_of_a_connection_are_on_there_and_on_the_next_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut one = client(&proxy).await;
    let mut plain = client(&proxy).await;
    assert!(one.run("CLIENT NO-EVICT on").await.unwrap().ok());
    let refused = plain.run("READONLY").await.unwrap();
    assert!(
        refused.text().contains("cluster support disabled"),
        "{refused:?}"
    );
    let flags = async |one: &mut Wire| {
        let lines = listed(one, "CLIENT INFO").await;
        value(&lines[0], "flags").to_owned()
    };
    assert_eq!(flags(&mut one).await, "e");
    assert_eq!(flags(&mut plain).await, "N");
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    assert_eq!(flags(&mut one).await, "e");
    assert!(one.run("CLIENT NO-EVICT off").await.unwrap().ok());
    assert_eq!(flags(&mut one).await, "N");
    assert_eq!(plain.run("PING").await.unwrap().text(), "PONG");
}
