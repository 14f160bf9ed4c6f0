//! Who listens to the channel of a shard on one node: other proxies by name, and whoever else does.
//!
//! **Invariant:** a listener is left out of the count only when the node's own list says that it is
//! none of the proxies, or one of them twice. Where the list does not fit the count, all are waited
//! for.
//!
//! # Trade-offs
//!
//! * The list is asked on a connection of its own, before the hold: it may be longer than what is
//!   read, or not come at all where it is long in the making, and would take the link to the node
//!   with it. Then the count alone counts, and nothing is closed.
//! * A proxy whose user may not name its connection looks like a stranger. It is told like all
//!   others, and nobody waits for it; beside strangers alone nothing is said, so it is not even
//!   told. It says so in its log.
//! * A proxy that is named and leaves in the millisecond before HOLD undoes the switchover like a
//!   silent one: by the count it might be a stranger that has left, and the proxy one that broke
//!   off.
//! * A proxy that has started anew has another id. What its last run left half-open behind a
//!   network that dropped everything counts as a silent proxy until the node's `tcp-keepalive` has
//!   found out: it cannot be told from one that is frozen. The report names it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::call::{PEERS_MAX, listening};
use super::channel::Peers;
use super::message;
use crate::resp::reply::{ClientLine, Value, client_lines};
use crate::topology::node::{Connection, Credentials, NodeError, NodeName, words};

/// What a connection that listens calls itself, before the proxy's id.
pub(super) const LISTENER: &str = "pointsman-peer-";
/// The one that speaks.
pub(super) const SPEAKER: &str = "pointsman-say-";
/// Who is connected to a node. The short list is known to Redis since 5, and not to every Kvrocks.
const LISTS: [&[&str]; 2] = [&["CLIENT", "LIST", "TYPE", "pubsub"], &["CLIENT", "LIST"]];
/// Connections of ours that are closed at once.
const OLDER_MAX: usize = 64;

/// Those who listened on a node in one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The other proxies, by id, and the address that the node sees of each.
    pub others: BTreeMap<String, String>,
    /// Listeners that are no proxies.
    pub strangers: usize,
    /// Listeners that no answer is to be expected from: strangers, and all but one of each proxy.
    pub(super) surplus: usize,
}

impl Census {
    /// `None` when the list does not show ourselves, or more proxies than listeners.
    fn of(clients: &[ClientLine], listening: usize, ourselves: &str) -> Option<Census> {
        let mut named = 0;
        let mut proxies: BTreeMap<&str, &ClientLine> = BTreeMap::new();
        // A speaker of a proxy that gives both connections the same name has not subscribed.
        for client in clients.iter().filter(|client| client.flags.contains('P')) {
            let id = client.name.strip_prefix(LISTENER);
            let Some(id) = id.filter(|id| message::is_id(id)) else {
                continue;
            };
            named += 1;
            let newest = proxies.entry(id).or_insert(client);
            if newest.id < client.id {
                *newest = client;
            }
        }
        proxies.remove(ourselves)?;
        let others: BTreeMap<_, _> = proxies
            .into_iter()
            .map(|(id, client)| (id.to_owned(), client.addr.clone()))
            .collect();
        if others.len() > PEERS_MAX {
            return None;
        }
        Some(Census {
            strangers: listening.checked_sub(named)?,
            surplus: listening.checked_sub(1 + others.len())?,
            others,
        })
    }

    /// How many are to be waited for, of so many that listen now.
    pub(super) fn expected(&self, listening: usize) -> usize {
        let counted = listening.saturating_sub(1 + self.surplus);
        counted.max(self.others.len())
    }
}

impl Peers {
    /// Who listens on a node; `None` where it does not say.
    pub async fn census(
        &self,
        node: &NodeName,
        credentials: &Credentials,
        within: Duration,
    ) -> Option<Census> {
        let asked = timeout(within, async {
            let mut asks = self.asker(node, credentials, within).await?;
            self.listed(&mut asks, within).await
        });
        match asked.await {
            Ok(Ok(census)) => return census,
            Ok(Err(error)) => {
                tracing::info!(%node, %error, "who listens to the channel there is not known");
            }
            Err(_) => tracing::info!(%node, "it does not say in time who listens to the channel"),
        }
        None
    }

    async fn listed(
        &self,
        asks: &mut Connection,
        within: Duration,
    ) -> Result<Option<Census>, NodeError> {
        let Some((answers, clients)) = listed_behind(asks, Some(self.count()), within).await?
        else {
            return Ok(None);
        };
        let listening = listening(answers.first()).ok();
        Ok(listening.and_then(|listening| Census::of(&clients, listening, &self.id)))
    }

    /// Closes listeners of ours, older than `own`, that a node still keeps although they broke
    /// here: nobody answers there, and others wait for it. What cannot be closed is no obstacle;
    /// they do not count where they are seen.
    pub(super) async fn close_older(
        &self,
        node: &NodeName,
        own: u64,
        credentials: &Credentials,
        within: Duration,
    ) {
        let closed = timeout(within, async {
            let mut asks = self.asker(node, credentials, within).await?;
            let name = format!("{LISTENER}{}", self.id);
            close_listed(&mut asks, &name, own, within).await
        });
        if let Ok(Err(error)) = closed.await {
            tracing::debug!(%node, %error, "older listeners of ours are not closed there");
        }
    }

