//! Several proxies of one shard, of which one switches: to the clients of all it is the same.

use std::time::{Duration, Instant};

use crate::by_hand::followed;
use crate::crowd::{Crowd, Kinds};
use crate::listeners::listener_of;
use crate::support::*;
use crate::two_proxies::Other;

/// Everything that an outsider who may `PUBLISH` can say.
async fn publish(shard: &Shard, node: usize, text: &str) -> Value {
    let mut wire = shard.wire(node).await;
    let channel = format!("__pointsman__:{SHARD}");
    wire.call(&["PUBLISH", &channel, text]).await.unwrap()
}

/// How many proxies listen on a node.
pub async fn listening(shard: &Shard, node: usize) -> i64 {
    let channel = format!("__pointsman__:{SHARD}");
    let mut wire = shard.wire(node).await;
    let told = wire.call(&["PUBSUB", "NUMSUB", &channel]).await.unwrap();
    match told.items() {
        [_, Value::Int(count)] => *count,
        _ => panic!("{told:?}"),
    }
}

pub async fn all_listen(shard: &Shard, proxies: i64) {
    for node in 0..shard.addrs().len() {
        wait_until("every proxy listens on every node", async || {
            listening(shard, node).await == proxies
        })
        .await;
    }
}

/// Everybody held, and nobody was late.
pub fn assert_together(report: &Report, others: usize) {
    assert_eq!(report.outcome, "switched", "{report:?}");
    let proxies = &report.proxies;
    let counts = (proxies.others, proxies.held.len(), proxies.routed.len());
    assert_eq!(counts, (others, others, others), "{report:?}");
    assert_eq!(proxies.fault, None, "{report:?}");
}

/// Long enough for a busy machine, but for the wait for another proxy.
pub fn short_wait(more: &str) -> Settings {
    let times = "sync_timeout_ms = 10000\npause_timeout_ms = 10000\nfollow_timeout_ms = 10000\n\
                 drain_timeout_ms = 1000";
    switchover_settings(&format!("{times}\n{more}"))
}

async fn write(proxy: &Proxy, key: &str) {
    let mut wire = client(proxy).await.with_deadline(SOON);
    let set = wire.call(&["SET", key, "1"]).await.unwrap();
    assert!(set.ok(), "{set:?}");
}

/// The proxies switch by turns; clients of all read nothing old and miss no message.
async fn check_by_turns(shard: &Shard, proxies: &[&Proxy], kinds: Kinds, targets: &[usize]) {
    all_listen(shard, proxies.len() as i64).await;
    let crowd = Crowd::start_across(proxies, kinds).await;
    for (&to, driver) in targets.iter().zip(proxies.iter().cycle()) {
        let report = switchover(driver, &shard.addr(to)).await;
        assert_together(&report, proxies.len() - 1);
        for proxy in proxies {
            followed(proxy, &shard.addr(to)).await;
        }
        crowd.go_on().await;
        shard.in_sync(&shard.addr(to)).await;
    }
    crowd.finish(&shard.addr(0)).await;
}

#[tokio::test]
async fn through_another_proxy_nothing_old_is_read_and_no_message_is_missed() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(&shard, patient()).await;
    let proxies = [&one, &other.proxy];
    check_by_turns(&shard, &proxies, Kinds::All, &[1, 2, 0, 2, 1, 0]).await;
}

#[tokio::test]
async fn nor_through_one_of_three() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy_with(patient()).await;
    let others = [
        Other::of(&shard, patient()).await,
        Other::of(&shard, patient()).await,
    ];
    let proxies = [&one, &others[0].proxy, &others[1].proxy];
    check_by_turns(&shard, &proxies, Kinds::Plain, &[1, 2, 0]).await;
}

#[tokio::test]
async fn nor_on_kvrocks() {
    let Some(shard) = Shard::kvrocks(2).await else {
        return;
    };
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(&shard, patient()).await;
    check_by_turns(&shard, &[&one, &other.proxy], Kinds::Plain, &[1, 0]).await;
}

