//! The channel of a shard: two connections to every node, one that listens and one that speaks.
//!
//! **Invariant:** a node that does not answer stops nobody but its own link; what is to be said
//! there is dropped, and whoever waits for an answer learns it.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::Roll;
use super::census::{LISTENER, SPEAKER};
use super::message::{Message, Saying};
use crate::resp::reply::Value;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName, Subscription, words};

/// What is waiting to be said to one node; an operation says a handful.
const OUTBOX_MAX: usize = 32;
/// What was heard and waits to be looked at; the rest is dropped.
const HEARD_MAX: usize = 64;
/// How often a silent connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Pauses between attempts at a node that cannot be reached.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What another proxy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The node it was heard from, by its place in the config.
    pub at: usize,
    pub message: Message,
}

/// Commands for one node, and who wants to know what it answers.
pub(super) struct Say {
    pub commands: Vec<Vec<Bytes>>,
    pub answer: Option<oneshot::Sender<Vec<Value>>>,
}

/// Whether a node can be spoken to and heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Down(String),
    Up,
}

/// Whether a node may have connections of ours that it has not missed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Again,
}

struct Link {
    node: NodeName,
    outbox: mpsc::Sender<Say>,
    state: watch::Sender<State>,
}

/// The channel as the rest of the control path sees it.
pub struct Peers {
    /// Who we are to the others.
    pub id: String,
    pub(super) channel: String,
    links: Vec<Link>,
    heard: mpsc::Sender<Heard>,
    pub(super) roll: watch::Sender<Roll>,
    unstarted: Mutex<Option<Links>>,
}

/// What [`Peers::run`] and whoever listens need; taken once.
pub struct Links {
    outboxes: Vec<mpsc::Receiver<Say>>,
    pub heard: mpsc::Receiver<Heard>,
}

impl Peers {
    /// `None` when the shard has a single node: nobody can change its master.
    pub fn of(shard: &str, nodes: &[NodeName]) -> Option<Arc<Peers>> {
        if nodes.len() < 2 {
            return None;
        }
        let (heard, hearing) = mpsc::channel(HEARD_MAX);
        let (mut links, mut outboxes) = (Vec::new(), Vec::new());
        for node in nodes {
            let (outbox, taken) = mpsc::channel(OUTBOX_MAX);
            outboxes.push(taken);
            links.push(Link {
                node: node.clone(),
                outbox,
                state: watch::Sender::new(State::Down("not connected yet".to_owned())),
            });
        }
        let unstarted = Links {
            outboxes,
            heard: hearing,
        };
        // Drawn anew at each start; two proxies of one process number differ by it.
        let drawn = RandomState::new().hash_one(shard) as u32;
        Some(Arc::new(Peers {
            id: format!("{}-{drawn:08x}", std::process::id()),
            channel: format!("__pointsman__:{shard}"),
            links,
            heard,
            roll: watch::Sender::new(Roll::default()),
            unstarted: Mutex::new(Some(unstarted)),
        }))
    }

    /// Where they talk.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The ends that were made with it; `None` the second time.
    pub fn links(&self) -> Option<Links> {
        let mut unstarted = self
            .unstarted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unstarted.take()
    }

