use crate::support::*;
use crate::{id_of, two_workers, until_blocked, until_closed};

#[tokio::test]
async fn kill_ends_clients_of_every_worker_and_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut direct = shard.wire(0).await;
    let mut one = client(&proxy).await;
    let mut idle = client(&proxy).await;
    let mut blocked = client(&proxy).await;
    let mut subscribed = client(&proxy).await;
    let mut stays = client(&proxy).await;
    let idle_id = id_of(&mut idle).await;
    blocked.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    subscribed.run("SUBSCRIBE c").await.unwrap();
    until_blocked(&shard, 0).await;

    let kill = format!("CLIENT KILL ID {idle_id}");
    assert_eq!(one.run(&kill).await.unwrap(), Value::Int(1));
    until_closed(&mut idle).await;
    let kill = format!("CLIENT KILL {}", blocked.local_addr().unwrap());
    assert!(one.run(&kill).await.unwrap().ok());
    until_closed(&mut blocked).await;
    let kill = "CLIENT KILL TYPE pubsub";
    assert_eq!(one.run(kill).await.unwrap(), Value::Int(1));
    until_closed(&mut subscribed).await;

    assert_eq!(
        one.run(&format!("CLIENT KILL ID {idle_id}")).await.unwrap(),
        Value::Int(0)
    );
    let nobody = one.run("CLIENT KILL 127.0.0.1:1").await.unwrap();
    assert_eq!(nobody, Value::Error("ERR No such client".into()));
    for unhurt in [&mut one, &mut stays, &mut direct] {
        assert_eq!(unhurt.run("PING").await.unwrap().text(), "PONG");
    }
}

#[tokio::test]
async fn who_kills_itself_is_answered_first() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    id_of(&mut other).await;
    one.send(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"])
        .await
        .unwrap();
    assert_eq!(one.reply().await.unwrap(), Value::Int(2));
    until_closed(&mut one).await;
    until_closed(&mut other).await;

    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    id_of(&mut other).await;
    let spared = one.run("CLIENT KILL LADDR {}").await.unwrap();
    assert_eq!(spared, Value::Int(0));
    let kill = format!("CLIENT KILL LADDR {} SKIPME yes", proxy.addr);
    assert_eq!(one.run(&kill).await.unwrap(), Value::Int(1));
    until_closed(&mut other).await;
    assert_eq!(one.run("PING").await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn a_client_that_is_killed_before_its_blocked_command_is_served_takes_nothing() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut blocked = client(&proxy).await;
    blocked.send(&["BLPOP", "list", "0"]).await.unwrap();
    until_blocked(&shard, 0).await;
    let kill = format!("CLIENT KILL ADDR {}", blocked.local_addr().unwrap());
    assert_eq!(one.run(&kill).await.unwrap(), Value::Int(1));
    until_closed(&mut blocked).await;
    let mut direct = shard.wire(0).await;
    wait_until("the server has let it go", async || {
        let info = direct.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients") == Some("0")
    })
    .await;
    assert_eq!(one.run("RPUSH list a").await.unwrap(), Value::Int(1));
    assert_eq!(one.run("LLEN list").await.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn users_are_killed_by_name() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut alice = client(&proxy).await;
    let made = one.run("ACL SETUSER alice on >pw ~* +@all").await.unwrap();
    assert!(made.ok());
    assert!(alice.run("AUTH alice pw").await.unwrap().ok());
    assert_eq!(alice.run("ACL WHOAMI").await.unwrap().text(), "alice");
    assert_eq!(
        one.run("CLIENT KILL USER alice").await.unwrap(),
        Value::Int(1)
    );
    until_closed(&mut alice).await;

    let mut limited = client(&proxy).await;
    let made = one
        .run("ACL SETUSER bob on >pw ~* +@all -client|kill")
        .await;
    assert!(made.unwrap().ok());
    assert!(limited.run("AUTH bob pw").await.unwrap().ok());
    let refused = limited.run("CLIENT KILL TYPE normal").await.unwrap();
    assert!(refused.text().starts_with("NOPERM"), "{refused:?}");
    assert_eq!(one.run("PING").await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn kvrocks_clients_are_killed_too() {
    let Some(shard) = Shard::kvrocks(0).await else {
        return;
    };
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    let id = id_of(&mut other).await;
    assert_eq!(
        one.run(&format!("CLIENT KILL ID {id}")).await.unwrap(),
        Value::Int(1)
    );
    until_closed(&mut other).await;
    assert_eq!(one.run("PING").await.unwrap().text(), "PONG");
}
