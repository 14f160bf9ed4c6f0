//! Claims about SIGHUP: what counts from then on, what is refused, and that nobody is disturbed.

#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/site.rs"]
mod site;
mod support;

use pki::{Authority, Life};
use site::{Site, connect};
use support::{
    Clients, Proxy, Settings, Shard, begin_switchover, client, ended, in_phase, patient,
    proxy_settings, stick_writes, switchover, wait_until,
};

/// Replaces a part of the config.
fn rewrite(proxy: &Proxy, from: &str, to: &str) {
    let text = std::fs::read_to_string(&proxy.config).expect("it is there");
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(&proxy.config, text.replace(from, to)).expect("it is written");
}

/// Reloads and returns what the log says about it.
async fn reload(proxy: &Proxy) -> String {
    let told = || {
        let log = proxy.log_tail();
        let lines = log.lines().filter(|line| line.contains("reloaded"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = told();
    proxy.signal("HUP").expect("it lives");
    wait_until("the log tells of it", async || told() != before).await;
    told().pop().unwrap_or_default()
}

/// What a request with this token is answered.
async fn status_with(proxy: &mut Proxy, token: &str) -> u16 {
    proxy.admin.token = Some(token.to_owned());
    let answer = proxy.admin.get("/v1/shards").await;
    answer.expect("an answer").status
}

#[tokio::test]
async fn new_certificates_count_for_new_connections_and_drop_nobody() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let mut old = site.connect(&proxy.addr).await;
    assert!(old.run("SET a 1").await.expect("a reply").ok());

    let others = Authority::new(site.dir(), "others");
    let renewed = others.issue("renewed", Life::Good);
    std::fs::copy(&renewed.cert, &site.server.cert).expect("it is replaced");
    std::fs::copy(&renewed.key, &site.server.key).expect("it is replaced");
    site.try_connect(&proxy.addr)
        .await
        .expect("nothing was said to the proxy yet");
    let told = reload(&proxy).await;
    assert!(told.contains("config reloaded"), "{told}");

    let refused = connect(&proxy.addr, &site.authority, Some(&site.client)).await;
    assert!(
        refused.is_err(),
        "the old authority does not know the new certificate"
    );
    let mut new = connect(&proxy.addr, &others, Some(&site.client)).await;
    let new = new.as_mut().expect("the new authority does");
    assert_eq!(new.run("GET a").await.expect("a reply").text(), "1");
    assert!(old.run("SET a 2").await.expect("it was not dropped").ok());
    let report = switchover(&proxy, &site.nodes[1]).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert_eq!(
        old.run("GET a").await.expect("it was not dropped").text(),
        "2"
    );
}

#[tokio::test]
async fn limits_passwords_and_the_token_are_taken_over() {
    let shard = Shard::redis(1).await;
    let mut proxy = shard
        .proxy_with(Settings {
            admin: "token = \"the-first-token-of-all\"".into(),
            ..proxy_settings("clients_max = 1")
        })
        .await;
    let mut first = client(&proxy).await;
    assert_eq!(first.run("PING").await.expect("a reply").text(), "PONG");
    let refused = client(&proxy).await.run("PING").await.expect("a reply");
    assert_eq!(refused.text(), "ERR max number of clients reached");
    for node in 0..2 {
        let mut wire = shard.wire(node).await;
        for line in [
            "CONFIG SET masterauth later",
            "ACL SETUSER own on >new ~* &* +@all",
        ] {
            assert!(wire.run(line).await.expect("a reply").ok());
        }
    }
    rewrite(&proxy, "clients_max = 1", "clients_max = 2");
    rewrite(&proxy, "the-first-token-of-all", "the-second-token-of-all");
    rewrite(
        &proxy,
        "nodes = ",
        "username = \"own\"\npassword = \"new\"\nnodes = ",
    );
    let told = reload(&proxy).await;
    assert!(told.contains("config reloaded"), "{told}");

    let mut second = client(&proxy).await;
    assert_eq!(second.run("PING").await.expect("a reply").text(), "PONG");
    assert_eq!(first.run("PING").await.expect("a reply").text(), "PONG");
    assert_eq!(status_with(&mut proxy, "the-first-token-of-all").await, 401);
    assert_eq!(
        status_with(&mut proxy, "the-second-token-of-all").await,
        200
    );

    let mut wire = shard.wire(1).await;
    switchover(&proxy, &shard.addr(1)).await;
    let list = wire.run("CLIENT LIST").await.expect("a reply").text();
    let own = list.lines().any(|line| line.contains("user=own"));
    assert!(own, "nobody is the new user on the node:\n{list}");
}

#[tokio::test]
async fn what_needs_a_start_or_is_faulty_changes_nothing_at_all() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(Settings {
            switchover: "max_lag = 7".into(),
            ..proxy_settings("workers = 1\nclients_max = 1")
        })
        .await;
    let good = std::fs::read_to_string(&proxy.config).expect("it is there");
    let mut kept = client(&proxy).await;
    for (from, to, reason) in [
        ("workers = 1", "workers = 2", "[proxy] workers"),
        (
            "name = \"demo\"",
            "name = \"other\"",
            "which [[shard]] there are",
        ),
        (
            &*format!("listen = {:?}", proxy.addr),
            "listen = \"127.0.0.1:1\"",
            "listen of shard demo",
        ),
        (
            &*format!("listen = {:?}", proxy.admin.addr),
            "listen = \"127.0.0.1:1\"",
            "[admin] listen",
        ),
        (
            "[commands]",
            "[commands]\nshutdown = \"pass\"",
            "[commands]",
        ),
        ("max_lag = 7", "max_lag = -7", "`max_lag` is -7"),
        ("max_lag = 7", "max_lag = ", "this is not TOML"),
    ] {
        rewrite(&proxy, from, to);
        // It would be taken over, were it alone.
        rewrite(&proxy, "clients_max = 1", "clients_max = 5");
        reload(&proxy).await;
        let log = proxy.log_tail();
        let told = log.rsplit("config not reloaded, the old one stays").next();
        assert!(
            told.is_some_and(|told| told.contains(reason)),
            "{reason}: {log}"
        );
        let refused = client(&proxy).await.run("PING").await.expect("a reply");
        assert_eq!(refused.text(), "ERR max number of clients reached");
        std::fs::write(&proxy.config, &good).expect("it is written");
    }
    std::fs::remove_file(&proxy.config).expect("it is there");
    let told = reload(&proxy).await;
    assert!(told.contains("cannot read the config file"), "{told}");
    assert_eq!(kept.run("PING").await.expect("a reply").text(), "PONG");
}

#[tokio::test]
async fn nothing_is_reloaded_in_the_middle_of_an_operation() {
    let shard = Shard::redis(1).await;
    let proxy = shard
        .proxy_with(Settings {
            proxy: "clients_max = 60".into(),
            ..patient()
        })
        .await;
    let clients = Clients::start(&shard, &proxy).await;
    // The drain waits for what is stuck, so the operation is under way for as long as that takes.
    stick_writes(&shard, 3000).await;
    let id = begin_switchover(&proxy, &shard.addr(1)).await;
    in_phase(&proxy, &id, "hold").await;
    rewrite(&proxy, "clients_max = 60", "clients_max = 61");
    let told = reload(&proxy).await;
    let reason = format!("operation {id} is running on shard demo: reload again later");
    assert!(told.contains(&reason), "{told}");
    ended(&proxy, &id).await;
    let told = reload(&proxy).await;
    assert!(told.contains("config reloaded"), "{told}");
    clients.finish(&shard).await.assert_clean();
}
