//! One actor per shard: one operation at a time, and between operations an eye on the nodes.
//!
//! Owns who may start what. Everything that changes a route or a gate is done by the shard's own
//! task, one thing after the other: recovery, an operation, or following a change that somebody
//! else made. Everybody else sends an order or reads a snapshot.
//!
//! **Invariant:** no write is admitted before an interrupted operation is resolved or exactly one
//! node says that it is master; and until an operation has reported nobody else moves the route.

mod actor;
mod alone;
mod background;
mod evidence;
#[cfg(test)]
mod fixtures;
mod history;
mod id;
mod peer;
mod pulse;
mod successor;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::switchover::control::actor::Actor;
use crate::switchover::control::evidence::Known;
use crate::switchover::control::history::History;
use crate::switchover::control::id::operation_id;
use crate::switchover::control::peer::Others;
use crate::switchover::exec::measure::{Going, Progress};
use crate::switchover::exec::{Gates, Routes, Site, Task, Word};
use crate::switchover::plan::Reason;
use crate::switchover::report::Report;
use crate::switchover::view::{
    AbortAnswer, BoxFuture, Control, NodeRole, NodeStatus, OperationView, ShardStatus, StartError,
};
use crate::topology::facts::Role;
use crate::topology::node::NodeName;
use crate::topology::stand_in::StandIns;
use crate::topology::watch::{Observed, Snapshot, Watch, link_word};

/// What an operation takes at most beside its hold and its demotion: connections, a role change,
/// the look at the links.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Begins to listen to the other proxies of a shard.
fn others<G, R>(site: &Site<G, R>, stopping: &CancellationToken) -> Option<Others> {
    let peers = site.peers.clone()?;
    let links = peers.links()?;
    let heard = peers.run(links, &site.credentials, site.connect_timeout, stopping);
    Some(Others::new(peers, heard, site.switchover().pause_timeout))
}

/// One shard as the control path needs it.
pub struct ShardSeat<G, R> {
    pub site: Arc<Site<G, R>>,
    /// Where clients connect; for the status only.
    pub listen: String,
    /// How many sessions live; for the status only.
    pub sessions: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// All shards: what the admin API and the command line talk to.
pub struct Shards<G, R> {
    shared: Arc<Shared<G, R>>,
}

impl<G, R> Clone for Shards<G, R> {
    fn clone(&self) -> Self {
        Shards {
            shared: self.shared.clone(),
        }
    }
}

struct Shared<G, R> {
    shards: Vec<Shard<G, R>>,
    history: Arc<History>,
    /// No operation begins any more.
    stopping: CancellationToken,
    /// There are no clients any more, and nobody need look at the nodes or listen to other proxies.
    ended: CancellationToken,
}

struct Shard<G, R> {
    seat: ShardSeat<G, R>,
    watch: Arc<Watch>,
    desk: Arc<Desk>,
    orders: mpsc::Sender<Order>,
}

/// What the shard's task and everybody else share about it.
struct Desk {
    running: watch::Sender<Option<Arc<Operation>>>,
    gate: Mutex<&'static str>,
}

impl Desk {
    fn gate(&self) -> MutexGuard<'_, &'static str> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it the operation that runs, or answers with the id of the one that does.
    fn take_up(&self, operation: &Arc<Operation>) -> Result<(), String> {
        let mut busy = None;
        self.running.send_if_modified(|running| match running {
            Some(other) => {
                busy = Some(other.id.clone());
                false
            }
            None => {
                *running = Some(operation.clone());
                true
            }
        });
        busy.map_or(Ok(()), Err)
    }
}

/// One operation, running or over.
struct Operation {
    id: String,
    progress: Arc<Progress>,
    words: mpsc::Sender<Word>,
}

/// An order that the shard's task has not taken up yet.
struct Order {
    operation: Arc<Operation>,
    task: Task,
    words: mpsc::Receiver<Word>,
}

impl Order {
    fn new(id: String, shard: &str, task: Task) -> Order {
        let (from, to) = task.nodes();
        let progress = Arc::new(Progress::new(&id, shard, &from, &to));
        let (words, heard) = mpsc::channel(1);
        Order {
            operation: Arc::new(Operation {
                id,
                progress,
                words,
            }),
            task,
            words: heard,
        }
    }
}

impl<G: Gates, R: Routes> Shards<G, R> {
    /// Starts a watch and an actor per shard, on the current runtime.
    pub fn start(seats: Vec<ShardSeat<G, R>>) -> Shards<G, R> {
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        let history = Arc::new(History::default());
        let mut shards = Vec::new();
        let mut actors = Vec::new();
        for seat in seats {
            let watch = Watch::new(&seat.site.nodes);
            let credentials = seat.site.credentials.clone();
            let polling = watch
                .clone()
                .run(credentials, seat.site.connect_timeout, ended.clone());
            tokio::spawn(polling);
            tokio::spawn(pulse::run(seat.site.clone(), watch.clone(), ended.clone()));
            if let Some(sentinels) = seat.site.sentinels.clone() {
                tokio::spawn(sentinels.run(seat.site.connect_timeout, ended.clone()));
            }
            let desk = Arc::new(Desk {
                running: watch::Sender::new(None),
                gate: Mutex::new("shut"),
            });
            let (orders, taken) = mpsc::channel(1);
            let interrupted = Actor::interrupted(&seat.site);
            if let Some(order) = &interrupted {
                desk.running.send_replace(Some(order.operation.clone()));
            }
            let actor = Actor {
                site: seat.site.clone(),
                watch: watch.clone(),
                desk: desk.clone(),
                orders: taken,
                stopping: stopping.clone(),
                ended: ended.clone(),
                others: others(&seat.site, &ended),
                known: Known::default(),
                history: history.clone(),
                down: None,
                asked: None,
                judged: 0,
                believed_from: 0,
                stand_ins: StandIns::default(),
            };
            actors.push((actor, interrupted));
            shards.push(Shard {
                seat,
                watch,
                desk,
                orders,
            });
        }
        let shards = Shards {
            shared: Arc::new(Shared {
                shards,
                history,
                stopping,
                ended,
            }),
        };
        for (actor, interrupted) in actors {
            if let Some(order) = &interrupted {
                shards.shared.history.remember(order.operation.clone());
            }
            tokio::spawn(actor.run(interrupted));
        }
        shards
    }

