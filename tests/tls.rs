//! Claims about TLS, with real servers that speak nothing else.

#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/site.rs"]
mod site;
mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pki::{Authority, Life};
use site::{Site, connect};
use support::{Ending, Proxy, Settings, Value, Wire, field, patient, switchover, wait_until};
use tokio::net::TcpStream;

/// Counts up one key; every reply must be the next number, or a write was lost or doubled.
async fn count_up(mut wire: Wire, key: String, stop: Arc<AtomicBool>, made: Arc<AtomicU64>) -> i64 {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = wire
            .call(&["INCR", &key])
            .await
            .expect("no error reaches a client");
        assert_eq!(reply, Value::Int(last + 1), "{key}");
        last += 1;
        made.fetch_add(1, Ordering::Relaxed);
    }
    last
}

/// Writes and reads back a megabyte, different each time.
async fn carry_large(mut wire: Wire, stop: Arc<AtomicBool>) -> u64 {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let value: Vec<u8> = (0..1_000_000_u32)
            .map(|at| (at * 7 + rounds) as u8)
            .collect();
        let set = wire.call(&[b"SET".as_slice(), b"large", &value]).await;
        assert!(set.expect("no error reaches a client").ok());
        let got = wire
            .call(&["GET", "large"])
            .await
            .expect("no error reaches a client");
        assert!(got == Value::Bulk(value), "it came back otherwise");
        rounds += 1;
    }
    u64::from(rounds)
}

#[tokio::test]
async fn nothing_is_lost_through_switchovers_with_tls_on_both_sides() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let (stop, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut writers = Vec::new();
    for number in 0..20 {
        let wire = site.connect(&proxy.addr).await;
        let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
        writers.push(tokio::spawn(count_up(
            wire,
            format!("n{number}"),
            stop,
            made,
        )));
    }
    let large = tokio::spawn(carry_large(
        site.connect(&proxy.addr).await,
        Arc::clone(&stop),
    ));
    let mut subscriber = site.connect(&proxy.addr).await;
    subscriber.run("SUBSCRIBE news").await.expect("a reply");
    let mut popper = site.connect(&proxy.addr).await;
    let mut publisher = site.connect(&proxy.addr).await;

    for round in 0_usize..6 {
        let before = made.load(Ordering::Relaxed);
        wait_until("writes go on", async || {
            made.load(Ordering::Relaxed) > before + 200
        })
        .await;
        popper
            .send(&["BLPOP", "queue", "0"])
            .await
            .expect("it is sent");
        let to = &site.nodes[(round + 1) % 2];
        let report = switchover(&proxy, to).await;
        assert_eq!(
            report.outcome,
            "switched",
            "{report:?}; {}",
            proxy.log_tail()
        );

        let word = format!("after-{round}");
        for command in [["PUBLISH", "news", &word], ["RPUSH", "queue", &word]] {
            publisher.call(&command).await.expect("a reply");
        }
        let message = subscriber.reply().await.expect("a message");
        assert_eq!(
            message.items().last(),
            Some(&Value::bulk(&word)),
            "{message:?}"
        );
        let popped = popper.reply().await.expect("an element");
        assert_eq!(
            popped.items().last(),
            Some(&Value::bulk(&word)),
            "{popped:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let mut reader = site.try_node(0).await.expect("a connection to the node");
    for (number, writer) in writers.into_iter().enumerate() {
        let last = writer.await.expect("no writer failed");
        let got = reader
            .run(&format!("GET n{number}"))
            .await
            .expect("a reply");
        assert_eq!(got, Value::bulk(last.to_string()));
    }
    assert!(large.await.expect("no large value failed") > 0);
}

#[tokio::test]
async fn redis_cli_works_in_tls() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let port = proxy.addr.rsplit(':').next().expect("a port");
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", port, "--tls", "--cacert"]);
    command.arg(site.authority.file());
    command.arg("--cert").arg(&site.client.cert);
    command.arg("--key").arg(&site.client.key);
    command.args(["-r", "3", "INCR", "cli"]);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.expect("it ends").expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\n2\n3\n",
        "{output:?}"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn replies_reach_a_client_that_has_ended_its_half() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let mut wire = site.connect(&proxy.addr).await;
    let value = "x".repeat(300_000);
    assert!(
        wire.call(&["SET", "k", &value])
            .await
            .expect("a reply")
            .ok()
    );
    for _ in 0..20 {
        wire.send(&["GET", "k"]).await.expect("it is sent");
    }
    wire.finish_sending().await.expect("our half is ended");
    for _ in 0..20 {
        assert_eq!(wire.reply().await.expect("a reply"), Value::bulk(&value));
    }
    // TLS' own end of the stream, not a connection that is cut off.
    let (rest, ending) = wire.raw_until_quiet(Duration::from_secs(10)).await;
    assert_eq!((rest.len(), ending), (0, Ending::Closed));
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let mut wire = site.connect(&proxy.addr).await;
    let value = "y".repeat(1_000_000);
    assert!(
        wire.call(&["SET", "k", &value])
            .await
            .expect("a reply")
            .ok()
    );
    // Far more than sockets hold: the proxy waits for us in the middle of a record.
    for _ in 0..40 {
        wire.send(&["GET", "k"]).await.expect("it is sent");
    }
    let mut other = site.connect(&proxy.addr).await;
    assert_eq!(other.run("PING").await.expect("a reply").text(), "PONG");
    for _ in 0..40 {
        assert_eq!(wire.reply().await.expect("a reply"), Value::bulk(&value));
    }
}

/// The lines of the proxy's log that hold `words`.
fn logged(site: &Site, words: &str) -> usize {
    let entries = std::fs::read_dir(site.dir()).expect("it can be listed");
    let logs = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        (name.starts_with("proxy-") && name.ends_with(".log")).then_some(path)
    });
    let text: String = logs
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    text.lines().filter(|line| line.contains(words)).count()
}

async fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0; 1024];
    loop {
        stream.readable().await.expect("it can be waited for");
        match stream.try_read(&mut byte) {
            Ok(0) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
            // An alert, which says why.
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn who_speaks_no_tls_or_says_nothing_is_closed_and_disturbs_nobody() {
    let site = Site::start().await;
    let proxy = site
        .proxy(&Settings {
            proxy: "tls_handshake_timeout_ms = 300\nclients_max = 8".into(),
            ..site.settings()
        })
        .await;
    let mut other = site.connect(&proxy.addr).await;
    let plain = TcpStream::connect(&proxy.addr).await.expect("a connection");
    plain.writable().await.expect("it can be written");
    plain
        .try_write(b"*1\r\n$4\r\nPING\r\n")
        .expect("it is sent");
    assert!(is_closed(&plain).await);
    wait_until("it is logged", async || {
        logged(&site, "it speaks no TLS") == 1
    })
    .await;

    // As many as there is room for say nothing, or a little: nobody else gets in until they go.
    let mut silent = Vec::new();
    for _ in 0..7 {
        let stream = TcpStream::connect(&proxy.addr).await.expect("a connection");
        stream.writable().await.expect("it can be written");
        stream.try_write(b"\x16\x03\x01\x02").expect("it is sent");
        silent.push(stream);
    }
    assert_eq!(other.run("PING").await.expect("a reply").text(), "PONG");
    for stream in &silent {
        assert!(is_closed(stream).await);
    }
    wait_until("it is logged", async || {
        logged(&site, "no TLS handshake within 300 ms") == 7
    })
    .await;
    assert_eq!(other.run("PING").await.expect("a reply").text(), "PONG");
    let mut late = site.connect(&proxy.addr).await;
    assert_eq!(late.run("PING").await.expect("a reply").text(), "PONG");
    wait_until("it is counted", async || {
        let metrics = proxy.admin.get("/metrics").await.expect("an answer").body;
        let closed = metrics
            .lines()
            .find(|line| line.contains("reason=\"tls_handshake\""));
        closed.is_some_and(|line| line.ends_with(" 8"))
    })
    .await;
}

#[tokio::test]
async fn a_client_past_the_limit_is_closed_without_a_word() {
    let site = Site::start().await;
    let proxy = site
        .proxy(&Settings {
            proxy: "clients_max = 2".into(),
            ..site.settings()
        })
        .await;
    let mut kept = [
        site.connect(&proxy.addr).await,
        site.connect(&proxy.addr).await,
    ];
    assert!(site.try_connect(&proxy.addr).await.is_err());
    for wire in &mut kept {
        assert_eq!(wire.run("PING").await.expect("a reply").text(), "PONG");
    }
}

/// Whether a client with this certificate is served.
async fn is_served(site: &Site, proxy: &Proxy, own: Option<&pki::Issued>) -> bool {
    // In TLS 1.3 a refused certificate shows with the first reply, not in the handshake.
    match connect(&proxy.addr, &site.authority, own).await {
        Ok(mut wire) => wire.run("PING").await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_required() {
    let site = Site::start().await;
    let proxy = site.proxy(&site.settings()).await;
    let strangers = Authority::new(site.dir(), "strangers");
    let strange = strangers.issue("strange", Life::Good);
    let expired = site.authority.issue("expired", Life::Expired);
    assert!(is_served(&site, &proxy, Some(&site.client)).await);
    for own in [None, Some(&strange), Some(&expired)] {
        assert!(!is_served(&site, &proxy, own).await);
    }
    drop(proxy);
    let optional = Settings {
        shard: format!(
            "{}tls_client_certificates = \"optional\"",
            site.shard_lines()
        ),
        ..patient()
    };
    let proxy = site.proxy(&optional).await;
    assert!(is_served(&site, &proxy, Some(&site.client)).await);
    assert!(is_served(&site, &proxy, None).await);
    for own in [Some(&strange), Some(&expired)] {
        assert!(!is_served(&site, &proxy, own).await);
    }
}

/// What `check` says with these lines for the shard.
async fn check(site: &Site, shard: &str) -> (i32, String) {
    let nodes: Vec<String> = site.nodes.iter().map(|node| format!("{node:?}")).collect();
    let config = site.dir().join("check.toml");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:1\"\n[[shard]]\nname = \"a\"\nlisten = \"127.0.0.1:2\"\n\
         nodes = [{}]\n{shard}\n",
        nodes.join(", ")
    );
    std::fs::write(&config, text).expect("it is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("check").arg("--config").arg(&config);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.expect("it ends").expect("it runs");
    let (out, err) = (&output.stdout, &output.stderr);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
    (output.status.code().unwrap_or(-1), said)
}

#[tokio::test]
async fn check_says_why_a_node_cannot_be_reached_in_tls() {
    let site = Site::start().await;
    let strangers = Authority::new(site.dir(), "strangers");
    let (ca, wrong) = (site.authority.file(), strangers.file());
    let (cert, key) = (&site.client.cert, &site.client.key);
    let own = format!("upstream_tls_cert_file = {cert:?}\nupstream_tls_key_file = {key:?}\n");
    let (code, said) = check(
        &site,
        &format!("upstream_tls = true\nupstream_tls_ca_file = {ca:?}\n{own}"),
    )
    .await;
    assert!(
        code == 0 && said.contains("config and nodes are ready"),
        "{said}"
    );
    for (lines, reason) in [
        (
            format!("upstream_tls = true\nupstream_tls_ca_file = {wrong:?}\n{own}"),
            "name the authority that signed its certificate in upstream_tls_ca_file",
        ),
        (
            format!(
                "upstream_tls = true\nupstream_tls_ca_file = {ca:?}\n{own}\
                 upstream_tls_server_name = \"elsewhere\""
            ),
            "name it as its certificate does, or set upstream_tls_server_name",
        ),
        // Without a certificate of ours, which these nodes ask for.
        (
            format!("upstream_tls = true\nupstream_tls_ca_file = {ca:?}\n"),
            "",
        ),
        (String::new(), ""),
    ] {
        let (code, said) = check(&site, &lines).await;
        assert!(code == 1 && said.contains(reason), "{reason}: {said}");
    }
}

#[tokio::test]
async fn an_expired_or_plain_node_is_named_as_that() {
    let site = Site::start().await;
    let expired = site.authority.issue("expired", Life::Expired);
    for node in 0..2 {
        let mut wire = site.try_node(node).await.expect("a connection");
        let (cert, key) = (expired.cert.display(), expired.key.display());
        let line = format!("CONFIG SET tls-cert-file {cert} tls-key-file {key}");
        assert!(wire.run(&line).await.expect("a reply").ok());
    }
    let (code, said) = check(&site, &site.shard_lines()).await;
    assert!(
        code == 1 && said.contains("give the node a new one"),
        "{said}"
    );

    let plain = support::Shard::redis(0).await;
    let shard = site.shard_lines();
    let nodes = [plain.addr(0)];
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_pointsman"));
    let settings = Settings {
        shard,
        ..Settings::default()
    };
    let proxy = Proxy::launch(binary, &site.workspace, &nodes, &settings).expect("it starts");
    wait_until("the status says it", async || {
        let Ok(answer) = proxy.admin.get("/v1/shards").await else {
            return false;
        };
        answer.body.contains("is that its TLS port?")
    })
    .await;
    let mut wire = plain.wire(0).await;
    let info = wire.run("INFO server").await.expect("a reply").text();
    assert!(
        field(&info, "redis_version").is_some(),
        "the node itself is well"
    );
}
