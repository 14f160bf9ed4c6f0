//! What one worker holds of one shard: its gate, its view of the route, its lanes and pooled
//! connections, the limits, and the counters that telemetry collects once a second.
//!
//! **Invariant:** lanes and pooled connections belong to a node; a change of the epoch changes
//! the node that new requests go to, and nothing that is under way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;
use tokio::sync::mpsc;

use super::busy_poll::Stir;
use super::counts::Counts;
use super::cursors::Cursors;
use super::links::{LaneAnswer, LaneUse, NodeLinks};
use super::outbox::Outbox;
use super::pause::Pause;
use super::presence::Presence;
use super::registry::{Order, Registry};
use super::scripts::Scripts;
use super::scripts::store::ScriptStore;
use super::stand_in::StandIn;
use crate::resp::command::policy::Policy;
use crate::resp::scan::RequestLimits;
use crate::shard::doubt::Doubt;
use crate::shard::failover::FailoverDesk;
use crate::shard::gate::Gate;
use crate::shard::route::{Life, RouteCache, RouteReader};
use crate::transport::{Acceptor, Dialer};
use crate::upstream::connection::DialError;
use crate::upstream::identity::Identity;

/// Input buffers kept for the next session that has something to read.
const SPARE_BUFFERS_MAX: usize = 64;
/// Room in an input buffer: one read takes at most this much.
pub const INPUT_BYTES: usize = 16 * 1024;

/// Limits of every session, from the configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    pub request: RequestLimits,
    /// Replies one session may be owed before its socket is not read further.
    pub pipeline_max: usize,
    /// Unread requests kept per session while it is held.
    pub session_buffer_bytes_max: usize,
    /// What is kept of large requests on their way, by one worker for one shard.
    pub upload_buffer_bytes_max: usize,
    /// Replies a slow client may leave untaken before it is closed.
    pub output_buffer_bytes_max: usize,
    /// Lanes per worker, node, identity and use; 0: as many as suit the engine.
    pub lanes_max: usize,
    pub pinned_idle_max: usize,
    pub connect_timeout: Duration,
    /// How long a worker that serves few clients looks for more before it sleeps.
    pub busy_poll: Duration,
    /// How long a command waits for a master.
    pub hold_budget: Duration,
    /// The same of a read that a lane carries.
    pub reads_budget: Duration,
    /// Reads go to a replica while there is no master.
    pub reads_stand_in: bool,
    pub policy: Policy,
}

impl Limits {
    /// How long the server may take to answer what the proxy asks for a session: a budget of 0 says
    /// that nobody waits for a master, not that a master is asked nothing.
    pub fn call_deadline(&self) -> Duration {
        self.hold_budget.max(self.connect_timeout)
    }
}

/// A live session, to be reached from outside its task.
#[derive(Debug)]
struct Present {
    presence: Arc<Presence>,
    outbox: Rc<Outbox>,
    identity: Identity,
}

/// What the workers of one shard share beside its gate and route.
#[derive(Debug, Clone)]
pub struct Shared {
    pub sessions_live: Arc<AtomicUsize>,
    pub registry: Registry,
    pub pause: Pause,
    pub failover: FailoverDesk,
    pub doubt: Doubt,
    pub scripts: Arc<ScriptStore>,
    pub cursors: Arc<Cursors>,
    pub dialer: Dialer,
    pub acceptor: Acceptor,
}

