use crate::support::*;
use crate::two_patient_workers;
use crate::{id_of, two_workers, until_blocked};

#[tokio::test]
async fn a_blocked_client_of_another_worker_is_unblocked() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut blocked = client(&proxy).await;
    let id = id_of(&mut blocked).await;
    let unblock = |how: &str| format!("CLIENT UNBLOCK {id} {how}");

    let not_blocked = one.run(unblock("").trim()).await.unwrap();
    assert_eq!(not_blocked, Value::Int(0));
    blocked.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    until_blocked(&shard, 0).await;
    assert_eq!(one.run(&unblock("TIMEOUT")).await.unwrap(), Value::Int(1));
    assert_eq!(blocked.reply().await.unwrap(), Value::Null);

    blocked
        .send(&["BLMOVE", "a", "b", "LEFT", "RIGHT", "0"])
        .await
        .unwrap();
    until_blocked(&shard, 0).await;
    assert_eq!(one.run(&unblock("ERROR")).await.unwrap(), Value::Int(1));
    let told = blocked.reply().await.unwrap();
    let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
    assert_eq!(told, Value::Error(text.into()));
    assert_eq!(blocked.run("PING").await.unwrap().text(), "PONG");
    assert_eq!(
        one.run("CLIENT UNBLOCK 999999").await.unwrap(),
        Value::Int(0)
    );
}

/// The connections of two blocked clients go through the pool; each command must hit the client
/// that it names.
#[tokio::test]
async fn nobody_else_is_unblocked() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut one = client(&proxy).await;
    let mut first = client(&proxy).await;
    let mut second = client(&proxy).await;
    let (first_id, second_id) = (id_of(&mut first).await, id_of(&mut second).await);
    for round in 0..20 {
        first.send(&["BLPOP", "f", "0"]).await.unwrap();
        until_blocked(&shard, 0).await;
        let unblock = format!("CLIENT UNBLOCK {first_id}");
        assert_eq!(
            one.run(&unblock).await.unwrap(),
            Value::Int(1),
            "round {round}"
        );
        assert_eq!(first.reply().await.unwrap(), Value::Null);
        second.send(&["BLPOP", "s", "0"]).await.unwrap();
        until_blocked(&shard, 0).await;
        assert_eq!(
            one.run(&unblock).await.unwrap(),
            Value::Int(0),
            "round {round}"
        );
        let served = format!("served-{round}");
        one.call(&["RPUSH", "s", &served]).await.unwrap();
        assert_eq!(second.reply().await.unwrap().items()[1].text(), served);
    }
    assert_ne!(first_id, second_id);
}

#[tokio::test]
async fn a_client_that_blocked_before_a_switchover_is_unblocked_after_it() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(two_patient_workers()).await;
    let mut one = client(&proxy).await;
    let mut blocked = client(&proxy).await;
    let id = id_of(&mut blocked).await;
    blocked.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    until_blocked(&shard, 0).await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    let unblock = format!("CLIENT UNBLOCK {id} TIMEOUT");
    // At once: the command may still be on its way to the new master.
    assert_eq!(one.run(&unblock).await.unwrap(), Value::Int(1));
    assert_eq!(blocked.reply().await.unwrap(), Value::Null);
}
