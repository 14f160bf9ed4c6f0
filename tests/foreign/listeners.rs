//! Who listens to the channel of the proxies: one of them, one of them twice, or somebody else.

use tokio::task::JoinHandle;

use crate::beside::{all_listen, assert_together, listening, short_wait};
use crate::support::*;
use crate::two_proxies::Other;

const CHANNEL: &str = "__pointsman__:demo";

/// What `CLIENT LIST` says of a proxy's listener on a node: id, address and name.
async fn lines_of(shard: &Shard, node: usize, proxy: &Proxy) -> Vec<(u64, String, String)> {
    let list = shard.wire(node).await.run("CLIENT LIST").await.unwrap();
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
        let found = fields.find(|(one, _)| *one == name);
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let begins = format!("pointsman-peer-{}-", proxy.pid());
    let text = list.text();
    let lines = text
        .lines()
        .map(|line| (field(line, "id"), field(line, "addr"), field(line, "name")));
    lines
        .filter(|(_, _, name)| name.starts_with(&begins))
        .map(|(id, addr, name)| (id.parse().expect("a number"), addr, name))
        .collect()
}

/// A proxy as others know it.
pub async fn listener_of(shard: &Shard, node: usize, proxy: &Proxy) -> OtherProxy {
    let lines = lines_of(shard, node, proxy).await;
    let [(_, addr, name)] = lines.as_slice() else {
        panic!("one listener of a proxy has this name: {lines:?}");
    };
    let id = name.strip_prefix("pointsman-peer-").expect("its name");
    OtherProxy {
        id: id.to_owned(),
        addr: addr.clone(),
    }
}

/// Listens and never says a word; `name` is what it calls itself.
async fn listen(shard: &Shard, node: usize, name: &str) -> Wire {
    let mut wire = shard.wire(node).await.with_deadline(SOON);
    if !name.is_empty() {
        assert!(wire.call(&["CLIENT", "SETNAME", name]).await.unwrap().ok());
    }
    let subscribed = wire.call(&["SUBSCRIBE", CHANNEL]).await.unwrap();
    assert_eq!(subscribed.items().len(), 3, "{subscribed:?}");
    wire
}

async fn check_strangers(shard: &Shard) {
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(shard, patient()).await;
    all_listen(shard, 2).await;
    let _strangers = [
        listen(shard, 0, "").await,
        listen(shard, 0, "app").await,
        listen(shard, 1, "pointsman-say-1-1").await,
    ];
    let report = switchover(&one, &shard.addr(1)).await;
    assert_together(&report, 1);
    assert_eq!(report.proxies.strangers, 2, "{report:?}");
    shard.in_sync(&shard.addr(1)).await;
    let report = switchover(&other.proxy, &shard.addr(0)).await;
    assert_together(&report, 1);
    assert_eq!(report.proxies.strangers, 1, "{report:?}");
}

#[tokio::test]
async fn a_stranger_on_the_channel_undoes_nothing_and_the_other_proxy_is_waited_for() {
    check_strangers(&Shard::redis(1).await).await;
}

#[tokio::test]
async fn nor_does_one_on_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_strangers(&shard).await;
    }
}

#[tokio::test]
async fn beside_a_stranger_a_frozen_proxy_is_still_waited_for_and_named() {
    let shard = Shard::redis(1).await;
    let one = shard.proxy_with(short_wait("")).await;
    let other = Other::of(&shard, short_wait("")).await;
    all_listen(&shard, 2).await;
    let known = listener_of(&shard, 0, &other.proxy).await;
    let _stranger = listen(&shard, 0, "").await;
    other.proxy.signal("STOP").unwrap();
    let report = switchover(&one, &shard.addr(1)).await;
    assert_eq!(report.outcome, "rolled_back", "{report:?}");
    assert_eq!(report.proxies.others, 1, "{report:?}");
    assert_eq!(report.proxies.silent, [known]);
}

/// Acknowledges every hold that is told of on a node, as proxy `id`, and does nothing else.
async fn hold_and_stay(shard: &Shard, node: usize, id: &'static str) -> JoinHandle<()> {
    let mut listener = listen(shard, node, &format!("pointsman-peer-{id}")).await;
    let mut speaker = shard.wire(node).await;
    tokio::spawn(async move {
        // Ends with the connections, at the latest when it has heard nothing for long.
        while let Ok(message) = listener.reply().await {
            let text = message.items().last().map(Value::text).unwrap_or_default();
            let Some(told) = text.strip_prefix("HOLD ") else {
                continue;
            };
            let operation = told.split(' ').next().unwrap_or_default();
            let ack = format!("ACK {operation} {id} hold");
            let said = speaker.call(&["PUBLISH", CHANNEL, &ack]).await;
            said.expect("the node takes it");
        }
    })
}