/// One worker's seat at one shard.
#[derive(Debug)]
pub struct Seat {
    pub gate: Rc<Gate>,
    pub limits: Limits,
    pub counts: Rc<Counts>,
    pub stir: Stir,
    pub registry: Registry,
    /// Where sessions of other workers leave orders for this one's.
    pub door: mpsc::Sender<Order>,
    lost: mpsc::Sender<Identity>,
    pub scripts: Scripts,
    pub pause: Pause,
    pub failover: FailoverDesk,
    pub doubt: Doubt,
    pub cursors: Arc<Cursors>,
    dialer: Dialer,
    pub acceptor: Acceptor,
    reader: RouteReader,
    route: RefCell<RouteCache>,
    nodes: RefCell<HashMap<Rc<str>, Rc<NodeLinks>>>,
    current: RefCell<Option<(u64, Rc<NodeLinks>)>>,
    pub(super) stand_in: StandIn,
    /// When the present master's epoch was first seen here.
    current_since: Cell<Instant>,
    /// How many live sessions have each identity: what a new master must accept.
    identities: RefCell<HashMap<Identity, usize>>,
    spare: RefCell<Vec<BytesMut>>,
    present: RefCell<Slab<Present>>,
    stopping: Cell<bool>,
    /// Bytes kept of large requests on their way.
    pub upload_bytes: Cell<usize>,
    /// Sessions of the shard over all workers, for its status.
    sessions_live: Arc<AtomicUsize>,
}

impl Seat {
    pub fn new(
        gate: Rc<Gate>,
        route: &RouteReader,
        limits: Limits,
        shared: Shared,
        door: mpsc::Sender<Order>,
        lost: mpsc::Sender<Identity>,
    ) -> Rc<Self> {
        Rc::new(Self {
            gate,
            limits,
            counts: Rc::default(),
            stir: Stir::default(),
            registry: shared.registry,
            door,
            lost,
            scripts: Scripts::new(shared.scripts),
            cursors: shared.cursors,
            dialer: shared.dialer,
            acceptor: shared.acceptor,
            reader: route.clone(),
            pause: shared.pause,
            failover: shared.failover,
            doubt: shared.doubt,
            route: RefCell::new(route.cache()),
            nodes: RefCell::default(),
            current: RefCell::default(),
            stand_in: StandIn::default(),
            current_since: Cell::new(Instant::now()),
            identities: RefCell::default(),
            spare: RefCell::default(),
            present: RefCell::default(),
            stopping: Cell::new(false),
            upload_bytes: Cell::new(0),
            sessions_live: shared.sessions_live,
        })
    }