#[tokio::test]
async fn of_three_that_are_ordered_at_once_one_switches_and_no_client_notices() {
    let shard = Shard::redis(2).await;
    let one = shard.proxy_with(patient()).await;
    let others = [
        Other::of(&shard, patient()).await,
        Other::of(&shard, patient()).await,
    ];
    let proxies = [&one, &others[0].proxy, &others[1].proxy];
    all_listen(&shard, 3).await;
    let crowd = Crowd::start_across(&proxies, Kinds::Plain).await;
    for _ in 0..4 {
        let from = shard.master().await.expect("one master");
        let mut targets = shard.addrs();
        targets.retain(|node| *node != from);
        let reports = tokio::join!(
            switchover(proxies[0], &targets[0]),
            switchover(proxies[1], &targets[1]),
            switchover(proxies[2], &targets[0]),
        );
        let reports = [reports.0, reports.1, reports.2];
        // One that was ordered when another had ended is an order of its own.
        let from_here = |report: &&Report| report.outcome == "switched" && report.from == from;
        assert_eq!(reports.iter().filter(from_here).count(), 1, "{reports:#?}");
        for report in &reports {
            let told = report
                .reasons
                .iter()
                .any(|why| why.contains("another proxy"));
            let late = report.from != from;
            assert!(report.outcome == "switched" || told || late, "{report:?}");
        }
        wait_until("there is one master", async || {
            shard.master().await.is_some()
        })
        .await;
        let master = shard.master().await.expect("one master");
        for proxy in proxies {
            followed(proxy, &master).await;
        }
        crowd.go_on().await;
        shard.in_sync(&master).await;
    }
    let master = shard.master().await.expect("one master");
    crowd.finish(&master).await;
}

