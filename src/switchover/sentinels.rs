//! The Sentinels of a shard, in a switchover of ours: looked at before it, told after the promotion.
//!
//! Sentinel has no order to change its mind about who is master. It is made to forget the shard
//! (`SENTINEL REMOVE`) and to watch it anew at the target (`SENTINEL MONITOR`), with the settings that it
//! had before. A Sentinel that was not told puts the old roles back (measured: after 29 s).
//!
//! **Invariants:** all forget before one watches anew: one that still remembers the old master would
//! win those back that have begun again at epoch 0. Forgetting and watching anew is known beforehand to
//! lose nothing that cannot be set again, and every Sentinel that watches is one of ours.
//!
//! Trade-off: Sentinel tells nobody the password that it uses on the nodes, so it is given ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::resp::reply::{Value, config_map};
use crate::topology::facts::join;
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};
use crate::topology::sentinel::{Says, Sentinels, ask};

/// What the connections call themselves.
const NAME: &str = "pointsman-tell";

/// What one Sentinel is told, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub sentinel: String,
    /// The target, as this Sentinel calls it.
    pub host: String,
    pub port: u16,
    pub quorum: String,
    /// The settings that it has for the shard, by name.
    pub settings: Vec<(String, String)>,
}

/// Settings that [`Terms`] carry over.
const SETTINGS: [&str; 3] = [
    "down-after-milliseconds",
    "failover-timeout",
    "parallel-syncs",
];
/// Settings that Sentinel lets nobody set again unless it is told so in its file.
const SCRIPTS: [&str; 2] = ["notification-script", "client-reconfig-script"];

/// One Sentinel as preflight saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    name: NodeName,
    id: String,
    master: BTreeMap<String, String>,
    replicas: Vec<BTreeMap<String, String>>,
    others: Vec<BTreeMap<String, String>>,
}

/// Looks at all of them; those that cannot be looked at are failings.
pub async fn look(sentinels: &Sentinels, within: Duration) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut failings) = (Vec::new(), Vec::new());
    for result in at_all(
        sentinels,
        move |mut connection, name| async move { look_at(&mut connection, &name, within).await },
        within,
    )
    .await
    {
        match result {
            Ok(one) => seen.push(one),
            Err(error) => failings.push(format!("Sentinel: {error}")),
        }
    }
    (seen, failings)
}

async fn look_at(
    connection: &mut Connection,
    master: &str,
    within: Duration,
) -> Result<Seen, NodeError> {
    let questions: [&[&str]; 4] = [
        &["SENTINEL", "MYID"],
        &["SENTINEL", "MASTER", master],
        &["SENTINEL", "SLAVES", master],
        &["SENTINEL", "SENTINELS", master],
    ];
    let values = connection.call_words(&questions, within).await?;
    for (question, value) in questions.iter().zip(&values) {
        accepted(connection, question, value)?;
    }
    let maps = |at: usize| {
        let items = values.get(at).and_then(Value::items).unwrap_or_default();
        items.iter().filter_map(config_map).collect()
    };
    Ok(Seen {
        name: connection.node().clone(),
        id: values
            .first()
            .and_then(Value::text)
            .unwrap_or_default()
            .to_owned(),
        master: values.get(1).and_then(config_map).unwrap_or_default(),
        replicas: maps(2),
        others: maps(3),
    })
}

fn accepted(connection: &Connection, order: &[&str], value: &Value) -> Result<(), NodeError> {
    match value.error() {
        None => Ok(()),
        Some(text) => Err(NodeError::Refused {
            node: connection.node().clone(),
            command: order.iter().take(2).copied().collect::<Vec<_>>().join(" "),
            text: text.to_owned(),
        }),
    }
}

/// The beginnings of ids by which the nodes know their connections.
pub fn known_ids(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|one| one.id.chars().take(8).collect())
        .collect()
}

