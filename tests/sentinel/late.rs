//! Sentinels that cannot be told at once, or never could be.

use pointsman::switchover::report::Outcome;
use pointsman::switchover::view::Control;

use crate::control::{Gate, Proxy, master};
use crate::support::*;
use crate::watchers::Watchers;

/// A number from INFO.
async fn counted(wire: &mut Wire, section: &str, name: &str) -> u64 {
    let info = wire.call(&["INFO", section]).await.unwrap().text();
    field(&info, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

/// How often a Sentinel was made to forget a shard, by what it has told those who listen.
async fn forgot(listener: &mut Wire) -> usize {
    listener.send(&["PING"]).await.unwrap();
    let mut forgot = 0;
    loop {
        let told = listener.reply().await.unwrap();
        match told.items().first().map(Value::text).as_deref() {
            Some("message") => forgot += 1,
            _ => return forgot,
        }
    }
}

#[tokio::test]
async fn while_one_is_away_the_others_are_told_once_and_it_is_told_when_it_is_back() {
    let shard = Shard::redis(2).await;
    let watchers = Watchers::over(&shard).await;
    let gate = Gate {
        stops: Some(watchers.pid(2)),
        ..Gate::default()
    };
    let addrs = shard.addrs();
    let nodes: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let state_dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::with(&nodes, &watchers.lines(), state_dir, gate, |_| {})
        .ready()
        .await;
    let mut listeners = Vec::new();
    for at in [0, 1] {
        let mut listener = watchers.wire(at).await;
        listener.run("SUBSCRIBE -monitor").await.unwrap();
        listeners.push(listener);
    }
    let ordered = proxy
        .shards
        .switchover("a".to_owned(), shard.addr(1), false)
        .await;
    let id = ordered.unwrap();
    let report = proxy.shards.wait(id.clone()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Switched, "{report:?}");
    assert_eq!(report.sentinels_untold, [watchers.addrs[2].clone()]);

    // Each try to tell it looks at the target first, on a connection of its own.
    let mut target = shard.wire(1).await;
    let tries = async |wire: &mut Wire| counted(wire, "stats", "total_connections_received").await;
    let before = tries(&mut target).await;
    wait_until("it has been tried again", async || {
        tries(&mut target).await > before + 2
    })
    .await;
    for listener in &mut listeners {
        assert_eq!(forgot(listener).await, 1);
    }
    wait_until("the others have found each other again", async || {
        let mut found = true;
        for at in [0, 1] {
            found &= watchers.field(at, "num-other-sentinels").await == "1";
            found &= watchers.field(at, "num-slaves").await == "2";
        }
        found
    })
    .await;

    watchers.signal(2, "CONT");
    watchers.agree(&shard.addr(1), 2).await;
    wait_until("the operation is over", async || {
        proxy.shards.status("a").unwrap().operation.is_none()
    })
    .await;
    let last = proxy.shards.operation(&id).unwrap().report.unwrap();
    assert_eq!(last.sentinels_untold, Vec::<String>::new());
    assert_eq!(master(&proxy), shard.addr(1));
}

#[tokio::test]
async fn a_switchover_is_refused_when_a_sentinel_would_not_take_the_order() {
    let shard = Shard::redis(1).await;
    let watchers = Watchers::over(&shard).await;
    let mut wire = watchers.wire(1).await;
    let forbidden = wire
        .call(&["ACL", "SETUSER", "default", "-sentinel|remove"])
        .await;
    assert!(forbidden.unwrap().ok());
    let proxy = shard.proxy_with(watchers.settings()).await;

    let report = switchover(&proxy, &shard.addr(1)).await;

    assert_eq!(report.outcome, "refused", "{report:?}");
    let expected = format!("Sentinel {} would not be told", watchers.addrs[1]);
    let reasons = report.reasons.join("\n");
    assert!(reasons.contains(&expected), "{reasons}");
    assert_eq!(report.reasons.len(), 1, "{reasons}");
    assert_eq!(watchers.masters().await, vec![shard.addr(0); 3]);
}