    /// Starts no more operations, undoes or finishes the running ones, and returns when none is
    /// left. One that waits for a node which may never come back is left to the next start, as
    /// after a crash: its journal record has no end, and no write is held by then.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        for shard in &self.shared.shards {
            let running = shard.desk.running.borrow().clone();
            if let Some(operation) = running {
                // Full means that an abort is on its way already.
                let _ = operation.words.try_send(Word::Abort);
            }
        }
        let ordered = Instant::now();
        for shard in &self.shared.shards {
            let settings = shard.seat.site.switchover();
            let within = settings.pause_timeout + settings.demote_timeout + STOP_GRACE;
            let mut running = shard.desk.running.subscribe();
            // The sender lives in the desk, which lives as long as `self`.
            let ended = timeout_at(ordered + within, running.wait_for(Option::is_none)).await;
            if ended.is_err() {
                tracing::warn!(shard = %shard.seat.site.shard,
                    "an operation is left to the next start");
            }
        }
    }

    /// The last client has left. Until then the nodes and the other proxies are listened to: what
    /// they do is followed, and their switchovers are taken part in.
    pub fn end(&self) {
        self.shared.ended.cancel();
    }

    fn shard(&self, name: &str) -> Option<&Shard<G, R>> {
        self.shared
            .shards
            .iter()
            .find(|shard| shard.seat.site.shard == name)
    }

    /// Starts a switchover to a node that has `sync_timeout` to receive every write, by default
    /// as long as the configuration says.
    pub fn begin_within(
        &self,
        shard: &str,
        to: &str,
        sync_timeout: Option<Duration>,
    ) -> Result<String, StartError> {
        self.begin(shard, to, |from, to| Task::Switch {
            from,
            to,
            sync_timeout,
        })
    }

    fn begin(
        &self,
        shard: &str,
        to: &str,
        task: impl FnOnce(NodeName, NodeName) -> Task,
    ) -> Result<String, StartError> {
        let shard = self.shard(shard).ok_or(StartError::UnknownShard)?;
        if self.shared.stopping.is_cancelled() {
            return Err(StartError::ShuttingDown);
        }
        let from: NodeName = shard
            .seat
            .site
            .routes
            .current()
            .1
            .unwrap_or_default()
            .into();
        let to: NodeName = to.into();
        let id = operation_id();
        let name = &shard.seat.site.shard;
        let order = Order::new(id.clone(), name, task(from, to));
        if let Err(id) = shard.desk.take_up(&order.operation) {
            return Err(StartError::Busy { id });
        }
        self.shared.history.remember(order.operation.clone());
        if shard.orders.try_send(order).is_err() {
            shard.desk.running.send_replace(None);
            return Err(StartError::ShuttingDown);
        }
        Ok(id)
    }
}

