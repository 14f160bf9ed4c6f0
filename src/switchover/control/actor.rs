//! The task of one shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alone;
use super::background;
use super::evidence::{Known, Told, Verdict, verdict_beside};
use super::history::History;
use super::peer::{self, Kept, Led, Others};
use super::successor::is_out_of_reach;
use super::{Desk, Operation, Order};
use crate::shard::doubt::Look;
use crate::switchover::exec::measure::Going;
use crate::switchover::exec::{Exec, Gates, Opening, Routes, Site, Task, Word};
use crate::switchover::plan::Reason;
use crate::topology::node::NodeName;
use crate::topology::sentinel::Hearsay;
use crate::topology::stand_in::StandIns;
use crate::topology::watch::{Observed, Snapshot, Watch, find_master};

/// How long the route waits for what is under way on a master that is left.
const HOLD_WITHIN: Duration = Duration::from_millis(100);

pub(super) struct Actor<G, R> {
    pub site: Arc<Site<G, R>>,
    pub watch: Arc<Watch>,
    pub desk: Arc<Desk>,
    pub history: Arc<History>,
    pub orders: mpsc::Receiver<Order>,
    /// No operation begins any more.
    pub stopping: CancellationToken,
    /// There are no clients any more.
    pub ended: CancellationToken,
    /// The other proxies of the shard; `None` where it has a single node.
    pub others: Option<Others>,
    /// The master that clients write to, and who has what it has.
    pub known: Known,
    /// Since when the master has been out of reach.
    pub down: Option<Instant>,
    /// The round in which a doubt is answered.
    pub asked: Option<(u64, Look)>,
    /// The last round that was judged.
    pub judged: u64,
    /// Rounds of the watch before this one asked while an operation changed the roles: a node that
    /// fell silent can keep such a round open for long, and what it brings is history.
    pub believed_from: u64,
    /// Who may be read from without the master.
    pub stand_ins: StandIns,
}

impl<G: Gates, R: Routes> Actor<G, R> {
    /// The operation that the journal knows the beginning of only.
    pub fn interrupted(site: &Site<G, R>) -> Option<Order> {
        let journal = site
            .journal
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let begin = journal.unfinished()?.clone();
        let (id, shard) = (begin.operation.clone(), begin.shard.clone());
        Some(Order::new(id, &shard, Task::Recover(Box::new(begin))))
    }

