//! The nodes of one shard as last observed, each with its age.
//!
//! Owns a connection to every node and asks once a second, at once when somebody wants to know, and
//! more often while nodes take up new roles.
//! **Invariant:** it decides nothing: [`find_master`] is a pure judgement over a snapshot, and what
//! is done about it is decided elsewhere. Only positive evidence counts: a node that is silent has
//! not said anything.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::topology::facts::{Link, NodeFacts, Role};
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};

/// How often every node is asked.
pub const POLL_EVERY: Duration = Duration::from_secs(1);
/// How often, and for how long, when roles have just been changed: a second failure must not find us
/// without knowing who follows the new master.
const CLOSE_POLL_EVERY: Duration = Duration::from_millis(50);
const CLOSE_FOR: Duration = Duration::from_secs(1);
/// Older observations are no evidence: three polls were missed.
pub const FRESH: Duration = Duration::from_secs(3);
/// What the connections call themselves.
const NAME: &str = "pointsman-watch";

/// One node as last observed.
#[derive(Clone, Debug)]
pub struct Observed {
    pub identity: Identity,
    pub facts: Option<NodeFacts>,
    /// When `facts` were told.
    pub seen_at: Option<Instant>,
    /// Why the newest attempt failed.
    pub error: Option<Trouble>,
}

/// Why a node told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub words: String,
    /// Not even an error came from it.
    pub is_silence: bool,
}

impl From<NodeError> for Trouble {
    fn from(error: NodeError) -> Trouble {
        let is_silence = match &error {
            NodeError::Unreachable { .. } | NodeError::Broken { .. } => true,
            NodeError::Deadline { .. } => true,
            NodeError::Credentials { .. } | NodeError::Protocol { .. } => false,
            NodeError::Refused { .. } => false,
        };
        Trouble {
            words: error.to_string(),
            is_silence,
        }
    }
}

impl Observed {
    pub fn name(&self) -> &NodeName {
        &self.identity.name
    }

    /// What the node said, if that is recent enough to rely on.
    pub fn fresh(&self, now: Instant) -> Option<&NodeFacts> {
        self.recent(now).filter(|_| self.error.is_none())
    }

    /// The same, even if it has not answered since.
    pub fn recent(&self, now: Instant) -> Option<&NodeFacts> {
        let is_recent = |at| now.saturating_duration_since(at) <= FRESH;
        self.facts
            .as_ref()
            .filter(|_| self.seen_at.is_some_and(is_recent))
    }
}

/// All nodes of a shard, in the order of the config.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<Observed>,
}

impl Snapshot {
    pub fn node(&self, name: &str) -> Option<&Observed> {
        self.nodes.iter().find(|node| node.name().as_ref() == name)
    }

    /// The node of ours that a replica with `role` follows.
    pub fn followed_by(&self, role: &Role) -> Option<&Observed> {
        self.nodes
            .iter()
            .find(|node| node.identity.is_followed_by(role))
    }
}

/// Who is master, as far as a snapshot tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterFinding {
    One(NodeName),
    /// Nobody says so credibly; the text says why.
    None(String),
    /// More than one says so: nobody is, until it is resolved.
    Several(Vec<NodeName>),
}

/// Judges who is master. A node that says so is not believed when a replica says that it follows
/// another one of ours which is silent: the speaker may be an old master that came back.
pub fn find_master(snapshot: &Snapshot, now: Instant) -> MasterFinding {
    let speaking = snapshot
        .nodes
        .iter()
        .filter_map(|node| Some((node, node.fresh(now)?)));
    let mut masters: Vec<&Observed> = Vec::new();
    for (node, facts) in speaking.clone() {
        if facts.role.is_master() && !facts.loading {
            masters.push(node);
        }
    }
    let [master] = masters.as_slice() else {
        if masters.is_empty() {
            return MasterFinding::None("no node says that it is master".to_owned());
        }
        return MasterFinding::Several(masters.iter().map(|node| node.name().clone()).collect());
    };
    for (replica, facts) in speaking {
        let followed = snapshot.followed_by(&facts.role);
        let Some(followed) = followed.filter(|followed| followed.name() != master.name()) else {
            continue;
        };
        if followed.fresh(now).is_none() {
            let (replica, followed) = (replica.name(), followed.name());
            return MasterFinding::None(format!(
                "{} says that it is master, but {replica} follows {followed}, which is silent",
                master.name()
            ));
        }
    }
    MasterFinding::One(master.name().clone())
}

/// A running watch over one shard's nodes.
#[derive(Debug)]
pub struct Watch {
    snapshot: ArcSwap<Snapshot>,
    wanted: Notify,
    /// Until when rounds are not far apart.
    close_until: ArcSwapOption<Instant>,
    rounds: watch::Sender<u64>,
    /// Counts what was told, by whichever node.
    news: watch::Sender<u64>,
}