    /// A connection that is used once.
    async fn asker(
        &self,
        node: &NodeName,
        credentials: &Credentials,
        within: Duration,
    ) -> Result<Connection, NodeError> {
        let name = format!("{SPEAKER}{}", self.id);
        Connection::open(node, credentials, &name, within).await
    }
}

/// Who is connected to a node, by the shortest list that it gives and that has those who listen,
/// and what it answers to a question asked together with that: who goes or comes between two
/// questions would be taken for a stranger. The question first: whoever comes in between all the
/// same is in the list.
async fn listed_behind(
    asks: &mut Connection,
    question: Option<Vec<Bytes>>,
    within: Duration,
) -> Result<Option<(Vec<Value>, Vec<ClientLine>)>, NodeError> {
    for list in LISTS {
        let asked: Vec<_> = question.iter().cloned().chain([words(list)]).collect();
        let answers = asks.call_many(&asked, within).await?;
        if let Some(clients) = answers.last().and_then(client_lines) {
            return Ok(Some((answers, clients)));
        }
    }
    Ok(None)
}

async fn close_listed(
    asks: &mut Connection,
    name: &str,
    own: u64,
    within: Duration,
) -> Result<(), NodeError> {
    let listed = listed_behind(asks, None, within).await?;
    let (_, clients) = listed.unwrap_or_default();
    let older = |client: &&ClientLine| client.name == name && client.id < own;
    let older = clients.iter().filter(older).take(OLDER_MAX);
    let ids: Vec<u64> = older.map(|client| client.id).collect();
    asks.kill_clients(&ids, within).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners by name, each with its place as its id.
    fn census(names: &[&str], listening: usize) -> Option<Census> {
        let line = |(at, name): (usize, &&str)| ClientLine {
            id: at as u64,
            addr: format!("h:{at}"),
            name: (*name).to_owned(),
            flags: "P".to_owned(),
            ..ClientLine::default()
        };
        let lines: Vec<_> = names.iter().enumerate().map(line).collect();
        Census::of(&lines, listening, "us")
    }

    fn check(
        names: &[&str],
        listening: usize,
        others: &[(&str, &str)],
        strangers: usize,
    ) -> Census {
        let census = census(names, listening).expect("a census");
        let told = |(id, addr): &(&str, &str)| ((*id).to_owned(), (*addr).to_owned());
        assert_eq!(census.others, others.iter().map(told).collect());
        assert_eq!(census.strangers, strangers);
        assert_eq!(census.expected(listening), others.len());
        census
    }

    #[test]
    fn each_other_proxy_is_named_and_strangers_are_not_waited_for() {
        check(&["pointsman-peer-us"], 1, &[], 0);
        let two = ["pointsman-peer-us", "pointsman-peer-a-1"];
        check(&two, 2, &[("a-1", "h:1")], 0);
        check(&two, 5, &[("a-1", "h:1")], 3);
        let beside = ["pointsman-peer-us", "app", "", "pointsman-peer-a"];
        check(&beside, 4, &[("a", "h:3")], 2);
        // Nobody with such a name can acknowledge anything.
        check(&["pointsman-peer-us", "pointsman-peer-{}"], 2, &[], 1);
    }

    #[test]
    fn of_one_that_listens_twice_the_newer_is_named_and_one_answer_is_awaited() {
        let names = [
            "pointsman-peer-us",
            "pointsman-peer-us",
            "pointsman-peer-a",
            "pointsman-peer-a",
        ];
        check(&names, 4, &[("a", "h:3")], 0);
        check(&names, 6, &[("a", "h:3")], 2);
    }

    #[test]
    fn who_only_speaks_does_not_listen() {
        let speaker = ClientLine {
            name: "pointsman-peer-a".to_owned(),
            flags: "N".to_owned(),
            ..ClientLine::default()
        };
        let ourselves = ClientLine {
            name: "pointsman-peer-us".to_owned(),
            flags: "P".to_owned(),
            ..ClientLine::default()
        };
        let census = Census::of(&[speaker, ourselves], 1, "us");
        assert_eq!(census, Some(Census::default()));
    }

    #[test]
    fn who_comes_later_is_waited_for_and_so_is_everybody_who_was_named() {
        let names = ["pointsman-peer-us", "pointsman-peer-a", "pointsman-peer-a"];
        let census = check(&names, 4, &[("a", "h:2")], 1);
        assert_eq!(census.expected(5), 2);
        // The strangers have left; the proxy may be there still.
        assert_eq!(census.expected(2), 1);
        assert_eq!(census.expected(0), 1);
    }

    #[test]
    fn a_list_that_does_not_fit_is_not_believed() {
        assert_eq!(census(&["pointsman-peer-a"], 2), None);
        // Of another shard on the same nodes, listening elsewhere.
        let names = ["pointsman-peer-us", "pointsman-peer-x", "pointsman-peer-x"];
        assert_eq!(census(&names, 2), None);
        let many: Vec<String> = (0..=PEERS_MAX)
            .map(|at| format!("pointsman-peer-{at}"))
            .collect();
        let mut names: Vec<&str> = many.iter().map(String::as_str).collect();
        names.push("pointsman-peer-us");
        assert_eq!(census(&names, names.len()), None);
        let fewer = census(&names[1..], names.len()).expect("a census");
        assert_eq!((fewer.others.len(), fewer.strangers), (PEERS_MAX, 1));
    }
}