/// Whichever time is over first ends the wait, and with it the operation.
#[tokio::test]
async fn one_that_holds_and_does_not_follow_is_named_and_the_next_order_is_taken() {
    for (follow_ms, pause_ms) in [(100, 600_000), (600_000, 1000)] {
        let shard = Shard::redis(1).await;
        let times = format!(
            "sync_timeout_ms = 10000\ndrain_timeout_ms = 10000\npause_timeout_ms = {pause_ms}\n\
             follow_timeout_ms = {follow_ms}"
        );
        let proxy = shard.proxy_with(switchover_settings(&times)).await;
        let _others = [
            hold_and_stay(&shard, 0, "77-late").await,
            hold_and_stay(&shard, 1, "77-late").await,
        ];
        for to in [1, 0] {
            let to = shard.addr(to);
            let report = switchover(&proxy, &to).await;
            assert_eq!(report.outcome, "switched", "{times}: {report:?}");
            let late: Vec<_> = report.proxies.late.iter().map(|one| &one.id).collect();
            assert_eq!(late, ["77-late"], "{times}: {report:?}");
            wait_until("the operation is over", async || {
                status(&proxy).await["operation"].is_null()
            })
            .await;
            shard.in_sync(&to).await;
        }
    }
}

#[tokio::test]
async fn to_a_stranger_alone_nothing_is_said() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    all_listen(&shard, 1).await;
    let mut stranger = listen(&shard, 0, "").await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_together(&report, 0);
    assert_eq!(report.proxies.strangers, 1, "{report:?}");
    let mut wire = shard.wire(0).await;
    wire.call(&["PUBLISH", CHANNEL, "the first"]).await.unwrap();
    let heard = stranger.reply().await.unwrap();
    let said = heard.items().last().map(Value::text);
    assert_eq!(said.as_deref(), Some("the first"), "{heard:?}");
}

/// A connection that broke without a word is listed until the node has found out.
async fn check_half_open(shard: &Shard) {
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(shard, patient()).await;
    all_listen(shard, 2).await;
    let mut left = Vec::new();
    for proxy in [&one, &other.proxy] {
        let id = listener_of(shard, 0, proxy).await.id;
        left.push(listen(shard, 0, &format!("pointsman-peer-{id}")).await);
    }
    assert_eq!(listening(shard, 0).await, 4);
    let report = switchover(&one, &shard.addr(1)).await;
    assert_together(&report, 1);
    assert_eq!(report.proxies.strangers, 0, "{report:?}");
}

#[tokio::test]
async fn a_proxy_that_is_listed_twice_is_waited_for_once() {
    check_half_open(&Shard::redis(1).await).await;
}

#[tokio::test]
async fn so_it_is_on_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_half_open(&shard).await;
    }
}

async fn check_closed(shard: &Shard) {
    let proxy = shard.proxy_with(patient()).await;
    all_listen(shard, 1).await;
    let lines = lines_of(shard, 0, &proxy).await;
    let (own, _, name) = lines.first().expect("its listener");
    let mut left = listen(shard, 0, name).await;
    let _stranger = listen(shard, 0, "app").await;
    // It comes again, and the one that is left behind is older then.
    let kill = format!("CLIENT KILL ID {own}");
    shard.wire(0).await.run(&kill).await.unwrap();
    assert!(left.reply().await.is_err(), "it was closed by the node");
    wait_until("only the newest is left", async || {
        let lines = lines_of(shard, 0, &proxy).await;
        lines.len() == 1 && lines[0].0 > *own && listening(shard, 0).await == 2
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_was_left_half_open_is_closed_by_its_proxy() {
    check_closed(&Shard::redis(1).await).await;
}

#[tokio::test]
async fn it_is_closed_on_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        check_closed(&shard).await;
    }
}

/// A user who may do everything, but use no channel.
async fn without_channels(shard: &Shard) -> Settings {
    for node in 0..shard.addrs().len() {
        let user = "ACL SETUSER proxy on >pw ~* resetchannels +@all";
        let set = shard.wire(node).await.run(user).await.unwrap();
        assert!(set.ok(), "{set:?}");
    }
    Settings {
        shard: "username = \"proxy\"\npassword = \"pw\"".into(),
        ..patient()
    }
}

#[tokio::test]
async fn a_proxy_that_may_not_use_the_channel_says_so_and_refuses() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(without_channels(&shard).await).await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "refused", "{report:?}");
    for said in ["NOPERM", "&__pointsman__:demo", "silent_proxies"] {
        let found = report.reasons.iter().any(|why| why.contains(said));
        assert!(found, "{said}: {report:?}");
    }
}

#[tokio::test]
async fn it_goes_on_and_reports_it_where_that_was_asked_for() {
    let shard = Shard::redis(1).await;
    let mut settings = without_channels(&shard).await;
    settings.switchover += "\nsilent_proxies = \"report\"";
    let proxy = shard.proxy_with(settings).await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert!(report.proxies.fault.is_some(), "{report:?}");
}