    /// Works until the last client has left; an operation that runs when the proxy is told to stop
    /// is finished or undone first.
    pub async fn run(mut self, interrupted: Option<Order>) {
        let mut heard = Heard {
            nodes: self.watch.news(),
            sentinels: self.site.sentinels.clone().map(|one| one.news()),
        };
        if let Some(order) = interrupted {
            self.perform(order, &mut heard).await;
        }
        loop {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => break,
                Some(order) = self.orders.recv() => match self.stopping.is_cancelled() {
                    true => self.too_late(&order),
                    false => self.perform(order, &mut heard).await,
                },
                () = self.site.doubts.raised(), if self.asked.is_none() => self.look(),
                news = heard.news() => {
                    let judged = self.follow().await;
                    self.listened(news);
                    if judged && !self.stopping.is_cancelled()
                        && let Some(order) = self.take_over().await
                    {
                        self.perform(order, &mut heard).await;
                    }
                }
                said = peer::heard(&mut self.others) => {
                    self.hear(said).await;
                }
            }
        }
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            self.too_late(&order);
        }
    }

    /// An order that came in the same instant as the end.
    fn too_late(&self, order: &Order) {
        order.operation.progress.came_too_late();
        self.desk.running.send_replace(None);
    }

    /// Runs one operation. What it does behind its report may last as long as a node is away: the
    /// nodes are listened to meanwhile.
    async fn perform(&mut self, order: Order, heard: &mut Heard) {
        let Order {
            operation,
            task,
            words,
        } = order;
        if let Task::Recover(begin) = &task {
            self.known = alone::before_crash(begin);
        }
        let (id, progress) = (operation.id.clone(), operation.progress.clone());
        let running = Exec::run(self.site.clone(), id, task, progress, words);
        tokio::pin!(running);
        let mut kept = Kept::default();
        // The route that was known last.
        let mut stock = None;
        let mut told = false;
        loop {
            let background = operation.progress.going() == Going::Background;
            let (epoch, _) = self.site.routes.current();
            if background && stock != Some(epoch) {
                stock = Some(epoch);
                self.take_stock();
            }
            tokio::select! {
                biased;
                () = &mut running => break,
                () = self.site.doubts.raised(), if background && self.asked.is_none() => self.look(),
                news = heard.news() => if background {
                    if !told && self.is_superseded(&operation) {
                        told = leave(&operation);
                    }
                    self.listened(news);
                },
                // What goes on behind a report touches neither gate nor route, and can wait.
                said = peer::heard(&mut self.others) => if operation.progress.is_reported() {
                    if self.hear(said).await == Led::Elsewhere {
                        told = leave(&operation);
                    }
                } else {
                    kept.hear(said, &operation);
                },
            }
        }
        self.take_stock();
        self.desk.running.send_replace(None);
        if let Some(said) = kept.left() {
            self.hear(said).await;
        }
    }

    /// After an operation, or its first part: the route is what it has made of it.
    fn take_stock(&mut self) {
        // What followed the old master counts no more; after an order that was refused it still
        // does.
        if let Some(master) = self.site.routes.current().1
            && self.known.master.as_deref() != Some(&*master)
        {
            self.known = Known::master(&master);
            self.watch.want_closely();
        }
        self.believed_from = self.watch.unbegun_round();
        // Nobody has looked meanwhile.
        self.down = None;
        if let Some(sentinels) = &self.site.sentinels {
            sentinels.want();
        }
        *self.desk.gate() = if self.site.routes.current().1.is_some() {
            "open"
        } else {
            "shut"
        };
    }

    /// Judges the nodes beside an operation that waits for some of them: when there is another
    /// master, or has to be, it is to end, and the route follows when it has.
    fn is_superseded(&mut self, operation: &Operation) -> bool {
        let Some((verdict, routed)) = self.judged() else {
            return false;
        };
        if verdict == Verdict::Keep && routed.is_some() {
            self.known.learn(&self.watch.snapshot(), Instant::now());
        }
        let view = operation.progress.view();
        // An operation whose own old master is down is what replaces it.
        let other = self.known.master.as_deref() != Some(&*view.from);
        let down = other && self.down_for_too_long() && self.successor().is_some();
        if !down && !background::is_superseded(&verdict, routed.as_deref(), &view.from, &view.to) {
            return false;
        }
        let (shard, operation_id) = (&self.site.shard, &operation.id);
        tracing::warn!(%shard, operation = operation_id, ?verdict, down,
            "another master is there, or has to be; what is left of the operation is left");
        true
    }

    /// Somebody doubts that the master is one: the nodes are looked at.
    fn look(&mut self) {
        let look = self.site.doubts.look_begins();
        self.asked = Some((self.watch.unbegun_round(), look));
        self.watch.want();
        if let Some(sentinels) = &self.site.sentinels {
            sentinels.want();
        }
    }

    fn listened(&mut self, news: News) {
        match news {
            News::Nodes => self.looked(),
            // Whom they name is asked for its role from now on.
            News::Sentinels => self.watch.want(),
        }
    }

    /// A look that was asked for has been answered, and the route is in line with it.
    fn looked(&mut self) {
        let rounds = self.watch.rounds();
        if let Some((_, look)) = self.asked.take_if(|(enough, _)| rounds >= *enough) {
            self.site.doubts.look_ended(look);
        } else if self.asked.is_some() {
            self.watch.want();
        }
    }

    /// What is to be thought of what the nodes say; `None` when it is history, or was judged
    /// before.
    fn judged(&mut self) -> Option<(Verdict, Option<String>)> {
        if self.watch.rounds() < self.believed_from {
            return None;
        }
        let snapshot = self.watch.snapshot();
        let now = Instant::now();
        self.site.routes.saw(lives(&snapshot));
        let routed = self.site.routes.current().1;
        self.note_stand_ins(&snapshot, routed.as_deref(), now);
        let told = self.told(&snapshot, now);
        let named = matches!(told, Told::Master(..));
        if !named && self.known.master.is_none() && self.watch.rounds() == self.judged {
            // Who is master alone among those that have answered so far may not be so among all.
            return None;
        }
        self.judged = self.watch.rounds();
        self.down = match is_out_of_reach(&snapshot, &self.known) {
            true => self.down.or(Some(now)),
            false => None,
        };
        let verdict = verdict_beside(&told, &snapshot, &self.known, routed.is_some(), now);
        Some((verdict, routed))
    }

    fn note_stand_ins(&mut self, snapshot: &Snapshot, master: Option<&str>, now: Instant) {
        let stand_ins = self.stand_ins.look(snapshot, master, now);
        self.site.routes.may_stand_in(&stand_ins);
    }

    /// From now on this is the master; what the nodes say is known of it.
    async fn go_to(&mut self, master: &NodeName, snapshot: &Snapshot, now: Instant) {
        self.admit(master).await;
        self.known.learn(snapshot, now);
        self.note_stand_ins(snapshot, Some(master), now);
    }

    /// Brings the route in line with what the nodes say, when they say it beyond doubt. Whether
    /// they have said anything new.
    async fn follow(&mut self) -> bool {
        let Some((verdict, routed)) = self.judged() else {
            return false;
        };
        let snapshot = self.watch.snapshot();
        let now = Instant::now();
        match verdict {
            Verdict::Keep if routed.is_some() => self.known.learn(&snapshot, now),
            Verdict::Keep => {
                let finding = find_master(&snapshot, now);
                tracing::debug!(shard = %self.site.shard, ?finding, "no master yet");
            }
            Verdict::Follow(found) => {
                if let Some(from) = &self.known.master {
                    tracing::warn!(shard = %self.site.shard, %from, to = %found,
                        "the master was changed by somebody else; following");
                }
                self.go_to(&found, &snapshot, now).await;
            }
            Verdict::FollowWord { master, missing } => {
                if let Some(from) = &self.known.master {
                    let missing = missing.unwrap_or_default();
                    self.site.metrics.writes_not_carried.increment(missing);
                    tracing::warn!(shard = %self.site.shard, %from, to = %master, missing,
                        "Sentinel has changed the master; following. What had not been replicated \
                         is lost: at least as much as is missing, in units of offset");
                }
                self.go_to(&master, &snapshot, now).await;
            }
            Verdict::Shut => {
                tracing::warn!(shard = %self.site.shard, master = ?routed,
                    "the master is no master any more and no other has appeared; writes wait");
                self.shut().await;
                self.watch.want();
            }
        }
        true
    }

    /// What Sentinels say, in our names for the nodes.
    fn told(&self, snapshot: &Snapshot, now: Instant) -> Told {
        let Some(sentinels) = &self.site.sentinels else {
            return Told::Nothing;
        };
        let word = match sentinels.hearsay(now) {
            Hearsay::Unasked => return Told::Unasked,
            Hearsay::Nothing => return Told::Nothing,
            Hearsay::Word(word) => word,
        };
        let called = |node: &&Observed| node.identity.is_called(&word.host, word.port);
        match snapshot.nodes.iter().find(called) {
            Some(node) => Told::Master(node.name().clone(), word.since),
            None => {
                tracing::debug!(shard = %self.site.shard, host = word.host, port = word.port,
                    "Sentinel names a master that is no node of this shard");
                Told::Nothing
            }
        }
    }

    /// Holds writes while the route changes, so that nothing is published before those who receive
    /// have been moved, and so that servers which never let blocked clients go are left in time.
    /// What is under way is refused by the old master, or waits there for nobody knows how long.
    async fn hold(&self) {
        if let Err(error) = self.site.gates.hold(HOLD_WITHIN).await {
            tracing::debug!(shard = %self.site.shard, error, "the route changes all the same");
        }
    }

    /// Nobody is master: writes wait.
    pub(super) async fn shut(&self) {
        self.hold().await;
        let replicas = self.site.replicas_of(None);
        self.site.routes.publish(None, &replicas);
        self.site.gates.release(Opening::Shut).await;
        *self.desk.gate() = "shut";
    }

    async fn admit(&mut self, master: &NodeName) {
        let snapshot = self.watch.snapshot();
        if let Some(facts) = snapshot
            .node(master)
            .and_then(|node| node.fresh(Instant::now()))
        {
            self.site.routes.suit(facts.engine);
        }
        if self.known.master.is_some() {
            self.hold().await;
        }
        let replicas = self.site.replicas_of(Some(master));
        let epoch = self.site.routes.publish(Some(master), &replicas);
        self.site.gates.release(Opening::Open).await;
        *self.desk.gate() = "open";
        self.known = Known::master(master);
        self.watch.want_closely();
        tracing::info!(shard = %self.site.shard, %master, epoch, "route published");
    }
}

