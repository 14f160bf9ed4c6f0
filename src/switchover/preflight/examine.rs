//! Looks at one node: everything that preflight judges, over one connection.
//!
//! **Invariant:** nothing here changes anything on the node. What a user may do is asked with
//! `ACL DRYRUN`, never tried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::resp::reply::{ClientLine, Value, client_lines, config_map};
use crate::switchover::orders::Orders;
use crate::topology::facts::NodeFacts;
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, Credentials, Engine, NodeError, NodeName};

/// Settings that are compared or checked. A name that an engine does not have answers nothing.
const SETTINGS: [&str; 16] = [
    "replica-read-only",
    "slave-read-only",
    "replica-serve-stale-data",
    "slave-serve-stale-data",
    "min-replicas-to-write",
    "min-slaves-to-write",
    "maxclients",
    "databases",
    "redis-databases",
    "masterauth",
    "masteruser",
    "requirepass",
    "client-output-buffer-limit",
    "cluster-enabled",
    "use-rsid-psync",
    "db-name",
];

/// One node as preflight saw it.
#[derive(Clone, Debug)]
pub struct Examined {
    pub facts: NodeFacts,
    pub identity: Identity,
    pub orders: Orders,
    pub config: BTreeMap<String, String>,
    /// Why CONFIG GET answered nothing.
    pub config_error: Option<String>,
    /// Orders that our credentials may not give, in the server's words.
    pub denied: Vec<String>,
    /// Our connection carries its name and is found by id in CLIENT LIST.
    pub traceable: bool,
    pub clients: u64,
    pub watchers: Watchers,
}

/// The Sentinels that watch a node, as far as the node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchers {
    /// The beginnings of their ids, by which they call their connections.
    pub ids: BTreeSet<String>,
    /// Listeners to what Sentinels tell each other, who have no such name.
    pub unnamed: u64,
}

impl Watchers {
    fn of(clients: &[ClientLine], listeners: u64) -> Watchers {
        let named = |client: &ClientLine| {
            let (id, part) = client.name.strip_prefix("sentinel-")?.rsplit_once('-')?;
            Some((id.to_owned(), part == "pubsub"))
        };
        let named: Vec<(String, bool)> = clients.iter().filter_map(named).collect();
        let listening = named.iter().filter(|(_, listens)| *listens).count() as u64;
        Watchers {
            unnamed: listeners.saturating_sub(listening),
            ids: named.into_iter().map(|(id, _)| id).collect(),
        }
    }

    /// Takes no further notice of these.
    pub fn excuse(&mut self, known: &[String]) {
        self.ids.retain(|id| !known.contains(id));
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.unnamed == 0
    }
}

impl Examined {
    /// The first of `names` that the node has.
    pub fn setting(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.config.get(*name))
            .map(String::as_str)
    }

    pub fn read_only(&self) -> Option<&str> {
        self.setting(&["replica-read-only", "slave-read-only"])
    }
}

/// Dials a node and looks at it.
pub async fn examine(
    node: NodeName,
    credentials: Credentials,
    name: String,
    within: Duration,
) -> Result<(Connection, Examined), NodeError> {
    let mut connection = Connection::open(&node, &credentials, &name, within).await?;
    let examined = look(&mut connection, &credentials, within).await?;
    Ok((connection, examined))
}

async fn look(
    connection: &mut Connection,
    credentials: &Credentials,
    within: Duration,
) -> Result<Examined, NodeError> {
    let facts = NodeFacts::read(connection, within).await?;
    let orders = Orders::probe(connection, facts.engine, facts.version, within).await?;
    let gets = SETTINGS.map(|setting| ["CONFIG", "GET", setting]);
    let mut asked: Vec<&[&str]> = gets.iter().map(|get| get.as_slice()).collect();
    asked.push(&["CLIENT", "LIST"]);
    asked.push(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]);
    let values = connection.call_words(&asked, within).await?;
    let (settings, rest) = values.split_at_checked(SETTINGS.len()).unwrap_or_default();
    let config: BTreeMap<_, _> = settings.iter().filter_map(config_map).flatten().collect();
    let config_error = settings.iter().find_map(Value::error).map(str::to_owned);
    let clients = rest.first().and_then(client_lines);
    let listed = |client: &ClientLine| Some(client.id) == own_id(connection);
    let traceable = connection.is_traceable()
        && clients
            .as_ref()
            .is_some_and(|clients| clients.iter().any(listed));
    let clients = clients.unwrap_or_default();
    let subscribers = rest
        .get(1)
        .and_then(Value::items)
        .and_then(|items| items.get(1)?.number());
    let listeners = subscribers.and_then(|count| u64::try_from(count).ok());
    let watchers = Watchers::of(&clients, listeners.unwrap_or_default());
    let denied = denied(connection, credentials, orders, within).await?;
    Ok(Examined {
        identity: Identity::of(connection),
        config_error: config_error.filter(|_| config.is_empty()),
        clients: clients.len() as u64,
        facts,
        orders,
        config,
        denied,
        traceable,
        watchers,
    })
}

fn own_id(connection: &Connection) -> Option<u64> {
    connection.client_id().and_then(|id| u64::try_from(id).ok())
}

/// Orders that the node would refuse us. A server without `ACL DRYRUN`, or one that does not let
/// us ask, counts as permitting everything: the orders themselves then say so, before any harm.
async fn denied(
    connection: &mut Connection,
    credentials: &Credentials,
    orders: Orders,
    within: Duration,
) -> Result<Vec<String>, NodeError> {
    // Kvrocks gives SLAVEOF to the same users as CONFIG GET, which has been asked already.
    if orders.engine == Engine::Kvrocks {
        return Ok(Vec::new());
    }
    let user = &*credentials.user();
    let role = orders.abilities.role_command;
    let needed: [&[&str]; 7] = [
        &[role, "NO", "ONE"],
        &["CONFIG", "SET", "replica-read-only", "yes"],
        &["CLIENT", "KILL", "ID", "1"],
        &["CLIENT", "LIST"],
        &["CLIENT", "PAUSE", "1", "WRITE"],
        &["MULTI"],
        &["EXEC"],
    ];
    let tries: Vec<Vec<&str>> = needed
        .iter()
        .map(|order| [&["ACL", "DRYRUN", user], *order].concat())
        .collect();
    let tries: Vec<&[&str]> = tries.iter().map(Vec::as_slice).collect();
    let values = connection.call_words(&tries, within).await?;
    Ok(values
        .iter()
        .filter_map(|value| match value {
            Value::Bulk(_) => value.text().map(str::to_owned),
            Value::Error(text) if text.contains("not found") => Some(text.clone()),
            _ => None,
        })
        .collect())
}
