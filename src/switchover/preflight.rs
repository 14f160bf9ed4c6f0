//! Step 0: is everything there that a switchover needs?
//!
//! Owns the look at the nodes before an operation and behind the `check` command. What it dials it
//! hands over: the operation goes on with these connections, so that nothing is dialled while
//! writes are held.
//!
//! **Invariant:** nothing is changed on any node, and every requirement that fails is named, not
//! only the first.

pub mod examine;
pub mod requirements;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{ProxyConfig, ShardConfig, SwitchoverConfig};
use crate::switchover::attach::{Tail, compare_tails};
use crate::switchover::claim::Claim;
use crate::switchover::orders::{Orders, Reading, SinkAddress, own_offset, read_target};
use crate::switchover::plan::{Dialect, Facts};
use crate::switchover::preflight::examine::{Examined, examine};
use crate::switchover::preflight::requirements::{Cast, Gap, output_limit, single};
use crate::switchover::sentinels::{self, Terms, terms};
use crate::switchover::sink::Sink;
use crate::topology::engine::{Engine, Version};
use crate::topology::facts::{Life, Link, Role, split};
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, Credentials, NodeName};
use crate::topology::sentinel::Sentinels;

/// A lag that is replicated in a few milliseconds, in bytes (Redis, Valkey).
const LAG_SMALL_BYTES: u64 = 256 << 10;
/// The same in sequence numbers (Kvrocks).
const LAG_SMALL_SEQUENCES: u64 = 500;

/// What is to be looked at, and how patiently.
#[derive(Clone, Debug)]
pub struct Question {
    pub nodes: Vec<NodeName>,
    pub credentials: Credentials,
    /// `pointsman-<operation>`: what every connection of the operation calls itself.
    pub name: String,
    pub from: NodeName,
    pub to: NodeName,
    pub max_lag: u64,
    /// Deadline of every single step.
    pub within: Duration,
    pub sentinels: Option<Arc<Sentinels>>,
}

/// Everything an operation goes on with.
pub struct Passed {
    pub facts: Facts,
    pub orders: Orders,
    pub old: Seat,
    pub target: Seat,
    pub others: Vec<Seat>,
    /// `replica-read-only` of the old master, for the journal.
    pub replica_read_only: String,
    pub old_life: Life,
    pub target_offset: u64,
    /// The target's count of full synchronisations so far.
    pub full_syncs: u64,
    pub sink_address: SinkAddress,
    /// The listener behind `sink_address`, where the engine needs one.
    pub sink: Option<Sink>,
    /// What the Sentinels are to be told.
    pub sentinel_terms: Vec<Terms>,
    /// What keeps other proxies off the nodes, where it was asked for.
    pub claim: Claim,
}

impl Passed {
    /// Opens the sink where the engine needs one: at `fence_address` (`host` or `host:port`), or at
    /// our end of the connection to the old master.
    pub async fn with_sink(mut self, fence_address: Option<&str>) -> Result<Passed, String> {
        if !self.orders.needs_listening_sink() {
            return Ok(self);
        }
        let failed = |error: std::io::Error| {
            format!("the sink for the fenced master cannot listen: {error}; check fence_address")
        };
        let connection = &self.old.connection;
        let Some(address) = fence_address else {
            let (local, peer) = (connection.local_addr().ip(), connection.peer_addr().ip());
            let sink = Sink::open(local, 0, Some(peer)).await.map_err(failed)?;
            self.sink_address = SinkAddress::of(sink.address());
            self.sink = Some(sink);
            return Ok(self);
        };
        let named = split(address).and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = named.unwrap_or((address, 0));
        let everywhere = match connection.local_addr().ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let sink = Sink::open(everywhere, port, None).await.map_err(failed)?;
        self.sink_address = SinkAddress {
            host: host.to_owned(),
            port: sink.address().port(),
        };
        self.sink = Some(sink);
        Ok(self)
    }
}

/// One node's connection, and the names the node goes by.
pub struct Seat {
    pub connection: Connection,
    pub identity: Identity,
}

