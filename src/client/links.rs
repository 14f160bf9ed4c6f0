//! One worker's connections to one node: lanes by identity and use, and the pool.
//!
//! **Invariant:** a session without credentials is served only as long as the node serves such
//! connections: a password that is set while the proxy runs counts for every new session, as it
//! does for every new connection to the server. Lanes and pooled connections of before would not
//! show it, so it is asked again on a fresh connection, at most once a second.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc};

use super::outbox::Outbox;
use crate::resp::refusal::refusal;
use crate::resp::scan::ReplyKind;
use crate::transport::Dialer;
use crate::upstream::connection::{Connection, DialError};
use crate::upstream::identity::Identity;
use crate::upstream::lane::{Cut, Lane};
use crate::upstream::pinned::Pool;
use crate::upstream::trial;

/// What a server that is full says to a new connection, before it closes it.
const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached";
/// How long a node that the route has left may send nothing while it owes replies. It is generous:
/// a replica that throws away a large dataset answers nobody meanwhile, and says at the end what it
/// did not execute.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long the answer to "does the node want a password?" counts.
const PROOF_COUNTS: Duration = Duration::from_secs(1);

/// Sessions that only read do not share lanes with sessions that also write: a pause that
/// somebody else sets on the server stops a lane at its first write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneUse {
    Reads,
    Writes,
    /// Reads of a session that has no master: they go to another node's lanes for reads.
    StandIn,
}

/// What a node gave when asked for a lane.
#[derive(Debug, Clone)]
pub enum LaneAnswer {
    Open(Rc<Lane<Outbox>>),
    /// The node wants a password first; this is its own error line for every command.
    NoAuth(Bytes),
}

/// Whether a node answers, and neither loads nor misses its own master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    Yes,
    No,
    /// It looks at who asks before it looks at itself: it wants a password, or allows no question.
    Unknown,
}

impl Serves {
    fn told_by(error: &[u8]) -> Self {
        let unknown: [&[u8]; 3] = [b"-NOAUTH", b"-WRONGPASS", b"-NOPERM"];
        if refusal(error).is_some() || error.starts_with(TOO_MANY_CLIENTS) {
            Self::No
        } else if unknown.iter().any(|begin| error.starts_with(begin)) {
            Self::Unknown
        } else {
            Self::Yes
        }
    }
}

type LaneSlot = Rc<OnceCell<LaneAnswer>>;
/// When it was asked, and the server's error line if it wants a password.
type Proof = (Instant, Rc<OnceCell<Option<Bytes>>>);

/// Connections of this worker to one node.
#[derive(Debug)]
pub struct NodeLinks {
    pub node: Rc<str>,
    pub pool: Pool,
    dialer: Dialer,
    connect_timeout: Duration,
    /// Told of identities whose lane the node has closed.
    lost: mpsc::Sender<Identity>,
    /// The route has left the node: a lane that is opened even so is closed at once.
    retired: Cell<bool>,
    lanes: RefCell<HashMap<(Identity, LaneUse), Vec<LaneSlot>>>,
    proof: RefCell<Option<Proof>>,
}

impl NodeLinks {
    pub fn new(
        node: &Rc<str>,
        dialer: &Dialer,
        connect_timeout: Duration,
        pinned_idle_max: usize,
        lost: mpsc::Sender<Identity>,
    ) -> Rc<Self> {
        Rc::new(Self {
            node: Rc::clone(node),
            pool: Pool::new(dialer.clone(), pinned_idle_max),
            dialer: dialer.clone(),
            connect_timeout,
            lost,
            retired: Cell::new(false),
            lanes: RefCell::default(),
            proof: RefCell::default(),
        })
    }

    /// An open lane, one of at most `lanes_max`; dialled when all have sessions and there is room
    /// for another.
    pub async fn lane(
        self: &Rc<Self>,
        identity: &Identity,
        lane_use: LaneUse,
        lanes_max: usize,
    ) -> Result<LaneAnswer, DialError> {
        if let Some(ready) = self.ready_lane(identity, lane_use, lanes_max) {
            return Ok(ready);
        }
        let slot = self.slot(identity, lane_use);
        let answer = slot.get_or_try_init(|| self.dial_lane(identity)).await?;
        Ok(answer.clone())
    }

