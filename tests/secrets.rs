//! Claims about passwords and the admin token: who is let in with them, and that nobody ever reads
//! them in what the proxy writes.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Admin, Proxy, SHARD, Settings, Shard, client, field, patient, wait_until};

/// The password of the proxy's own user, of a client's user, of replication, and the admin token.
const OWN: &str = "0wn-Pa55word-of-the-pr0xy";
const CLIENTS: &str = "cl1ent-Pa55word-of-an-app";
const REPLICATION: &str = "repl1cation-Pa55word";
const TOKEN: &str = "t0ken-of-the-0perator-abcdef";

/// Nodes that ask everybody for a password, each user for its own.
async fn guarded(replicas: usize) -> Shard {
    let shard = Shard::redis(replicas).await;
    for node in 0..=replicas {
        let mut wire = shard.wire(node).await;
        for line in [
            format!("CONFIG SET masterauth {REPLICATION}"),
            format!("ACL SETUSER pointsman on >{OWN} ~* &* +@all"),
            format!("ACL SETUSER app on >{CLIENTS} ~* &* +@all"),
            format!("CONFIG SET requirepass {REPLICATION}"),
        ] {
            assert!(wire.run(&line).await.expect("an answer").ok(), "{line}");
        }
    }
    shard
}

/// Runs the command line beside a proxy, with one variable more in its environment.
async fn run(proxy: &Proxy, args: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(args).arg("--config").arg(&proxy.config);
    match token {
        Some(token) => command.env("POINTSMAN_ADMIN_TOKEN", token),
        None => command.env_remove("POINTSMAN_ADMIN_TOKEN"),
    };
    let ended = tokio::task::spawn_blocking(move || command.output());
    ended.await.expect("it is not cancelled").expect("it runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Everything that lies in the directory of the proxy, but for the files that were made secret.
fn written(dir: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let proxys_own = name.starts_with("proxy-") || name.contains("journal");
        if proxys_own && path.is_file() {
            all.push_str(&std::fs::read_to_string(&path).expect("it is text"));
        }
    }
    all
}

#[tokio::test]
async fn nothing_that_is_written_shows_a_secret() {
    let shard = guarded(1).await;
    let secret = |name: &str, text: &str| {
        let path = shard.dir().join(name);
        std::fs::write(&path, format!("{text}\n")).expect("it is written");
        path
    };
    let (own, token) = (secret("own", OWN), secret("token", TOKEN));
    let mut proxy = shard
        .proxy_with(Settings {
            proxy: "log_level = \"trace\"".into(),
            admin: format!("token_file = {token:?}"),
            shard: format!("username = \"pointsman\"\npassword_file = {own:?}"),
            ..patient()
        })
        .await;
    proxy.admin.token = Some(TOKEN.to_owned());

    let mut session = client(&proxy).await;
    for line in [
        "AUTH app wrong-Pa55word".to_owned(),
        format!("AUTH app {CLIENTS}"),
        format!("HELLO 3 AUTH app {CLIENTS}"),
        "SET a 1".to_owned(),
        "SUBSCRIBE c".to_owned(),
    ] {
        session.run(&line).await.expect("an answer");
    }
    let mut all = String::new();
    for args in [
        &["check"][..],
        &["check", "--json"],
        &["status"],
        &["status", "--json"],
        &["switchover", "--dry-run", "--to", &shard.addr(1)],
        &["switchover", "--to", &shard.addr(1)],
        &["abort"],
        &["switchover", "--json", "--to", &shard.addr(0)],
        // Refused: it is master already.
        &["switchover", "--to", &shard.addr(0)],
    ] {
        let output = run(&proxy, args, None).await;
        let refused = args == ["abort"] || args == ["switchover", "--to", &shard.addr(0)];
        let text = said(&output);
        assert_eq!(output.status.success(), !refused, "{args:?}: {text}");
        all.push_str(&text);
    }
    let operation = all
        .split_whitespace()
        .skip_while(|word| *word != "switchover");
    let id = operation.clone().nth(1).expect("an operation").to_owned();
    for path in [
        "/",
        "/metrics",
        "/v1/shards",
        &format!("/v1/operations/{id}"),
    ] {
        let answer = proxy.admin.get(path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        all.push_str(&answer.body);
    }
    let shown = proxy.admin.get(&format!("/v1/shards/{SHARD}")).await;
    all.push_str(&shown.expect("an answer").body);
    proxy.signal("TERM").expect("it lives");
    wait_until("the proxy ends", async || proxy.ended()).await;
    let written = written(shard.dir());
    assert!(
        written.contains("pointsman serves") && written.contains(&id),
        "no log or journal"
    );
    all.push_str(&written);

    for secret in [OWN, CLIENTS, REPLICATION, TOKEN, "wrong-Pa55word"] {
        let at = all.find(secret).map(|at| &all[at.saturating_sub(300)..at]);
        assert_eq!(at, None, "{secret} is shown behind this");
    }
}

#[tokio::test]
async fn only_health_is_told_without_the_token() {
    let shard = Shard::redis(1).await;
    let mut proxy = shard
        .proxy_with(Settings {
            admin: format!("token = {TOKEN:?}"),
            ..Settings::default()
        })
        .await;
    let get = async |admin: &Admin, path: &str| admin.get(path).await.expect("an answer");
    for token in [None, Some("t0ken-of-the-0perator-abcdeg".to_owned())] {
        proxy.admin.token = token;
        for path in ["/healthz", "/readyz"] {
            assert_eq!(get(&proxy.admin, path).await.status, 200, "{path}");
        }
        for path in [
            "/",
            "/metrics",
            "/v1/shards",
            "/v1/nowhere",
            "/healthz/",
            "/healthz/../v1",
        ] {
            let answer = get(&proxy.admin, path).await;
            assert_eq!(answer.status, 401, "{path}: {}", answer.body);
            assert!(answer.text("error").contains("POINTSMAN_ADMIN_TOKEN"));
        }
        let order = serde_json::json!({ "to": shard.addr(1) }).to_string();
        let path = format!("/v1/shards/{SHARD}/switchover");
        let answer = proxy.admin.post(&path, order).await.expect("an answer");
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
    assert_eq!(
        shard.master().await,
        Some(shard.addr(0)),
        "nothing was done"
    );

    proxy.admin.token = Some(TOKEN.to_owned());
    assert_eq!(get(&proxy.admin, "/v1/shards").await.status, 200);
}

#[tokio::test]
async fn an_operator_brings_a_token_without_the_secrets_of_the_proxy() {
    let shard = guarded(1).await;
    let own = shard.dir().join("own");
    std::fs::write(&own, OWN).expect("it is written");
    let proxy = shard
        .proxy_with(Settings {
            admin: format!("token = {TOKEN:?}"),
            shard: format!("username = \"pointsman\"\npassword_file = {own:?}"),
            ..Settings::default()
        })
        .await;
    // The operator's own copy of the config, on a machine that has none of the files.
    let text = std::fs::read_to_string(&proxy.config).expect("it is there");
    let text = text.replace(TOKEN, "n0t-the-t0ken-of-the-pr0xy");
    std::fs::write(&proxy.config, text).expect("it is written");
    std::fs::remove_file(&own).expect("it is there");

    let refused = run(&proxy, &["status"], None).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("the admin token is missing or wrong"));
    let status = run(&proxy, &["status"], Some(TOKEN)).await;
    assert!(status.status.success(), "{}", said(&status));
    let check = run(&proxy, &["check"], Some(TOKEN)).await;
    assert_eq!(
        check.status.code(),
        Some(2),
        "check needs them: {}",
        said(&check)
    );

    let moved = run(&proxy, &["switchover", "--to", &shard.addr(1)], Some(TOKEN)).await;
    assert!(moved.status.success(), "{}", said(&moved));
    let mut wire = shard.wire(1).await;
    assert!(
        wire.run(&format!("AUTH {REPLICATION}"))
            .await
            .expect("an answer")
            .ok()
    );
    let info = wire
        .run("INFO replication")
        .await
        .expect("an answer")
        .text();
    assert_eq!(field(&info, "role"), Some("master"), "{info}");
}
