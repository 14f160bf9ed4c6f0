//! Commands about clients: what they say of sessions, and what they do to sessions of this and
//! other workers, as on a direct connection.

#[path = "../support/mod.rs"]
mod support;

mod end;
mod list;
mod redirect;
mod twins;
mod unblock;
mod users;

use support::*;

/// Two workers, so that the second of two clients is another worker's.
pub fn two_workers() -> Settings {
    proxy_settings("workers = 2")
}

/// The same, for switchovers on a busy machine.
pub fn two_patient_workers() -> Settings {
    Settings {
        proxy: two_workers().proxy,
        ..patient()
    }
}

pub async fn id_of(client: &mut Wire) -> i64 {
    match client.run("CLIENT ID").await.unwrap() {
        Value::Int(id) => id,
        other => panic!("no id: {other:?}"),
    }
}

/// The lines of a `CLIENT LIST` as fields and values.
pub async fn listed(client: &mut Wire, command: &str) -> Vec<Vec<(String, String)>> {
    let text = client.run(command).await.unwrap().text();
    let fields = |line: &str| {
        let pairs = line.split(' ').map(|field| field.split_once('=').unwrap());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    text.lines().map(fields).collect()
}

pub fn value<'l>(line: &'l [(String, String)], field: &str) -> &'l str {
    let found = line.iter().find(|(name, _)| name == field);
    &found.unwrap_or_else(|| panic!("no {field} in {line:?}")).1
}

/// Waits until the server counts a client that blocks.
pub async fn until_blocked(shard: &Shard, node: usize) {
    let mut wire = shard.wire(node).await;
    wait_until("a client blocks", async || {
        let info = wire.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients") == Some("1")
    })
    .await;
}

pub async fn until_closed(client: &mut Wire) {
    let (_, ending) = client.raw_until_quiet(SOON).await;
    assert_eq!(ending, Ending::Closed);
}
