//! Who may be read from while there is no master. Pure judgement over what nodes have said.
//!
//! **Invariant:** only a node that was seen with the data: it was the master, or its link to the
//! master was up, at most [`WITHIN`] before the master's last word; and since then it has neither
//! been started anew, nor gone back in its history or left it, nor begun to copy another node. One
//! that was never seen so, that the master has outlived by more than that, or that came back empty,
//! is nobody's stand-in. Everything is forgotten when there is another master, or the same one in
//! another run or history: offsets of different histories are never compared.
//!
//! What its clients read may be older than what they have written or read before: nobody can tell
//! how much a replica lacks of what a dead master had acknowledged. How long the master has been
//! dead does not matter: nothing is written without one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::facts::{Life, Link, NodeFacts, Role};
use super::node::NodeName;
use super::watch::{FRESH, Observed, Snapshot};

/// How long before the master's last word a node must have been in sync: it may have missed as many
/// looks as the master, and no more.
const WITHIN: Duration = FRESH;

/// The master that all others were seen beside.
#[derive(Clone, Debug)]
struct Source {
    name: NodeName,
    life: Life,
    history: Option<String>,
    spoke_at: Instant,
}

impl Source {
    /// Whether this is the master that spoke before, with the same data.
    fn goes_on(&self, before: &Source) -> bool {
        let since = self.spoke_at.saturating_duration_since(before.spoke_at);
        self.name == before.name
            && self.history == before.history
            && !before.life.ended_before(&self.life, since)
    }
}

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
    source: Option<Source>,
    /// By node: no more than the configuration names.
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
        if let Some(name) = master {
            self.source = self.source.take().filter(|source| *source.name == *name);
            if let Some(master) = snapshot.node(name) {
                self.learn(snapshot, master, now);
            }
        }
        let Some(source) = &self.source else {
            self.seen.clear();
            return Vec::new();
        };
        let mut able: Vec<(u64, &NodeName)> = snapshot
            .nodes
            .iter()
            .filter(|node| Some(&**node.name()) != master)
            .filter_map(|node| {
                let offset = self.offset_of_able(source, snapshot, node, now)?;
                Some((offset, node.name()))
            })
            .collect();
        // Stable: of equals the one that the configuration names first.
        able.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        able.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn learn(&mut self, snapshot: &Snapshot, master: &Observed, now: Instant) {
        let speaks = |facts: &&NodeFacts| facts.role.is_master() && !facts.loading;
        let (Some(told), Some(spoke_at)) = (master.fresh(now).filter(speaks), master.seen_at)
        else {
            return;
        };
        let source = Source {
            name: master.name().clone(),
            life: told.life.clone(),
            history: told.history.clone(),
            spoke_at,
        };
        if !self
            .source
            .as_ref()
            .is_some_and(|before| source.goes_on(before))
        {
            self.seen.clear();
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
            let is_same = facts.history == source.history;
            if let (true, Some(offset), Some(at)) = (has_all && is_same, facts.offset, node.seen_at)
            {
                let life = facts.life.clone();
                let seen = Seen { life, offset, at };
                self.seen.insert(node.name().clone(), seen);
            }
        }
        self.seen
            .retain(|_, seen| spoke_at.saturating_duration_since(seen.at) <= WITHIN);
        self.source = Some(source);
    }

    /// How far a node is that may be read from; `None` when it may not.
    fn offset_of_able(
        &self,
        source: &Source,
        snapshot: &Snapshot,
        node: &Observed,
        now: Instant,
    ) -> Option<u64> {
        let facts = node.fresh(now)?;
        let seen = self.seen.get(node.name())?;
        let since = node.seen_at?.saturating_duration_since(seen.at);
        let offset = facts.offset?;
        let is_able = !facts.loading
            && !seen.life.ended_before(&facts.life, since)
            && is_of_history(source, snapshot, facts)
            && offset >= seen.offset;
        is_able.then_some(offset)
    }
}

/// Whether a node that had the master's data still has it, and nobody else's.
fn is_of_history(source: &Source, snapshot: &Snapshot, facts: &NodeFacts) -> bool {
    let link = match &facts.role {
        Role::Master => None,
        Role::Replica { link, .. } => Some(*link),
    };
    if link == Some(Link::Sync) {
        return false;
    }
    let of = source.history.is_some();
    if of && (facts.history == source.history || facts.history_before == source.history) {
        return true;
    }
    // Where no history has a name, somebody else's is what a node follows that is not the master.
    let master = snapshot.node(&source.name);
    let follows = master.is_some_and(|master| master.identity.is_followed_by(&facts.role));
    !of && (link != Some(Link::Up) || follows)
}

#[cfg(test)]
#[path = "stand_in_tests.rs"]
mod tests;