/// Looks at every node. `Err` carries every failing requirement.
pub async fn preflight(question: &Question) -> Result<Passed, Vec<String>> {
    if !question.nodes.contains(&question.to) {
        let nodes = question.nodes.join(", ");
        return Err(vec![format!(
            "{} is no node of this shard; use one of {nodes}",
            question.to
        )]);
    }
    if question.from.is_empty() {
        let none = "the shard has no master now; wait until it has one";
        return Err(vec![none.to_owned()]);
    }
    if question.from == question.to {
        return Err(vec![format!(
            "{} is the master already; nothing is to be done",
            question.to
        )]);
    }
    let (mut seen, mut failings) = examine_all(question).await;
    learn_names(&mut seen, question.within).await;
    let watching = watching(question, &mut seen, &mut failings).await;
    let mut take = |name: &NodeName| {
        let at = seen
            .iter()
            .position(|(connection, _)| connection.node() == name)?;
        Some(seen.swap_remove(at))
    };
    let (old, target) = (take(&question.from), take(&question.to));
    let ((mut old, old_seen), (mut target, target_seen)) = match (old, target) {
        (Some(old), Some(target)) => (old, target),
        (old, target) => {
            for (_, node) in [old, target].iter().flatten().chain(&seen) {
                single(node, &mut failings);
            }
            return Err(failings);
        }
    };
    let others = seen.iter().map(|(_, examined)| examined).collect();
    let cast = Cast {
        old: &old_seen,
        target: &target_seen,
        others,
    };
    failings.extend(cast.failings());
    let sentinel_terms = terms(&watching, &old_seen.identity, &target_seen.identity);
    let sentinel_terms = sentinel_terms.unwrap_or_else(|wrong| {
        failings.extend(wrong);
        Vec::new()
    });
    // With the wrong roles a gap means nothing.
    let (mut lag, mut target_offset) = (0, 0);
    if failings.is_empty() {
        match gap(&mut old, &mut target, question).await {
            Ok(gap) => {
                (lag, target_offset) = (gap.lag(), gap.target_offset);
                let backlog = target_seen.facts.backlog_bytes;
                let gap = Gap {
                    output_limit: output_limit(&old_seen),
                    backlog,
                    ..gap
                };
                failings.extend(gap.failings(&question.from, &question.to));
            }
            Err(failing) => failings.push(failing),
        }
    }
    if failings.is_empty() && old_seen.facts.engine == Engine::Kvrocks {
        failings.extend(other_history(&mut old, &mut target, question.within).await);
    }
    if !failings.is_empty() {
        return Err(failings);
    }
    let seat = |connection, examined: Examined| Seat {
        connection,
        identity: examined.identity,
    };
    Ok(Passed {
        facts: Facts {
            dialect: dialect(old_seen.orders.engine, old_seen.facts.version),
            knows_pause: old_seen.orders.abilities.pause,
            lag,
            lag_small: lag_small(old_seen.orders.engine),
            old_is_down: false,
        },
        orders: old_seen.orders,
        replica_read_only: old_seen.read_only().unwrap_or_default().to_owned(),
        old_life: old_seen.facts.life.clone(),
        target_offset,
        full_syncs: target_seen.facts.syncs.full,
        sink_address: SinkAddress::closed_port(&question.name),
        sink: None,
        sentinel_terms,
        claim: Claim::default(),
        old: seat(old, old_seen),
        target: seat(target, target_seen),
        others: seen
            .into_iter()
            .map(|(connection, one)| seat(connection, one))
            .collect(),
    })
}

pub fn dialect(engine: Engine, version: Version) -> Dialect {
    match engine {
        Engine::Kvrocks => Dialect::Kvrocks,
        Engine::Redis if version < Version(7, 0, 0) => Dialect::RedisBefore7,
        Engine::Redis | Engine::Valkey => Dialect::Redis,
    }
}

fn lag_small(engine: Engine) -> u64 {
    match engine {
        Engine::Kvrocks => LAG_SMALL_SEQUENCES,
        Engine::Redis | Engine::Valkey => LAG_SMALL_BYTES,
    }
}

type Seen = Vec<(Connection, Examined)>;

/// All nodes at once, in the order of the config; those that could not be looked at are failings.
async fn examine_all(question: &Question) -> (Seen, Vec<String>) {
    let mut running = JoinSet::new();
    for (at, node) in question.nodes.iter().enumerate() {
        let (node, credentials) = (node.clone(), question.credentials.clone());
        let examination = examine(node, credentials, question.name.clone(), question.within);
        running.spawn(async move { (at, examination.await) });
    }
    let mut results = running.join_all().await;
    results.sort_by_key(|(at, _)| *at);
    let (mut seen, mut failings) = (Vec::new(), Vec::new());
    for (_, result) in results {
        match result {
            Ok(node) => seen.push(node),
            Err(error) => failings.push(error.to_string()),
        }
    }
    (seen, failings)
}

/// The Sentinels that are ours; the nodes' other ones are left in what was seen of the nodes.
async fn watching(
    question: &Question,
    seen: &mut Seen,
    failings: &mut Vec<String>,
) -> Vec<sentinels::Seen> {
    let Some(ours) = &question.sentinels else {
        return Vec::new();
    };
    let (watching, unseen) = sentinels::look(ours, question.within).await;
    failings.extend(unseen);
    let known = sentinels::known_ids(&watching);
    for (_, node) in seen {
        node.watchers.excuse(&known);
    }
    watching
}

/// Replicas may know their master by another name than the config does.
async fn learn_names(seen: &mut Seen, within: Duration) {
    let called: Vec<(String, u16)> = seen
        .iter()
        .filter_map(|(_, node)| match &node.facts.role {
            Role::Replica { host, port, .. } => Some((host.clone(), *port)),
            Role::Master => None,
        })
        .collect();
    for (_, node) in seen {
        for (host, port) in &called {
            node.identity.learn(host, *port, within).await;
        }
    }
}