/// What is wrong with them, or else what they are to be told.
pub fn terms(seen: &[Seen], old: &Identity, target: &Identity) -> Result<Vec<Terms>, Vec<String>> {
    let (mut terms, mut failings) = (Vec::new(), Vec::new());
    for one in seen {
        failings.extend(one.failings(old));
        for other in &one.others {
            let field = |name: &str| other.get(name).map(String::as_str).unwrap_or_default();
            if !seen.iter().any(|known| known.id == field("runid")) {
                failings.push(format!(
                    "Sentinel {} knows another one at {}:{} that the config does not name; add it to \
                     `sentinels`, or have it forgotten (SENTINEL RESET)",
                    one.name,
                    field("ip"),
                    field("port")
                ));
            }
        }
        match one.terms(target) {
            Some(found) => terms.push(found),
            None => failings.push(format!(
                "Sentinel {} does not know {} as a replica; wait until it has found it",
                one.name, target.name
            )),
        }
    }
    failings.dedup();
    match failings.is_empty() {
        true => Ok(terms),
        false => Err(failings),
    }
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.master
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }

    fn failings(&self, old: &Identity) -> Vec<String> {
        let mut failings = Vec::new();
        let (name, host) = (&self.name, self.field("ip"));
        let port = self.field("port").parse().unwrap_or_default();
        if !old.is_called(host, port) {
            failings.push(format!(
                "Sentinel {name} takes {} for the master, not {}; wait until it has found out",
                join(host, port),
                old.name
            ));
        }
        if self.field("flags") != "master" {
            failings.push(format!(
                "Sentinel {name} calls the master {}; wait until that is over",
                self.field("flags")
            ));
        }
        for script in SCRIPTS {
            if !self.field(script).is_empty() {
                failings.push(format!(
                    "Sentinel {name} has a {script}, which cannot be set again; order the \
                     switchover there (SENTINEL FAILOVER)"
                ));
            }
        }
        failings
    }

    fn terms(&self, target: &Identity) -> Option<Terms> {
        let address = |replica: &BTreeMap<String, String>| {
            let port = replica.get("port")?.parse().ok()?;
            Some((replica.get("ip")?.clone(), port))
        };
        let mut replicas = self.replicas.iter().filter_map(address);
        let (host, port) = replicas.find(|(host, port)| target.is_called(host, *port))?;
        let setting = |name: &str| Some((name.to_owned(), self.master.get(name)?.clone()));
        Some(Terms {
            sentinel: self.name.to_string(),
            host,
            port,
            quorum: self.master.get("quorum")?.clone(),
            settings: SETTINGS.into_iter().filter_map(setting).collect(),
        })
    }
}

/// Tells all of them. `nodes`: who they are to be on the nodes. The answer says who could not be told.
pub async fn tell(
    sentinels: &Sentinels,
    terms: &[Terms],
    nodes: &Credentials,
    within: Duration,
) -> Vec<String> {
    let forgotten = at_all(
        sentinels,
        move |mut connection, master| async move {
            let order = ["SENTINEL", "REMOVE", &master];
            let value = connection.call(&order, within).await?;
            match value.error() {
                // Told half-way before.
                Some(text) if text.contains("No such master") => {}
                _ => accepted(&connection, &order, &value)?,
            }
            Ok(connection)
        },
        within,
    )
    .await;
    let mut failed = Vec::new();
    let mut running = JoinSet::new();
    for result in forgotten {
        let connection = match result {
            Ok(connection) => connection,
            Err(error) => {
                failed.push(format!("Sentinel: {error}"));
                continue;
            }
        };
        let own = terms
            .iter()
            .find(|own| own.sentinel == connection.node().as_ref());
        let Some(own) = own.cloned() else {
            continue;
        };
        let (master, nodes) = (sentinels.master.clone(), nodes.clone());
        running.spawn(async move { tell_one(connection, &master, &own, &nodes, within).await });
    }
    for told in running.join_all().await {
        if let Err(error) = told {
            failed.push(format!("Sentinel: {error}"));
        }
    }
    failed
}

async fn tell_one(
    mut connection: Connection,
    master: &str,
    own: &Terms,
    nodes: &Credentials,
    within: Duration,
) -> Result<(), NodeError> {
    let port = own.port.to_string();
    let monitor = ["SENTINEL", "MONITOR", master, &own.host, &port, &own.quorum];
    let mut set = vec!["SENTINEL", "SET", master];
    for (name, value) in &own.settings {
        set.extend([name.as_str(), value.as_str()]);
    }
    let (user, password) = nodes.login();
    if let Some(user) = &user {
        set.extend(["auth-user", user]);
    }
    if let Some(password) = &password {
        set.extend(["auth-pass", password.expose()]);
    }
    // In one write: it does not connect to the target before it has its password.
    let orders: [&[&str]; 2] = [&monitor, &set];
    let values = connection.call_words(&orders, within).await?;
    for (order, value) in orders.iter().zip(&values) {
        accepted(&connection, order, value)?;
    }
    let says = ask(&mut connection, master, within).await?;
    let told = Says::Master {
        host: own.host.clone(),
        port: own.port,
    };
    if says != told {
        return Err(NodeError::Refused {
            node: connection.node().clone(),
            command: "SENTINEL MONITOR".to_owned(),
            text: "it names another master all the same".to_owned(),
        });
    }
    Ok(())
}

/// Does the same at all of them, on a connection of its own each, with their name for the shard.
async fn at_all<T: Send + 'static, F>(
    sentinels: &Sentinels,
    act: impl Fn(Connection, String) -> F + Clone + Send + 'static,
    within: Duration,
) -> Vec<Result<T, NodeError>>
where
    F: Future<Output = Result<T, NodeError>> + Send,
{
    let mut running = JoinSet::new();
    for (at, name) in sentinels.names.iter().enumerate() {
        let (name, credentials) = (name.clone(), sentinels.credentials.clone());
        let (master, act) = (sentinels.master.clone(), act.clone());
        running.spawn(async move {
            let result = match Connection::open(&name, &credentials, NAME, within).await {
                Ok(connection) => act(connection, master).await,
                Err(error) => Err(error),
            };
            (at, result)
        });
    }
    let mut results = running.join_all().await;
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