    /// The open lane with the fewest sessions, unless another should be dialled.
    fn ready_lane(
        &self,
        identity: &Identity,
        lane_use: LaneUse,
        lanes_max: usize,
    ) -> Option<LaneAnswer> {
        let mut lanes = self.lanes.borrow_mut();
        let slots = lanes.get_mut(&(identity.clone(), lane_use))?;
        slots.retain(|slot| !is_gone(slot));
        let (sessions, answer) = slots
            .iter()
            .filter_map(|slot| slot.get())
            .map(|answer| (sessions_on(answer), answer))
            .min_by_key(|(sessions, _)| *sessions)?;
        (sessions == 0 || slots.len() >= lanes_max).then(|| answer.clone())
    }

    /// A slot that is being dialled already, or a new one.
    fn slot(&self, identity: &Identity, lane_use: LaneUse) -> LaneSlot {
        let mut lanes = self.lanes.borrow_mut();
        let slots = lanes.entry((identity.clone(), lane_use)).or_default();
        slots.retain(|slot| !is_gone(slot));
        if let Some(dialling) = slots.iter().find(|slot| slot.get().is_none()) {
            return Rc::clone(dialling);
        }
        let slot = LaneSlot::default();
        slots.push(Rc::clone(&slot));
        slot
    }

    /// Opens a lane. One `PING` tells whether the node serves this identity at all: a shared
    /// connection that is not authenticated must not carry requests, the server closes it on
    /// the first long one.
    async fn dial_lane(&self, identity: &Identity) -> Result<LaneAnswer, DialError> {
        let (connection, noauth) = self.dial_and_ping(identity).await?;
        if let Some(noauth) = noauth {
            let known = OnceCell::new_with(Some(Some(noauth.clone())));
            self.proof.replace(Some((Instant::now(), Rc::new(known))));
            return Ok(LaneAnswer::NoAuth(noauth));
        }
        let (lane, task) = Lane::new(connection);
        if self.retired.get() {
            lane.retire(SILENCE_MAX);
        }
        let node = self.node.to_string();
        let (lost, identity, ended) = (self.lost.clone(), identity.clone(), Rc::clone(&lane));
        // The task ends with its connection, at the latest with the worker's runtime.
        tokio::task::spawn_local(async move {
            match task.run().await {
                Cut::Closed => tracing::debug!(node, "lane closed"),
                Cut::OutOfStep => tracing::error!(node, "lane cut: a reply that nobody awaits"),
                Cut::Silent => tracing::warn!(node, "lane given up: replies that do not come"),
            }
            if !ended.is_retired() && identity.user().is_some() {
                // Where too many are told of at once, their sessions learn it with their next
                // command.
                let _ = lost.try_send(identity);
            }
        });
        Ok(LaneAnswer::Open(lane))
    }

    /// A new connection with this identity, not one that is kept.
    pub async fn dial(
        &self,
        identity: &Identity,
        deadline: Duration,
    ) -> Result<Connection, DialError> {
        Connection::dial(&self.dialer, &self.node, identity, deadline).await
    }

    async fn dial_and_ping(
        &self,
        identity: &Identity,
    ) -> Result<(Connection, Option<Bytes>), DialError> {
        let node = &*self.node;
        let deadline = self.connect_timeout;
        let mut connection = self.dial(identity, deadline).await?;
        let silent = |_| DialError::Silent {
            node: node.to_owned(),
            after: deadline,
        };
        let (reply, kind) = connection
            .call(trial::request(), deadline)
            .await
            .map_err(silent)?;
        if reply.starts_with(TOO_MANY_CLIENTS) {
            let node = node.to_owned();
            return Err(DialError::Refused { node, reply });
        }
        let noauth = kind == ReplyKind::Error && reply.starts_with(b"-NOAUTH");
        Ok((connection, noauth.then_some(reply)))
    }

    /// The node's own error line when it does not serve connections without a password.
    pub async fn wants_password(&self) -> Result<Option<Bytes>, DialError> {
        let asked = {
            let mut proof = self.proof.borrow_mut();
            match &*proof {
                Some((at, asked)) if at.elapsed() < PROOF_COUNTS => Rc::clone(asked),
                _ => {
                    let asked = Rc::default();
                    *proof = Some((Instant::now(), Rc::clone(&asked)));
                    asked
                }
            }
        };
        let answer = asked.get_or_try_init(async || {
            let (connection, noauth) = self.dial_and_ping(&Identity::default()).await?;
            if noauth.is_none() {
                self.pool.give_back(connection);
            }
            Ok(noauth)
        });
        answer.await.cloned()
    }

