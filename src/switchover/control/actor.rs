//! The task of one shard.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Desk, Operation, Order};
use crate::switchover::exec::measure::Progress;
use crate::switchover::exec::{Exec, Gates, Opening, Routes, Site, Task};
use crate::topology::facts::Role;
use crate::topology::node::NodeName;
use crate::topology::watch::{MasterFinding, Snapshot, Watch, find_master};

pub(super) struct Actor<G, R> {
    pub site: Arc<Site<G, R>>,
    pub watch: Arc<Watch>,
    pub desk: Arc<Desk>,
    pub orders: mpsc::Receiver<Order>,
    pub stopping: CancellationToken,
    /// Who was last seen following the route's master, and how far it was: the evidence that a node which later says master is no stranger.
    pub replicas_seen: Vec<(NodeName, u64)>,
    /// Rounds of the watch before this one asked while an operation changed the roles: a node that
    /// fell silent can keep such a round open for long, and what it brings is history.
    pub believed_from: u64,
}

impl<G: Gates, R: Routes> Actor<G, R> {
    /// The operation that the journal knows the beginning of only.
    pub fn interrupted(site: &Site<G, R>) -> Option<Order> {
        let journal = site
            .journal
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let begin = journal.unfinished()?.clone();
        let progress = Progress::new(&begin.operation, &begin.shard, &begin.from, &begin.to);
        let (aborts, aborted) = mpsc::channel(1);
        let id = begin.operation.clone();
        let operation = Arc::new(Operation {
            id,
            progress: Arc::new(progress),
            aborts,
        });
        Some(Order {
            operation,
            task: Task::Recover(Box::new(begin)),
            aborted,
        })
    }

    /// Works until the proxy stops; an operation that runs then is finished or undone first.
    pub async fn run(mut self, interrupted: Option<Order>) {
        if let Some(order) = interrupted {
            self.perform(order).await;
        }
        loop {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => self.perform(order).await,
                () = self.watch.next_round() => self.follow().await,
                () = self.stopping.cancelled() => break,
            }
        }
        // An order that came in the same instant is told that it came too late.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            order.operation.progress.came_too_late();
            self.desk.running.send_replace(None);
        }
    }

    async fn perform(&mut self, order: Order) {
        let Order {
            operation,
            task,
            aborted,
        } = order;
        let (id, progress) = (operation.id.clone(), operation.progress.clone());
        Exec::run(self.site.clone(), id, task, progress, aborted).await;
        // The route's master has changed, most likely, and what followed the old one with it.
        self.replicas_seen.clear();
        self.believed_from = self.watch.unbegun_round();
        *self.desk.gate() = if self.site.routes.current().1.is_some() {
            "open"
        } else {
            "shut"
        };
        self.desk.running.send_replace(None);
    }

    /// Brings the route in line with what the nodes say, when they say it beyond doubt.
    async fn follow(&mut self) {
        if self.watch.rounds() < self.believed_from {
            return;
        }
        let snapshot = self.watch.snapshot();
        let now = Instant::now();
        self.site.routes.saw(lives(&snapshot));
        let master = self.site.routes.current().1;
        let Some(master) = master else {
            match find_master(&snapshot, now) {
                MasterFinding::One(found) => self.admit(&found).await,
                finding => tracing::debug!(shard = %self.site.shard, ?finding, "no master yet"),
            }
            return;
        };
        match verdict(&snapshot, &master, &self.replicas_seen, now) {
            Verdict::Keep => {
                let seen = following(&snapshot, &master, now);
                if !seen.is_empty() {
                    self.replicas_seen = seen;
                }
            }
            Verdict::Follow(found) => {
                tracing::warn!(shard = %self.site.shard, from = %master, to = %found,
                    "the master was changed by somebody else; following");
                self.admit(&found).await;
            }
            Verdict::Shut => {
                tracing::warn!(shard = %self.site.shard, %master,
                    "the master is no master any more and no other has appeared; writes wait");
                let replicas = self.site.replicas_of(None);
                self.site.routes.publish(None, &replicas);
                self.site.gates.release(Opening::Shut).await;
                *self.desk.gate() = "shut";
            }
        }
    }

    async fn admit(&mut self, master: &NodeName) {
        let snapshot = self.watch.snapshot();
        if let Some(facts) = snapshot
            .node(master)
            .and_then(|node| node.fresh(Instant::now()))
        {
            self.site.routes.suit(facts.engine);
        }
        let replicas = self.site.replicas_of(Some(master));
        let epoch = self.site.routes.publish(Some(master), &replicas);
        self.site.gates.release(Opening::Open).await;
        *self.desk.gate() = "open";
        self.replicas_seen.clear();
        tracing::info!(shard = %self.site.shard, %master, epoch, "route published");
    }
}

/// What to do about a route whose master is `master`.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Follow(NodeName),
    /// It says itself that it is no master, and nobody else is one.
    Shut,
}

/// **Invariant:** a master that says that it is master is kept, whatever others say; one that is
/// silent is left only for a node that was seen following it and lost nothing since.
fn verdict(
    snapshot: &Snapshot,
    master: &str,
    replicas_seen: &[(NodeName, u64)],
    now: Instant,
) -> Verdict {
    let Some(current) = snapshot.node(master) else {
        return Verdict::Keep;
    };
    let finding = find_master(snapshot, now);
    match (current.fresh(now).map(|facts| &facts.role), finding) {
        (Some(Role::Master), _) => Verdict::Keep,
        (Some(role), MasterFinding::One(found)) => {
            let of_us = snapshot
                .followed_by(role)
                .is_some_and(|node| *node.name() == found);
            if of_us {
                Verdict::Follow(found)
            } else {
                Verdict::Shut
            }
        }
        (Some(_), _) => Verdict::Shut,
        (None, MasterFinding::One(found)) => {
            let offset = snapshot
                .node(&found)
                .and_then(|node| node.facts.as_ref()?.offset);
            let known = replicas_seen.iter().find(|(node, _)| *node == found);
            match (known, offset) {
                (Some((_, seen)), Some(offset)) if offset >= *seen => Verdict::Follow(found),
                _ => Verdict::Keep,
            }
        }
        (None, _) => Verdict::Keep,
    }
}

/// The run of each node, as far as it is known. One that fell silent is in the same run for all that
/// is known.
fn lives(snapshot: &Snapshot) -> Vec<(NodeName, String)> {
    let life = |node: &crate::topology::watch::Observed| {
        let run_id = node.facts.as_ref()?.life.run_id.clone()?;
        Some((node.name().clone(), run_id))
    };
    snapshot.nodes.iter().filter_map(life).collect()
}

/// The replicas of `master`, and how far each is.
fn following(snapshot: &Snapshot, master: &str, now: Instant) -> Vec<(NodeName, u64)> {
    let Some(master) = snapshot.node(master) else {
        return Vec::new();
    };
    let replica = |node: &crate::topology::watch::Observed| {
        let facts = node.fresh(now)?;
        let follows = master.identity.is_followed_by(&facts.role);
        Some((node.name().clone(), facts.offset?)).filter(|_| follows)
    };
    snapshot.nodes.iter().filter_map(replica).collect()
}
