//! Who may be read from while there is no master. Pure judgement over what nodes have said.
//!
//! **Invariant:** only a node that was seen with the data: it was the master, or its link to the master
//! was up, in a look in which the master itself spoke; and since then it has neither been started anew,
//! nor gone back in its history, nor begun to copy another node. One that was never seen so, or that
//! came back empty, is nobody's stand-in.
//!
//! What its clients read may be older than what they have written or read before: nobody can tell how
//! much a replica lacks of what a dead master had acknowledged.

use std::collections::HashMap;

use tokio::time::Instant;

use super::facts::{Life, Link, NodeFacts, Role};
use super::node::NodeName;
use super::watch::{Observed, Snapshot};

/// A node when it was seen last beside its master.
#[derive(Clone, Debug)]
struct Seen {
    life: Life,
    offset: u64,
    at: Instant,
}

/// What is remembered of the nodes, and who of them may be read from.
#[derive(Debug, Default)]
pub struct StandIns {
    seen: HashMap<NodeName, Seen>,
}

impl StandIns {
    /// Takes note of a look, and says who may be read from without the master, furthest first.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        master: Option<&str>,
        now: Instant,
    ) -> Vec<NodeName> {
        if let Some(master) = master.and_then(|name| snapshot.node(name)) {
            self.learn(snapshot, master, now);
        }
        let mut able: Vec<(u64, &NodeName)> = snapshot
            .nodes
            .iter()
            .filter(|node| Some(&**node.name()) != master)
            .filter_map(|node| Some((self.offset_of_able(node, now)?, node.name())))
            .collect();
        // Stable: of equals the one that the configuration names first.
        able.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        able.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn learn(&mut self, snapshot: &Snapshot, master: &Observed, now: Instant) {
        let speaks = |facts: &NodeFacts| facts.role.is_master() && !facts.loading;
        if !master.fresh(now).is_some_and(speaks) {
            return;
        }
        for node in &snapshot.nodes {
            let Some(facts) = node.fresh(now).filter(|facts| !facts.loading) else {
                continue;
            };
            let has_all = match &facts.role {
                Role::Master => node.name() == master.name(),
                Role::Replica { link, .. } => {
                    *link == Link::Up && master.identity.is_followed_by(&facts.role)
                }
            };
            if let (true, Some(offset), Some(at)) = (has_all, facts.offset, node.seen_at) {
                let life = facts.life.clone();
                let seen = Seen { life, offset, at };
                self.seen.insert(node.name().clone(), seen);
            }
        }
    }

    /// How far a node is that may be read from; `None` when it may not.
    fn offset_of_able(&self, node: &Observed, now: Instant) -> Option<u64> {
        let facts = node.fresh(now)?;
        let seen = self.seen.get(node.name())?;
        let since = node.seen_at?.saturating_duration_since(seen.at);
        let copies = matches!(
            facts.role,
            Role::Replica {
                link: Link::Sync,
                ..
            }
        );
        let offset = facts.offset?;
        let is_able = !facts.loading
            && !copies
            && !seen.life.ended_before(&facts.life, since)
            && offset >= seen.offset;
        is_able.then_some(offset)
    }
}

#[cfg(test)]
#[path = "stand_in_tests.rs"]
mod tests;