#[tokio::test]
async fn a_switchover_beside_a_frozen_proxy_is_undone() {
    let shard = Shard::redis(1).await;
    let one = shard.proxy_with(short_wait("")).await;
    let other = Other::of(&shard, short_wait("")).await;
    all_listen(&shard, 2).await;
    let known = listener_of(&shard, 0, &other.proxy).await;
    let clients = Clients::start(&shard, &one).await;
    other.proxy.signal("STOP").unwrap();
    let report = switchover(&one, &shard.addr(1)).await;
    assert_eq!(report.outcome, "rolled_back", "{report:?}");
    assert!(report.reasons[0].contains("another proxy"), "{report:?}");
    assert_eq!((report.proxies.others, report.proxies.held.len()), (1, 0));
    assert_eq!(report.proxies.silent, [known]);
    let told = report
        .reasons
        .iter()
        .any(|why| why.contains(&report.proxies.silent[0].id));
    assert!(told, "{report:?}");
    clients.go_on().await;
    other.proxy.signal("CONT").unwrap();
    wait_until("it is of use again", async || {
        let report = switchover(&one, &shard.addr(1)).await;
        report.outcome == "switched" && report.proxies.routed.len() == 1
    })
    .await;
    followed(&other.proxy, &shard.addr(1)).await;
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn a_frozen_proxy_is_only_reported_where_that_was_asked_for() {
    let shard = Shard::redis(1).await;
    let settings = || short_wait("silent_proxies = \"report\"");
    let one = shard.proxy_with(settings()).await;
    let other = Other::of(&shard, settings()).await;
    all_listen(&shard, 2).await;
    let known = listener_of(&shard, 0, &other.proxy).await;
    let clients = Clients::start(&shard, &one).await;
    other.proxy.signal("STOP").unwrap();
    let report = switchover(&one, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert_eq!((report.proxies.others, report.proxies.held.len()), (1, 0));
    assert_eq!(report.proxies.silent, [known]);
    clients.go_on().await;
    other.proxy.signal("CONT").unwrap();
    followed(&other.proxy, &shard.addr(1)).await;
    write(&other.proxy, "after").await;
    clients.finish(&shard).await.assert_clean();
}

#[tokio::test]
async fn what_is_no_message_is_ignored() {
    let shard = Shard::redis(1).await;
    let one = shard.proxy_with(patient()).await;
    let other = Other::of(&shard, patient()).await;
    all_listen(&shard, 2).await;
    let long = "x".repeat(1 << 16);
    for text in [
        "",
        "HOLD",
        "HOLD a b c d",
        "HOLD a b 18446744073709551616 127.0.0.1:1",
        "ROUTE a b 127.0.0.1:1",
        "ACK a b hold",
        "RELEASE a b",
        "\r\n$-1\r\n",
        &long,
    ] {
        publish(&shard, 0, text).await;
    }
    write(&one, "a").await;
    write(&other.proxy, "b").await;
    assert_together(&switchover(&one, &shard.addr(1)).await, 1);
}

/// A HOLD whose driver says nothing more.
fn forged(operation: &str, ms: u64, target: &str) -> String {
    format!("HOLD {operation} forger {ms} {target}")
}

async fn gate(proxy: &Proxy) -> String {
    status(proxy).await["gate"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn an_outsider_holds_nobody_for_longer_than_the_limit() {
    const LIMIT: Duration = Duration::from_millis(500);
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy().await;
    all_listen(&shard, 1).await;
    let begun = Instant::now();
    publish(&shard, 0, &forged("forged-0", u64::MAX, &shard.addr(1))).await;
    wait_until("it holds", async || gate(&proxy).await == "holding").await;
    write(&proxy, "a").await;
    assert!(begun.elapsed() >= LIMIT / 2, "it has not held at all");
    // However often it is said, under ever new names, writes go on most of the time.
    let (mut held, mut number) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < 8 * LIMIT {
        number += 1;
        publish(
            &shard,
            0,
            &forged(&format!("forged-{number}"), u64::MAX, &shard.addr(1)),
        )
        .await;
        held += usize::from(gate(&proxy).await == "holding");
    }
    assert!(held * 2 < number, "{held} of {number} times it held");
    wait_until("it lets go and switches", async || {
        let report = switchover(&proxy, &shard.addr(1)).await;
        report.outcome == "switched"
    })
    .await;
}

#[tokio::test]
async fn an_outsider_leads_nobody_to_a_replica_or_to_a_stranger() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let stranger = Shard::redis(0).await;
    all_listen(&shard, 1).await;
    let before = status(&proxy).await;
    for (number, target) in [shard.addr(1), stranger.addr(0)].iter().enumerate() {
        let operation = format!("forged-{number}");
        publish(&shard, 0, &forged(&operation, 5000, target)).await;
        wait_until("it holds", async || gate(&proxy).await == "holding").await;
        publish(&shard, 0, &format!("ROUTE {operation} forger {target}")).await;
        publish(&shard, 0, &format!("RELEASE {operation} forger")).await;
        wait_until("it lets go", async || gate(&proxy).await == "open").await;
        write(&proxy, "a").await;
    }
    let after = status(&proxy).await;
    assert_eq!(
        (&after["master"], &after["epoch"]),
        (&before["master"], &before["epoch"])
    );
}

#[tokio::test]
async fn an_order_to_a_proxy_that_holds_for_another_is_told_of_it() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    all_listen(&shard, 1).await;
    publish(&shard, 0, &forged("theirs", 5000, &shard.addr(1))).await;
    wait_until("it holds", async || gate(&proxy).await == "holding").await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "refused", "{report:?}");
    assert!(report.reasons[0].contains("operation theirs"), "{report:?}");
    publish(&shard, 0, "RELEASE theirs forger").await;
    wait_until("it lets go", async || gate(&proxy).await == "open").await;
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
}

#[tokio::test]
async fn a_proxy_without_others_says_nothing() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut all = shard.wire(0).await.with_deadline(SOON);
    let subscribed = all.call(&["PSUBSCRIBE", "*"]).await.unwrap();
    assert_eq!(subscribed.items().len(), 3, "{subscribed:?}");
    let report = switchover(&proxy, &shard.addr(1)).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert_eq!(report.proxies.others, 0);
    shard.in_sync(&shard.addr(1)).await;
    shard
        .wire(1)
        .await
        .call(&["PUBLISH", "ours", "the first"])
        .await
        .unwrap();
    let heard = all.reply().await.unwrap();
    let said = heard.items().last().map(Value::text);
    assert_eq!(said.as_deref(), Some("the first"), "{heard:?}");
}
