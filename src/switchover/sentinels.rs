//! The Sentinels of a shard before a switchover of ours: what they see, what they are to be told.
//!
//! **Invariant:** that they forget the shard and watch it anew is known beforehand to be allowed to
//! us and to lose nothing that cannot be set again, and every Sentinel that watches is one of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::resp::reply::{Value, config_map};
use crate::topology::facts::join;
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, NodeError, NodeName};
use crate::topology::sentinel::Sentinels;

/// What the connections call themselves.
const NAME: &str = "pointsman-tell";

/// What they are told later, as far as permissions go.
const ORDERS: [&[&str]; 3] = [
    &["REMOVE", "-"],
    &["MONITOR", "-", "-", "-", "-"],
    &["SET", "-", "-", "-"],
];

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
    /// In the Sentinel's words: the orders that it would not take from us.
    forbidden: Vec<String>,
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
    let forbidden = forbidden(connection, within).await?;
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
        forbidden,
    })
}

/// Asks whether it would take our orders, where it can say so (Redis 7.0 and later).
async fn forbidden(
    connection: &mut Connection,
    within: Duration,
) -> Result<Vec<String>, NodeError> {
    let who = connection.call(&["ACL", "WHOAMI"], within).await?;
    let Some(who) = who.text().filter(|_| who.error().is_none()) else {
        return Ok(Vec::new());
    };
    let dry_run = |order: &&[&'static str]| [&["ACL", "DRYRUN", who, "SENTINEL"], *order].concat();
    let questions: Vec<Vec<&str>> = ORDERS.iter().map(dry_run).collect();
    let questions: Vec<&[&str]> = questions.iter().map(Vec::as_slice).collect();
    let answers = connection.call_words(&questions, within).await?;
    // An error says that the question itself is not known, or not allowed.
    let answers = answers.iter().filter(|answer| answer.error().is_none());
    let refusals = answers.filter_map(Value::text).filter(|text| *text != "OK");
    Ok(refusals.map(str::to_owned).collect())
}

pub(super) fn accepted(
    connection: &Connection,
    order: &[&str],
    value: &Value,
) -> Result<(), NodeError> {
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
        for words in &self.forbidden {
            failings.push(format!(
                "Sentinel {name} would not be told of the switchover: {words}; allow it (ACL SETUSER)"
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

/// Does the same at all of them, on a connection of its own each, with their name for the shard.
async fn at_all<T: Send + 'static, F>(
    sentinels: &Sentinels,
    act: impl Fn(Connection, String) -> F + Clone + Send + 'static,
    within: Duration,
) -> Vec<Result<T, NodeError>>
where
    F: Future<Output = Result<T, NodeError>> + Send,
{
    at_some(sentinels, &sentinels.names, act, within).await
}

/// [`at_all`], at those of these names.
pub(super) async fn at_some<T: Send + 'static, F>(
    sentinels: &Sentinels,
    names: &[NodeName],
    act: impl Fn(Connection, String) -> F + Clone + Send + 'static,
    within: Duration,
) -> Vec<Result<T, NodeError>>
where
    F: Future<Output = Result<T, NodeError>> + Send,
{
    let mut running = JoinSet::new();
    for (at, name) in names.iter().enumerate() {
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