impl Watch {
    pub fn new(nodes: &[NodeName]) -> Arc<Watch> {
        let unseen = |name: &NodeName| Observed {
            identity: Identity::unresolved(name.clone()),
            facts: None,
            seen_at: None,
            error: None,
        };
        let nodes = nodes.iter().map(unseen).collect();
        Arc::new(Watch {
            snapshot: ArcSwap::from_pointee(Snapshot { nodes }),
            wanted: Notify::new(),
            close_until: ArcSwapOption::empty(),
            rounds: watch::Sender::new(0),
            news: watch::Sender::new(0),
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Asks every node now, and returns what they said.
    pub async fn look(&self) -> Arc<Snapshot> {
        let mut rounds = self.rounds.subscribe();
        // A round under way began before this question; the one after it answers it.
        let enough = self.unbegun_round();
        self.wanted.notify_one();
        while *rounds.borrow_and_update() < enough {
            self.wanted.notify_one();
            if rounds.changed().await.is_err() {
                break;
            }
        }
        self.snapshot()
    }

    /// The first round that has asked nobody yet: what it brings was said after this call.
    pub fn unbegun_round(&self) -> u64 {
        *self.rounds.borrow() + 2
    }

    /// Rounds that have ended.
    pub fn rounds(&self) -> u64 {
        *self.rounds.borrow()
    }

    /// Asks every node soon; somebody else will look at what they say.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Asks every node soon, and often for a second: nodes take up new roles.
    pub fn want_closely(&self) {
        let until = Instant::now() + CLOSE_FOR;
        self.close_until.store(Some(Arc::new(until)));
        self.want();
    }

    /// How long after `now` the next round begins, if nobody wants to know.
    fn poll_after(&self, now: Instant) -> Duration {
        match self.close_until.load().as_deref() {
            Some(until) if now < *until => CLOSE_POLL_EVERY,
            _ => POLL_EVERY,
        }
    }

    /// Tells of every node that has been asked, and of every round that has ended.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Asks until it is cancelled. Every answer has a deadline of `within`.
    pub async fn run(
        self: Arc<Self>,
        credentials: Credentials,
        within: Duration,
        stop: CancellationToken,
    ) {
        let names: Vec<NodeName> = self
            .snapshot()
            .nodes
            .iter()
            .map(|node| node.name().clone())
            .collect();
        let mut connections: Vec<Option<Connection>> = names.iter().map(|_| None).collect();
        loop {
            let round = self.round(&names, &mut connections, &credentials, within);
            tokio::select! {
                // A round that is cut off leaves its connections unusable; they go with the watch.
                () = round => {}
                () = stop.cancelled() => return,
            }
            self.rounds.send_modify(|round| *round += 1);
            self.news.send_modify(|told| *told += 1);
            tokio::select! {
                _ = timeout(self.poll_after(Instant::now()), self.wanted.notified()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(
        &self,
        names: &[NodeName],
        connections: &mut [Option<Connection>],
        credentials: &Credentials,
        within: Duration,
    ) {
        let mut running = JoinSet::new();
        for (at, (name, slot)) in names.iter().zip(connections.iter_mut()).enumerate() {
            let (name, connection, credentials) = (name.clone(), slot.take(), credentials.clone());
            running
                .spawn(async move { (at, observe(name, connection, &credentials, within).await) });
        }
        let before = self.snapshot();
        let mut nodes = before.nodes.clone();
        while let Some(told) = running.join_next().await {
            // A look that panicked has said nothing.
            let Ok((at, (connection, observed))) = told else {
                continue;
            };
            if let Some(slot) = connections.get_mut(at) {
                *slot = connection;
            }
            let Some(node) = nodes.get_mut(at) else {
                continue;
            };
            match observed {
                Ok((identity, facts, told_at)) => {
                    // Addresses may change; names that were learned for the same one stay.
                    if node.identity.ip() != identity.ip() {
                        node.identity = identity;
                    }
                    node.facts = Some(facts);
                    node.seen_at = Some(told_at);
                    node.error = None;
                }
                Err(error) => node.error = Some(error),
            }
            // One that is slow to answer must not keep what the others say.
            let nodes = nodes.clone();
            self.snapshot.store(Arc::new(Snapshot { nodes }));
            self.news.send_modify(|told| *told += 1);
        }
        learn(&mut nodes, within).await;
        self.snapshot.store(Arc::new(Snapshot { nodes }));
    }
}

type Observation = (
    Option<Connection>,
    Result<(Identity, NodeFacts, Instant), Trouble>,
);

async fn observe(
    name: NodeName,
    connection: Option<Connection>,
    credentials: &Credentials,
    within: Duration,
) -> Observation {
    let connection = match connection.filter(Connection::is_usable) {
        Some(connection) => Ok(connection),
        None => Connection::open(&name, credentials, NAME, within).await,
    };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(error) => return (None, Err(error.into())),
    };
    match NodeFacts::read(&mut connection, within).await {
        Ok(facts) => {
            let identity = Identity::of(&connection);
            (Some(connection), Ok((identity, facts, Instant::now())))
        }
        Err(error) => (
            Some(connection).filter(Connection::is_usable),
            Err(error.into()),
        ),
    }
}

/// Replicas may call their master by a name that the config does not have.
async fn learn(nodes: &mut [Observed], within: Duration) {
    let called: Vec<(String, u16)> = nodes
        .iter()
        .filter_map(|node| match &node.facts.as_ref()?.role {
            Role::Replica { host, port, .. } => Some((host.clone(), *port)),
            Role::Master => None,
        })
        .collect();
    for (host, port) in called {
        if nodes
            .iter()
            .any(|node| node.identity.is_called(&host, port))
        {
            continue;
        }
        for node in nodes.iter_mut() {
            node.identity.learn(&host, port, within).await;
        }
    }
}

/// The word that shows in a status.
pub fn link_word(role: &Role) -> Option<&'static str> {
    match role {
        Role::Master => None,
        Role::Replica { link: Link::Up, .. } => Some("up"),
        Role::Replica {
            link: Link::Down, ..
        } => Some("down"),
        Role::Replica {
            link: Link::Sync, ..
        } => Some("sync"),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