/// The target first, then the old master: read so, a target that is ahead has another history.
async fn gap(
    old: &mut Connection,
    target: &mut Connection,
    question: &Question,
) -> Result<Gap, String> {
    let text = |error: crate::topology::node::NodeError| error.to_string();
    let before = own_offset(old, question.within).await.map_err(text)?;
    let began = Instant::now();
    let reading = read_target(target, question.within).await.map_err(text)?;
    let Reading::Following {
        offset: Some(target_offset),
        connected: true,
        ..
    } = reading
    else {
        return Err(format!(
            "{} lost its link just now; wait until it is up",
            target.node()
        ));
    };
    let old_offset = own_offset(old, question.within).await.map_err(text)?;
    // The readings are a fraction of a millisecond apart, so the rate is rough: it is an
    // exaggeration by one write at worst, which the floor of one millisecond keeps small.
    let elapsed_us = began.elapsed().as_micros().max(1000) as u64;
    let rate_per_s = old_offset.saturating_sub(before).saturating_mul(1_000_000) / elapsed_us;
    let max_lag = question.max_lag;
    Ok(Gap {
        old_offset,
        target_offset,
        max_lag,
        rate_per_s,
        ..Gap::default()
    })
}

/// Kvrocks has no replication id by default; the end of both logs must be the same bytes instead.
async fn other_history(
    old: &mut Connection,
    target: &mut Connection,
    within: Duration,
) -> Option<String> {
    let name = target.node().clone();
    let offset = match own_offset(target, within).await {
        Ok(offset) => offset,
        Err(error) => return Some(error.to_string()),
    };
    match compare_tails(old, target, offset, within).await {
        Ok(Tail::Differs) => Some(format!(
            "the log of {name} differs from that of {}; let it synchronise in full first",
            old.node()
        )),
        // Where nothing can be told, the replication link itself is the evidence.
        Ok(Tail::Same | Tail::Untold) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// One node for the `check` command.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeCheck {
    pub node: String,
    pub role: String,
    pub engine: Option<String>,
    pub version: Option<String>,
    pub offset: Option<u64>,
    pub problems: Vec<String>,
}

/// Looks at every node of a shard and names what would be in the way of a switchover.
pub async fn check_shard(
    shard: &ShardConfig,
    proxy: &ProxyConfig,
    switchover: &SwitchoverConfig,
) -> Vec<NodeCheck> {
    let nodes: Vec<NodeName> = shard
        .nodes
        .iter()
        .map(|node| node.as_str().into())
        .collect();
    let question = Question {
        credentials: Credentials::of(shard),
        name: "pointsman-check".to_owned(),
        from: "".into(),
        to: "".into(),
        max_lag: switchover.max_lag,
        within: proxy.connect_timeout,
        nodes: nodes.clone(),
        sentinels: Sentinels::of(shard),
    };
    let mut checks = Vec::new();
    let mut unseen = Vec::new();
    let known = sentinels::known_ids(&watching(&question, &mut Vec::new(), &mut unseen).await);
    for node in nodes {
        let alone = Question {
            nodes: vec![node.clone()],
            ..question.clone()
        };
        let (seen, problems) = examine_all(&alone).await;
        checks.push(match seen.into_iter().next() {
            Some((_, mut examined)) => {
                examined.watchers.excuse(&known);
                checked(examined)
            }
            None => NodeCheck {
                node: node.to_string(),
                role: "unknown".to_owned(),
                engine: None,
                version: None,
                offset: None,
                problems,
            },
        });
    }
    check_together(&mut checks, switchover.max_lag);
    if let Some(first) = checks.first_mut() {
        first.problems.extend(unseen);
    }
    checks
}

fn checked(examined: Examined) -> NodeCheck {
    let mut problems = Vec::new();
    single(&examined, &mut problems);
    let facts = examined.facts;
    if let Role::Replica {
        link: Link::Down | Link::Sync,
        ..
    } = facts.role
    {
        problems.push(format!(
            "the link of {} to its master is not up",
            facts.node
        ));
    }
    NodeCheck {
        node: facts.node.to_string(),
        role: if facts.role.is_master() {
            "master"
        } else {
            "replica"
        }
        .to_owned(),
        engine: Some(facts.engine.to_string()),
        version: Some(facts.version.to_string()),
        offset: facts.offset,
        problems,
    }
}

/// What only shows when the nodes are looked at side by side.
fn check_together(checks: &mut [NodeCheck], max_lag: u64) {
    let masters = checks.iter().filter(|check| check.role == "master");
    let offsets: Vec<u64> = masters
        .map(|check| check.offset.unwrap_or_default())
        .collect();
    let &[offset] = offsets.as_slice() else {
        if let Some(first) = checks.first_mut() {
            let count = offsets.len();
            first.problems.push(format!(
                "the shard has {count} masters; it needs exactly one"
            ));
        }
        return;
    };
    for check in checks.iter_mut() {
        let lag = offset.saturating_sub(check.offset.unwrap_or(offset));
        if lag > max_lag {
            let problem = format!(
                "{} is {lag} behind, more than max_lag {max_lag}",
                check.node
            );
            check.problems.push(problem);
        }
    }
}