    /// Whether the node serves, as far as it tells somebody of this identity.
    pub async fn serves(&self, identity: &Identity) -> Serves {
        let mut connection = match self.dial(identity, self.connect_timeout).await {
            Ok(connection) => connection,
            Err(DialError::Refused { reply, .. }) => return Serves::told_by(&reply),
            Err(_) => return Serves::No,
        };
        let told = connection.call(trial::request(), self.connect_timeout);
        match told.await {
            Ok((reply, ReplyKind::Error)) => Serves::told_by(&reply),
            Ok(_) => Serves::Yes,
            Err(_) => Serves::No,
        }
    }

    /// Whether there is a lane for this, or was asked for one.
    pub fn has_lane(&self, identity: &Identity, lane_use: LaneUse) -> bool {
        self.lanes
            .borrow()
            .contains_key(&(identity.clone(), lane_use))
    }

    pub fn has_open_lane(&self) -> bool {
        let lanes = self.lanes.borrow();
        let mut answers = lanes.values().flatten().filter_map(|slot| slot.get());
        answers.any(|answer| matches!(answer, LaneAnswer::Open(lane) if lane.is_open()))
    }

    /// No session has this identity any more.
    pub fn forget(&self, identity: &Identity) {
        for lane_use in [LaneUse::Reads, LaneUse::Writes] {
            let slots = self
                .lanes
                .borrow_mut()
                .remove(&(identity.clone(), lane_use));
            close(slots.into_iter().flatten());
        }
        self.pool.forget(identity);
    }

    /// Closes the lanes as soon as they owe nothing.
    pub fn retire(&self) {
        self.retired.set(true);
        let lanes = std::mem::take(&mut *self.lanes.borrow_mut());
        close(lanes.into_values().flatten());
    }
}

fn close(slots: impl Iterator<Item = LaneSlot>) {
    for slot in slots {
        if let Some(LaneAnswer::Open(lane)) = slot.get() {
            lane.retire(SILENCE_MAX);
        }
    }
}

fn is_gone(slot: &LaneSlot) -> bool {
    match slot.get() {
        Some(LaneAnswer::Open(lane)) => !lane.is_open(),
        // Asked again each time: the server's password may have been taken away.
        Some(LaneAnswer::NoAuth(_)) => true,
        None => false,
    }
}

/// A lane is held by its slot, its task, and each session that uses it.
fn sessions_on(answer: &LaneAnswer) -> usize {
    match answer {
        LaneAnswer::Open(lane) => Rc::strong_count(lane).saturating_sub(2),
        LaneAnswer::NoAuth(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::identity::Credentials;

    /// A server with a password that loads.
    async fn loading(listener: TcpListener) {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut asked, mut known) = ([0; 512], false);
            while let Ok(1..) = client.read(&mut asked).await {
                let auth = asked.windows(4).any(|part| part == b"AUTH");
                let reply: &[u8] = match (auth, known) {
                    (true, _) => b"+OK\r\n",
                    (false, false) => b"-NOAUTH Authentication required.\r\n",
                    (false, true) => b"-LOADING Redis is loading the dataset in memory\r\n",
                };
                known = known || auth;
                client.write_all(reply).await.unwrap();
                asked.fill(0);
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_wants_a_password_first_has_not_said_that_it_serves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node: Rc<str> = listener.local_addr().unwrap().to_string().into();
        let server = tokio::spawn(loading(listener));
        let deadline = Duration::from_secs(5);
        let (lost, _) = mpsc::channel(1);
        let links = NodeLinks::new(&node, &Dialer::default(), deadline, 1, lost);
        let known = Identity {
            credentials: Some(Rc::new(Credentials {
                user: None,
                password: "secret".into(),
            })),
            ..Identity::default()
        };
        let nobody = Identity::default();
        assert_eq!(links.serves(&nobody).await, Serves::Unknown);
        assert_eq!(links.serves(&known).await, Serves::No);
        server.abort();
    }
}
