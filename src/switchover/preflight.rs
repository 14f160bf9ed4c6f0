//! Step 0: is everything there that a switchover needs?
//!
//! Owns the look at the nodes before an operation and behind the `check` command. What it dials it
//! hands over: the operation goes on with these connections, so that nothing is dialled while
//! writes are held.
//!
//! **Invariant:** nothing is changed on any node, and every requirement that fails is named, not
//! only the first.

pub mod examine;
mod gap;
mod passed;
pub mod requirements;

pub use passed::{Passed, Seat};

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::{ProxyConfig, ShardConfig, SwitchoverConfig};
use crate::switchover::attach::{Tail, compare_tails};
use crate::switchover::claim::Claim;
use crate::switchover::orders::{SinkAddress, own_offset};
use crate::switchover::plan::{Dialect, Facts};
use crate::switchover::preflight::examine::{Examined, examine};
use crate::switchover::preflight::gap::{Gap, Limits};
use crate::switchover::preflight::requirements::{Cast, output_limit, single};
use crate::switchover::sentinels::{self, Terms, terms};
use crate::topology::engine::{Engine, Version};
use crate::topology::facts::{Link, Role};
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

/// Looks at every node. `Err` carries every failing requirement.
pub async fn preflight(question: &Question) -> Result<Passed, Vec<String>> {
    ordered(question).map_err(|wrong| vec![wrong])?;
    let (mut seen, mut failings) = examine_all(question).await;
    learn_names(&mut seen, question.within).await;
    let watching = watching(question, &mut seen, &mut failings).await;
    let mut company = Company::of(question, seen, &mut failings).ok_or_else(|| failings.clone())?;
    failings.extend(company.cast().failings());
    let (old, target) = (&company.old.1.identity, &company.target.1.identity);
    let sentinel_terms = terms(&watching, old, target).unwrap_or_else(|wrong| {
        failings.extend(wrong);
        Vec::new()
    });
    // With the wrong roles a gap means nothing.
    let mut gap = None;
    if failings.is_empty() {
        match company.gap(question).await {
            Ok(found) => {
                failings.extend(found.failings(&question.from, &question.to));
                gap = Some(found);
            }
            Err(failing) => failings.push(failing),
        }
    }
    if failings.is_empty() && company.old.1.facts.engine == Engine::Kvrocks {
        let ((old, _), (target, _)) = (&mut company.old, &mut company.target);
        failings.extend(other_history(old, target, question.within).await);
    }
    match gap {
        Some(gap) if failings.is_empty() => Ok(company.pass(question, &gap, sentinel_terms)),
        _ => Err(failings),
    }
}

/// Whether the order makes sense before anybody is asked.
fn ordered(question: &Question) -> Result<(), String> {
    let Question {
        nodes, from, to, ..
    } = question;
    if !nodes.contains(to) {
        let nodes = nodes.join(", ");
        return Err(format!("{to} is no node of this shard; use one of {nodes}"));
    }
    if from.is_empty() {
        return Err("the shard has no master now; wait until it has one".to_owned());
    }
    if from == to {
        return Err(format!("{to} is the master already; nothing is to be done"));
    }
    Ok(())
}

/// The nodes by their parts in the operation.
struct Company {
    old: (Connection, Examined),
    target: (Connection, Examined),
    others: Seen,
}

impl Company {
    /// `None` when the old master or the target could not be looked at; what is wrong with each of the
    /// rest is added to the failings.
    fn of(question: &Question, mut seen: Seen, failings: &mut Vec<String>) -> Option<Company> {
        let mut take = |name: &NodeName| {
            let mut nodes = seen.iter();
            let at = nodes.position(|(connection, _)| connection.node() == name)?;
            Some(seen.swap_remove(at))
        };
        match (take(&question.from), take(&question.to)) {
            (Some(old), Some(target)) => Some(Company {
                old,
                target,
                others: seen,
            }),
            (old, target) => {
                for (_, node) in [old, target].iter().flatten().chain(&seen) {
                    single(node, failings);
                }
                None
            }
        }
    }

    fn cast(&self) -> Cast<'_> {
        Cast {
            old: &self.old.1,
            target: &self.target.1,
            others: self.others.iter().map(|(_, node)| node).collect(),
        }
    }

    async fn gap(&mut self, question: &Question) -> Result<Gap, String> {
        let limits = Limits {
            max_lag: question.max_lag,
            output_limit: output_limit(&self.old.1),
            backlog: self.target.1.facts.backlog_bytes,
        };
        let (old, target) = (&mut self.old.0, &mut self.target.0);
        gap::measure(old, target, limits, question.within).await
    }

    fn pass(self, question: &Question, gap: &Gap, sentinel_terms: Vec<Terms>) -> Passed {
        let (_, old) = &self.old;
        let seat = |(connection, examined): (Connection, Examined)| Seat {
            connection,
            identity: examined.identity,
        };
        Passed {
            facts: Facts {
                dialect: dialect(old.orders.engine, old.facts.version),
                knows_pause: old.orders.abilities.pause,
                lag: gap.lag(),
                lag_small: lag_small(old.orders.engine),
                old_is_down: false,
            },
            orders: old.orders,
            replica_read_only: old.read_only().unwrap_or_default().to_owned(),
            old_life: old.facts.life.clone(),
            target_offset: gap.target_offset,
            full_syncs: self.target.1.facts.syncs.full,
            sink_address: SinkAddress::closed_port(&question.name),
            sink: None,
            sentinel_terms,
            claim: Claim::default(),
            old: seat(self.old),
            target: seat(self.target),
            others: self.others.into_iter().map(seat).collect(),
        }
    }
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