/// What is left of an operation is somebody else's business. Not told, when its ear is full: it is
/// being aborted, and will be told the next time.
fn leave(operation: &Operation) -> bool {
    let word = Word::Leave(Reason::Superseded);
    operation.words.try_send(word).is_ok()
}

/// Those whose word counts.
struct Heard {
    nodes: watch::Receiver<u64>,
    sentinels: Option<watch::Receiver<u64>>,
}

/// Who has said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nodes,
    Sentinels,
}

impl Heard {
    /// Cancel-safe: news that were not taken are news the next time.
    async fn news(&mut self) -> News {
        let Heard { nodes, sentinels } = self;
        tokio::select! {
            biased;
            () = changed(Some(nodes)) => News::Nodes,
            () = changed(sentinels.as_mut()) => News::Sentinels,
        }
    }
}

/// Somebody says something else than before; never, where there is nobody.
async fn changed(word: Option<&mut watch::Receiver<u64>>) {
    let Some(word) = word else {
        return std::future::pending().await;
    };
    if word.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The run of each node, as far as it is known. One that fell silent is in the same run for all
/// that is known.
fn lives(snapshot: &Snapshot) -> Vec<(NodeName, String)> {
    let life = |node: &Observed| {
        let run_id = node.facts.as_ref()?.life.run_id.clone()?;
        Some((node.name().clone(), run_id))
    };
    snapshot.nodes.iter().filter_map(life).collect()
}