    /// Keeps every link until it is cancelled; what is heard goes to `Links::heard`.
    pub fn run(
        self: &Arc<Self>,
        links: Links,
        credentials: &Credentials,
        within: Duration,
        stop: &CancellationToken,
    ) -> mpsc::Receiver<Heard> {
        for (at, outbox) in links.outboxes.into_iter().enumerate() {
            let (peers, credentials) = (self.clone(), credentials.clone());
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = peers.attend(at, outbox, credentials, within) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        tracing::info!(
            channel = self.channel,
            id = self.id,
            "this is the proxy's id to others"
        );
        links.heard
    }

    /// One node, for ever.
    async fn attend(
        &self,
        at: usize,
        mut outbox: mpsc::Receiver<Say>,
        credentials: Credentials,
        within: Duration,
    ) {
        let Some(link) = self.links.get(at) else {
            return;
        };
        let (mut pause, mut attempt) = (RETRY_FIRST, Attempt::First);
        loop {
            let Err(error) = self
                .keep(at, &mut outbox, &credentials, within, attempt)
                .await;
            if link.state.send_replace(State::Down(error.to_string())) == State::Up {
                pause = RETRY_FIRST;
            }
            attempt = Attempt::Again;
            tracing::debug!(node = %link.node, %error, "the channel of the proxies is down there");
            let again = Instant::now() + pause;
            pause = (pause * 2).min(RETRY_MAX);
            // Whoever wants something said meanwhile learns at once that it cannot be.
            while let Ok(Some(unsaid)) = timeout_at(again, outbox.recv()).await {
                drop(unsaid);
            }
        }
    }

    /// Listens and speaks until a connection is lost.
    async fn keep(
        &self,
        at: usize,
        outbox: &mut mpsc::Receiver<Say>,
        credentials: &Credentials,
        within: Duration,
        attempt: Attempt,
    ) -> Result<Infallible, NodeError> {
        let Some(link) = self.links.get(at) else {
            return std::future::pending().await;
        };
        let [speaks, listens] = [SPEAKER, LISTENER].map(|kind| format!("{kind}{}", self.id));
        let speaker = Connection::open(&link.node, credentials, &speaks, within).await?;
        let listener = Connection::open(&link.node, credentials, &listens, within).await?;
        if !listener.is_traceable() {
            tracing::warn!(node = %link.node, "other proxies do not know this one by name, and may \
                not wait for it: permit its user CLIENT SETNAME there");
        }
        let own = listener.client_id().and_then(|id| u64::try_from(id).ok());
        let listener = Subscription::open(listener, &self.channel, within).await?;
        link.state.send_replace(State::Up);
        // What is heard is not kept waiting for it.
        let close_older = async {
            if let (Attempt::Again, Some(own)) = (attempt, own) {
                self.close_older(&link.node, own, credentials, within).await;
            }
            Ok(())
        };
        let ((), never) = tokio::try_join!(
            close_older,
            self.pass(at, outbox, speaker, listener, within)
        )?;
        Ok(never)
    }

    /// Passes on what is heard, and what is to be said.
    async fn pass(
        &self,
        at: usize,
        outbox: &mut mpsc::Receiver<Say>,
        mut speaker: Connection,
        mut listener: Subscription,
        within: Duration,
    ) -> Result<Infallible, NodeError> {
        let mut pinged = false;
        loop {
            // Cancel-safe: what has been read of a message stays read, and what is to be said is
            // taken whole or not at all.
            tokio::select! {
                heard = listener.next() => {
                    pinged = false;
                    self.hear(at, &heard?);
                }
                Some(say) = outbox.recv() => {
                    let values = speaker.call_many(&say.commands, within).await?;
                    if let Some(answer) = say.answer {
                        // Whoever asked may have given up.
                        let _ = answer.send(values);
                    }
                }
                () = sleep(PING_EVERY) => {
                    if pinged {
                        return Err(listener.silent(PING_EVERY));
                    }
                    listener.ping(within).await?;
                    speaker.call(&["PING"], within).await?;
                    pinged = true;
                }
            }
        }
    }

    /// A message of the channel, an answer to a ping, or anything else.
    fn hear(&self, at: usize, value: &Value) {
        let Some([kind, _, text]) = value.items() else {
            return;
        };
        if kind.text() != Some("message") {
            return;
        }
        let bytes = match text {
            Value::Bulk(bytes) | Value::Status(bytes) => bytes.as_ref(),
            _ => &[],
        };
        let Some(message) = Message::parse(bytes) else {
            let bytes = bytes.len();
            tracing::debug!(channel = self.channel, bytes, "ignored what is no message");
            return;
        };
        if message.proxy == self.id {
            return;
        }
        if let Saying::Ack(step) = message.saying {
            self.acknowledged(&message.operation, &message.proxy, step);
        } else if self.heard.try_send(Heard { at, message }).is_err() {
            tracing::debug!(
                channel = self.channel,
                "ignored a message: too many at once"
            );
        }
    }

    /// The link to a node of that name.
    pub fn place_of(&self, node: &str) -> Option<usize> {
        self.links
            .iter()
            .position(|link| link.node.as_ref() == node)
    }

    /// Says something to a node. Dropped when it cannot be reached, or has too much to hear
    /// already.
    pub(super) fn say(&self, at: usize, say: Say) {
        if let Some(link) = self.links.get(at)
            && link.outbox.try_send(say).is_err()
        {
            tracing::debug!(node = %link.node, "too much is waiting to be said there");
        }
    }

    /// Publishes a message of ours on a node.
    pub(super) fn publish(&self, at: usize, operation: &str, saying: Saying) {
        let commands = vec![self.publication(operation, saying)];
        self.say(
            at,
            Say {
                commands,
                answer: None,
            },
        );
    }

    pub(super) fn publication(&self, operation: &str, saying: Saying) -> Vec<Bytes> {
        let message = Message {
            operation: operation.to_owned(),
            proxy: self.id.clone(),
            saying,
        };
        words(&["PUBLISH", &self.channel, &message.to_string()])
    }

    /// Asks a node; `None` when it does not answer.
    pub(super) async fn ask(&self, at: usize, commands: Vec<Vec<Bytes>>) -> Option<Vec<Value>> {
        let (answer, answered) = oneshot::channel();
        let answer = Some(answer);
        self.say(at, Say { commands, answer });
        answered.await.ok()
    }

    /// Returns when the node can be spoken to and heard; the error says why it cannot.
    pub async fn ready(&self, node: &str, within: Duration) -> Result<(), String> {
        let Some(link) = self.place_of(node).and_then(|at| self.links.get(at)) else {
            return Err(format!("{node} is no node of this shard"));
        };
        let mut state = link.state.subscribe();
        let up = state.wait_for(|state| *state == State::Up);
        // The sender lives as long as `self`.
        if tokio::time::timeout(within, up).await.is_ok() {
            return Ok(());
        }
        match &*link.state.borrow() {
            State::Up => Ok(()),
            State::Down(why) => Err(format!(
                "other proxies cannot be told ({why}): let the proxy's user use the channel (ACL \
                 SETUSER <user> &{}), or set silent_proxies = \"report\"",
                self.channel
            )),
        }
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
