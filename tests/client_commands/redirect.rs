use crate::support::*;
use crate::two_patient_workers;
use crate::{id_of, listed, two_workers, until_closed, value};

/// Reads `key` through `one` and changes it through `other`; the client `told` learns of it.
async fn invalidated(one: &mut Wire, other: &mut Wire, told: &mut Wire, key: &str) {
    one.run(&format!("GET {key}")).await.unwrap();
    assert!(other.run(&format!("SET {key} v")).await.unwrap().ok());
    let push = told.reply().await.unwrap();
    assert_eq!(push.items()[0].text(), "invalidate", "{push:?}");
    assert_eq!(push.items()[1].items(), [Value::bulk(key)]);
}

/// The client that is named has nothing open on the server until it is named.
#[tokio::test]
async fn invalidations_reach_the_client_that_is_named_on_this_and_the_next_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(two_patient_workers()).await;
    let mut other = client(&proxy).await;
    let mut one = client(&proxy).await;
    let mut told = client(&proxy).await;
    told.run("HELLO 3").await.unwrap();
    let id = id_of(&mut told).await;
    let on = format!("CLIENT TRACKING on REDIRECT {id}");
    assert!(one.run(&on).await.unwrap().ok());
    assert_eq!(one.run("CLIENT GETREDIR").await.unwrap(), Value::Int(id));
    let info = one.run("CLIENT TRACKINGINFO").await.unwrap();
    assert!(info.items().contains(&Value::Int(id)), "{info:?}");
    let line = &listed(&mut other, "CLIENT LIST").await[1];
    assert_eq!(value(line, "redir"), id.to_string());
    assert_eq!(value(line, "flags"), "t");
    invalidated(&mut one, &mut other, &mut told, "before").await;

    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);

    assert_eq!(one.run("CLIENT GETREDIR").await.unwrap(), Value::Int(id));
    invalidated(&mut one, &mut other, &mut told, "after").await;
}

/// In RESP2 a server tells nothing more of tracking to who has subscribed in the same transaction.
#[tokio::test]
async fn tracking_that_a_transaction_with_a_subscription_began_goes_on_with_the_next_master() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(two_patient_workers()).await;
    let (mut one, mut other) = (client(&proxy).await, client(&proxy).await);
    let mut told = client(&proxy).await;
    told.run("HELLO 3").await.unwrap();
    let id = id_of(&mut told).await;
    let on = format!("CLIENT TRACKING on BCAST REDIRECT {id}");
    for line in ["MULTI", &on, "SUBSCRIBE c"] {
        one.run(line).await.unwrap();
    }
    one.run("EXEC").await.unwrap();

    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);

    assert!(other.run("SET k v").await.unwrap().ok());
    let push = told.reply().await.unwrap();
    assert_eq!(push.items()[0].text(), "invalidate", "{push:?}");
    assert_eq!(push.items()[1].items(), [Value::bulk("k")]);
}

#[tokio::test]
async fn a_session_learns_that_the_client_it_named_is_gone() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut told = client(&proxy).await;
    let mut other = client(&proxy).await;
    one.run("HELLO 3").await.unwrap();
    told.run("SUBSCRIBE __redis__:invalidate").await.unwrap();
    let told_id = listed(&mut other, "CLIENT LIST TYPE pubsub").await;
    let id = value(&told_id[0], "id").to_owned();
    let on = format!("CLIENT TRACKING on REDIRECT {id}");
    assert!(one.run(&on).await.unwrap().ok());
    one.run("GET k").await.unwrap();
    let kill = format!("CLIENT KILL ID {id}");
    assert_eq!(other.run(&kill).await.unwrap(), Value::Int(1));
    until_closed(&mut told).await;
    let mut direct = shard.wire(0).await;
    wait_until("the server has let it go", async || {
        let info = direct.run("INFO clients").await.unwrap().text();
        field(&info, "tracking_clients") == Some("1")
            && direct
                .run("PUBSUB NUMSUB __redis__:invalidate")
                .await
                .unwrap()
                .items()[1]
                == Value::Int(0)
    })
    .await;
    assert!(other.run("SET k v").await.unwrap().ok());
    let push = one.reply().await.unwrap();
    assert_eq!(push.items()[0].text(), "tracking-redir-broken", "{push:?}");
}
