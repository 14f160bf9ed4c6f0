use crate::support::*;
use crate::two_patient_workers;
use crate::{id_of, listed, two_workers, until_blocked, value};

#[tokio::test]
async fn lines_have_the_servers_fields_in_its_order_and_the_clients_own_values() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut direct = shard.wire(0).await;
    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    assert!(other.run("CLIENT SETNAME other").await.unwrap().ok());
    assert!(other.run("SELECT 3").await.unwrap().ok());
    assert_eq!(other.run("GET nothing").await.unwrap(), Value::Null);

    let names = |line: &[(String, String)]| -> Vec<String> {
        line.iter().map(|(name, _)| name.clone()).collect()
    };
    let expected = names(&listed(&mut direct, "CLIENT LIST").await[0]);
    let lines = listed(&mut one, "CLIENT LIST").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        assert_eq!(names(line), expected);
        assert_eq!(value(line, "laddr"), proxy.addr);
        assert_eq!(value(line, "flags"), "N");
        assert_eq!(value(line, "redir"), "-1");
    }
    assert_eq!(
        value(&lines[0], "addr"),
        one.local_addr().unwrap().to_string()
    );
    assert_eq!(value(&lines[0], "cmd"), "client|list");
    assert_eq!(value(&lines[0], "qbuf"), "26");
    assert_eq!(
        value(&lines[1], "addr"),
        other.local_addr().unwrap().to_string()
    );
    assert_eq!(value(&lines[1], "name"), "other");
    assert_eq!(value(&lines[1], "db"), "3");
    assert_eq!(value(&lines[1], "cmd"), "get");
    assert_eq!(value(&lines[1], "id"), id_of(&mut other).await.to_string());
    let info = listed(&mut other, "CLIENT INFO").await;
    assert_eq!(value(&info[0], "name"), "other");
    assert_eq!(value(&info[0], "cmd"), "client|info");
}

#[tokio::test]
async fn sessions_with_a_connection_of_their_own_show_what_the_server_knows_of_it() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut blocked = client(&proxy).await;
    let mut subscribed = client(&proxy).await;
    let mut in_multi = client(&proxy).await;
    let blocked_id = id_of(&mut blocked).await.to_string();
    let subscribed_id = id_of(&mut subscribed).await.to_string();
    blocked.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    subscribed.run("SUBSCRIBE a").await.unwrap();
    assert!(in_multi.run("MULTI").await.unwrap().ok());
    in_multi.run("GET x").await.unwrap();
    until_blocked(&shard, 0).await;

    let all = listed(&mut one, "CLIENT LIST").await;
    let flags: Vec<&str> = all.iter().map(|line| value(line, "flags")).collect();
    assert_eq!(flags, ["N", "b", "P", "x"], "{all:?}");
    assert_eq!(value(&all[2], "sub"), "1");
    assert_eq!(value(&all[3], "multi"), "1");

    let ids = |lines: &[Vec<(String, String)>]| -> Vec<String> {
        lines
            .iter()
            .map(|line| value(line, "id").to_owned())
            .collect()
    };
    let pubsub = listed(&mut one, "CLIENT LIST TYPE pubsub").await;
    assert_eq!(ids(&pubsub), std::slice::from_ref(&subscribed_id));
    let some = format!("CLIENT LIST ID {blocked_id} {subscribed_id} 999999");
    assert_eq!(
        ids(&listed(&mut one, &some).await),
        [blocked_id, subscribed_id]
    );
    let normal = listed(&mut one, "CLIENT LIST TYPE normal").await;
    assert_eq!(normal.len(), 3, "{normal:?}");
    assert!(
        listed(&mut one, "CLIENT LIST TYPE replica")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn what_a_client_is_outlives_a_switchover() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(two_patient_workers());
    let proxy = proxy.await;
    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    let id = id_of(&mut one).await;
    assert!(one.run("CLIENT SETNAME one").await.unwrap().ok());
    assert!(other.run("SUBSCRIBE c").await.is_ok());
    let before = listed(&mut one, "CLIENT LIST").await;

    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);

    assert_eq!(id_of(&mut one).await, id);
    assert_eq!(one.run("CLIENT GETNAME").await.unwrap().text(), "one");
    let after = listed(&mut one, "CLIENT LIST").await;
    for field in ["id", "addr", "name", "flags", "sub", "db", "user"] {
        let values = |lines: &[Vec<(String, String)>]| -> Vec<String> {
            lines
                .iter()
                .map(|line| value(line, field).to_owned())
                .collect()
        };
        assert_eq!(values(&after), values(&before), "{field}");
    }
}

#[tokio::test]
async fn connected_clients_are_the_proxys() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let _other = client(&proxy).await;
    wait_until("both are counted", async || {
        let info = one.run("INFO").await.unwrap().text();
        field(&info, "connected_clients") == Some("2")
    })
    .await;
}

#[tokio::test]
async fn kvrocks_lines_are_told_too() {
    let Some(shard) = Shard::kvrocks(0).await else {
        return;
    };
    let proxy = shard.proxy_with(two_workers()).await;
    let mut one = client(&proxy).await;
    let mut other = client(&proxy).await;
    assert!(other.run("CLIENT SETNAME other").await.unwrap().ok());
    let lines = listed(&mut one, "CLIENT LIST").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(value(&lines[0], "id"), id_of(&mut one).await.to_string());
    assert_eq!(value(&lines[1], "name"), "other");
    assert_eq!(
        value(&lines[1], "addr"),
        other.local_addr().unwrap().to_string()
    );
}