    /// The epoch that new requests belong to.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.route.borrow_mut().load().epoch
    }

    pub fn has_master(&self) -> bool {
        self.route.borrow_mut().load().master.is_some()
    }

    /// The connections to today's master and the epoch they belong to; `None` without a master.
    pub fn master(&self) -> Option<(u64, Rc<NodeLinks>)> {
        let (epoch, master) = {
            let mut route = self.route.borrow_mut();
            let route = route.load();
            (route.epoch, route.master.clone()?)
        };
        if let Some((known, links)) = self.current.borrow().as_ref()
            && *known == epoch
        {
            return Some((epoch, Rc::clone(links)));
        }
        let links = self.links(&Rc::from(&*master));
        self.current_since.set(Instant::now());
        let left = self.current.replace(Some((epoch, Rc::clone(&links))));
        if let Some((_, left)) = left
            && left.node != links.node
        {
            self.forget_node(&left);
        }
        self.leave_stand_in(&links);
        Some((epoch, links))
    }

    /// The route may have changed: what is owed by a node that was left is not waited for without
    /// an end, even when no session here asks anything of the new one.
    pub fn leave_former_master(&self) {
        self.master();
    }

    /// Nothing is asked of this node any more.
    pub(super) fn forget_node(&self, left: &NodeLinks) {
        self.nodes.borrow_mut().remove(&left.node);
        left.retire();
    }

    /// Who may be read from while there is no master, best first.
    pub(super) fn stand_ins(&self) -> Arc<Vec<Arc<str>>> {
        self.reader.stand_ins()
    }

    /// Whether the master became one so recently that its replicas may be on their way to it.
    pub fn is_new_master(&self) -> bool {
        self.current_since.get().elapsed() < self.limits.hold_budget
    }

    /// Whether no other node could become the master: what this one refuses is its last word.
    pub fn is_alone(&self) -> bool {
        self.route.borrow_mut().load().replicas.is_empty()
    }

    /// Whether the master lets blocked clients go when its role changes.
    pub fn master_lets_go(&self) -> bool {
        self.route.borrow_mut().load().habits.lets_go
    }

    /// Whether the master's messages are pushes in RESP3.
    pub fn master_pushes_messages(&self) -> bool {
        self.route.borrow_mut().load().habits.pushes_messages
    }

    /// Whether a script that only reads is known to one thread of the master alone.
    pub fn reads_scripts_alone(&self) -> bool {
        self.route.borrow_mut().load().habits.reads_scripts_alone
    }

    /// The run that a node was in when it was looked at last; `None` where it does not say.
    pub fn life_of(&self, node: &str) -> Option<Life> {
        self.reader.life_of(node)
    }

    /// The connections to a node that is a replica now; `None` when it is none of the shard's.
    pub fn former_links(&self, node: &str) -> Option<Rc<NodeLinks>> {
        let is_replica = {
            let mut route = self.route.borrow_mut();
            route
                .load()
                .replicas
                .iter()
                .any(|replica| **replica == *node)
        };
        is_replica.then(|| self.links(&Rc::from(node)))
    }

    fn lanes_max(&self) -> usize {
        match self.limits.lanes_max {
            0 => self.route.borrow_mut().load().habits.lanes.max(1),
            set => set,
        }
    }

    pub(super) fn links(&self, node: &Rc<str>) -> Rc<NodeLinks> {
        let mut nodes = self.nodes.borrow_mut();
        let links = nodes.entry(Rc::clone(node)).or_insert_with(|| {
            NodeLinks::new(
                node,
                &self.dialer,
                self.limits.connect_timeout,
                self.limits.pinned_idle_max,
                self.lost.clone(),
            )
        });
        Rc::clone(links)
    }

    /// An open lane to a node for a session of this identity. `proven`: the session has been served
    /// before, so it need not be asked whether the node wants a password by now.
    pub async fn lane(
        &self,
        links: &Rc<NodeLinks>,
        identity: &Identity,
        lane_use: LaneUse,
        proven: bool,
    ) -> Result<LaneAnswer, DialError> {
        if !proven
            && identity.credentials.is_none()
            && let Some(noauth) = links.wants_password().await?
        {
            return Ok(LaneAnswer::NoAuth(noauth));
        }
        links.lane(identity, lane_use, self.lanes_max()).await
    }

    /// Opens to `node` every kind of lane in use at the present master, and proves that it
    /// accepts every live session's identity.
    pub async fn prepare(&self, node: &str) -> Result<(), String> {
        let node: Rc<str> = Rc::from(node);
        let target = self.links(&node);
        let mut wanted: Vec<(Identity, LaneUse)> = self
            .identities
            .borrow()
            .keys()
            .flat_map(|known| [LaneUse::Reads, LaneUse::Writes].map(|used| (known.clone(), used)))
            .collect();
        if let Some((_, links)) = self.master() {
            wanted.retain(|(identity, used)| {
                *used == LaneUse::Writes || links.has_lane(identity, *used)
            });
        }
        let deadline = self.limits.connect_timeout;
        self.scripts.prepare(&target, self.epoch(), deadline).await;
        for (identity, lane_use) in wanted {
            let answer = self.lane(&target, &identity, lane_use, false).await;
            let unauthenticated = identity.credentials.is_none();
            match answer {
                Ok(LaneAnswer::Open(_)) => {}
                Ok(LaneAnswer::NoAuth(_)) if self.master_wants_password().await => {}
                Ok(LaneAnswer::NoAuth(reply)) => {
                    let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
                    return Err(format!("{node} would not serve live sessions: {reply}"));
                }
                Err(DialError::Refused { .. }) if unauthenticated && identity.db == 0 => {}
                Err(error) => return Err(format!("a live session's state is refused: {error}")),
            }
        }
        Ok(())
    }

    /// Whether the present master does not serve sessions without a password either.
    async fn master_wants_password(&self) -> bool {
        match self.master() {
            Some((_, links)) => matches!(links.wants_password().await, Ok(Some(_))),
            None => false,
        }
    }

    /// Takes a session in; its key is for [`Seat::leave`].
    pub fn enter(&self, presence: &Arc<Presence>, outbox: &Rc<Outbox>) -> usize {
        self.counts.connections.add(1);
        self.sessions_live.fetch_add(1, Ordering::Relaxed);
        self.counts.sessions.set(self.counts.sessions.get() + 1);
        self.present.borrow_mut().insert(Present {
            presence: Arc::clone(presence),
            outbox: Rc::clone(outbox),
            identity: Identity::default(),
        })
    }

    pub fn leave(&self, key: usize) {
        self.sessions_live.fetch_sub(1, Ordering::Relaxed);
        self.counts
            .sessions
            .set(self.counts.sessions.get().saturating_sub(1));
        self.present.borrow_mut().try_remove(key);
    }

    /// Lets sessions end as soon as nothing of theirs is under way.
    pub fn stop(&self) {
        self.stopping.set(true);
        for (_, present) in self.present.borrow().iter() {
            present.outbox.wake();
        }
    }

    /// Carries out what a session, of whatever worker, wants done to sessions of this one.
    pub fn obey(&self, order: &Order) {
        for (_, present) in self.present.borrow().iter() {
            match order {
                Order::Close(ids) if ids.contains(&present.presence.id) => present.outbox.kill(),
                Order::Wake(id) if *id == present.presence.id => present.outbox.wake(),
                _ => {}
            }
        }
    }

    /// The session of this key is somebody else from now on.
    pub fn identify(&self, key: usize, identity: &Identity) {
        if let Some(present) = self.present.borrow_mut().get_mut(key) {
            present.identity = identity.clone();
        }
    }

    /// The master has closed a lane. When that was because it knows the user no more, it would have
    /// closed the connections of all sessions that are this user: they end.
    pub async fn prove_again(&self, identity: &Identity) {
        let Some((_, links)) = self.master() else {
            return;
        };
        match links.dial(identity, self.limits.connect_timeout).await {
            Ok(connection) => links.pool.give_back(connection),
            // A server that is full or busy says nothing about the user.
            Err(DialError::Refused { reply, .. })
                if [&b"-WRONGPASS"[..], b"-NOAUTH", b"-ERR Invalid password"]
                    .iter()
                    .any(|begin| reply.starts_with(begin)) =>
            {
                for (_, present) in self.present.borrow().iter() {
                    if present.identity == *identity {
                        present.outbox.kill();
                    }
                }
            }
            Err(_) => {}
        }
    }

    /// Called once a second: who has sent nothing since is idle.
    pub fn tick(&self) {
        for (_, present) in self.present.borrow().iter() {
            present.presence.tick();
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Who the live sessions are.
    pub(super) fn identities(&self) -> Vec<Identity> {
        self.identities.borrow().keys().cloned().collect()
    }

    pub fn enter_identity(&self, identity: &Identity) {
        *self
            .identities
            .borrow_mut()
            .entry(identity.clone())
            .or_default() += 1;
    }

    pub fn leave_identity(&self, identity: &Identity) {
        let mut identities = self.identities.borrow_mut();
        if let Some(count) = identities.get_mut(identity) {
            *count -= 1;
            // Clients without credentials come and go; their lanes are kept for the next.
            if *count == 0 && *identity != Identity::default() {
                identities.remove(identity);
                for links in self.nodes.borrow().values() {
                    links.forget(identity);
                }
            }
        }
    }

    /// An empty input buffer. Idle sessions hold none, so that they cost little memory.
    pub fn take_buffer(&self) -> BytesMut {
        let mut buffer = self.spare.borrow_mut().pop().unwrap_or_default();
        buffer.reserve(INPUT_BYTES);
        buffer
    }

    pub fn give_back_buffer(&self, mut buffer: BytesMut) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= 4 * INPUT_BYTES {
            buffer.clear();
            spare.push(buffer);
        }
    }
}