impl<G: Gates, R: Routes> Control for Shards<G, R> {
    fn names(&self) -> Vec<String> {
        self.shared
            .shards
            .iter()
            .map(|shard| shard.seat.site.shard.clone())
            .collect()
    }

    fn status(&self, shard: &str) -> Option<ShardStatus> {
        Some(self.shard(shard)?.status())
    }

    fn switchover(
        &self,
        shard: String,
        to: String,
        dry_run: bool,
    ) -> BoxFuture<'_, Result<String, StartError>> {
        Box::pin(async move {
            if dry_run {
                return self.begin(&shard, &to, |from, to| Task::DryRun { from, to });
            }
            self.begin_within(&shard, &to, None)
        })
    }

    fn operation(&self, id: &str) -> Option<OperationView> {
        Some(self.shared.history.find(id)?.progress.view())
    }

    fn wait(&self, id: String) -> BoxFuture<'_, Option<Report>> {
        Box::pin(async move { self.shared.history.find(&id)?.progress.wait().await })
    }

    fn abort(&self, id: &str) -> AbortAnswer {
        let Some(operation) = self.shared.history.find(id) else {
            return AbortAnswer::Unknown;
        };
        let (word, answer) = match operation.progress.going() {
            Going::Over => return AbortAnswer::Ended,
            Going::Forward => return AbortAnswer::TooLate,
            Going::Abortable => (Word::Abort, AbortAnswer::Aborting),
            Going::Background => (Word::Leave(Reason::GivenUp), AbortAnswer::Leaving),
        };
        // Full means that it was asked for already.
        let _ = operation.words.try_send(word);
        answer
    }
}

impl<G: Gates, R: Routes> Shard<G, R> {
    fn status(&self) -> ShardStatus {
        let (epoch, master) = self.seat.site.routes.current();
        let snapshot = self.watch.snapshot();
        let known = snapshot.nodes.iter().find_map(|node| node.facts.as_ref());
        let running = self
            .desk
            .running
            .borrow()
            .as_ref()
            .map(|operation| (operation.id.clone(), operation.progress.view()));
        let held = [
            "hold", "pause", "catch_up", "fence", "prove", "promote", "undo",
        ];
        let gate = match &running {
            // What goes on behind a report holds nobody.
            Some((_, view)) if view.report.is_none() && held.contains(&view.phase.as_str()) => {
                "holding"
            }
            _ if master.is_none() => "shut",
            // It opens the gate with the route.
            Some(_) => "open",
            None => *self.desk.gate(),
        };
        ShardStatus {
            name: self.seat.site.shard.clone(),
            listen: self.seat.listen.clone(),
            engine: known.map(|facts| facts.engine.to_string()),
            version: known.map(|facts| facts.version.to_string()),
            epoch,
            gate: gate.to_owned(),
            sessions: (self.seat.sessions)(),
            operation: running.map(|(id, _)| id),
            nodes: statuses(&snapshot, master.as_deref()),
            master,
        }
    }
}

fn statuses(snapshot: &Snapshot, master: Option<&str>) -> Vec<NodeStatus> {
    let now = Instant::now();
    let offset = |node: &Observed| node.facts.as_ref().and_then(|facts| facts.offset);
    let head = master
        .and_then(|master| snapshot.node(master))
        .and_then(offset);
    let status = |node: &Observed| {
        let role = match (&node.error, node.facts.as_ref().map(|facts| &facts.role)) {
            (Some(_), _) | (_, None) => NodeRole::Unknown,
            (None, Some(Role::Master)) => NodeRole::Master,
            (None, Some(Role::Replica { .. })) => NodeRole::Replica,
        };
        let lag = |own: u64| Some(i64::try_from(head?).ok()? - i64::try_from(own).ok()?);
        let seen = node
            .seen_at
            .map(|at| now.saturating_duration_since(at).as_millis());
        let link = node.facts.as_ref().and_then(|facts| link_word(&facts.role));
        NodeStatus {
            node: node.name().to_string(),
            role,
            link: link.map(str::to_owned),
            offset: offset(node),
            lag_bytes: offset(node).and_then(lag),
            seen_ms_ago: seen.and_then(|ms| u64::try_from(ms).ok()),
            error: node.error.as_ref().map(|trouble| trouble.words.clone()),
        }
    };
    snapshot.nodes.iter().map(status).collect()
}
