//! The shard's task while another proxy changes the master: it holds with it, follows it, and lets
//! go.
//!
//! **Invariant:** every hold that begins here ends here, at the driver's word or when its time is
//! over; and the route that is published is what two nodes have just said themselves.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::actor::Actor;
use super::evidence::Known;
use super::{Operation, Order};
use crate::resp::reply::RoleReply;
use crate::switchover::exec::{Gates, Opening, Routes, Word};
use crate::switchover::peers::{Allowance, End, Heard, Message, Part, Peers, Saying, Step, Then};
use crate::switchover::plan::Reason;
use crate::topology::facts::{NodeFacts, split};
use crate::topology::node::{Connection, NodeName};

/// Operations that are remembered: what is said of one is heard from every node, late from some.
const SERVED_MAX: usize = 64;
/// How long the old master is asked whether it is one still.
const OLD_ANSWERS_WITHIN: Duration = Duration::from_millis(50);
/// What the connection to the target calls itself.
const NAME: &str = "pointsman-watch";

/// What the shard's task knows of the others.
pub(super) struct Others {
    peers: Arc<Peers>,
    heard: mpsc::Receiver<Heard>,
    allowance: Allowance,
    served: VecDeque<String>,
}

impl Others {
    pub fn new(peers: Arc<Peers>, heard: mpsc::Receiver<Heard>, limit: Duration) -> Others {
        Others {
            peers,
            heard,
            allowance: Allowance::full(limit, Instant::now()),
            served: VecDeque::new(),
        }
    }

    /// Whether this operation asks for a hold for the first time.
    fn is_new(&mut self, operation: &str) -> bool {
        if self.served.iter().any(|served| served == operation) {
            return false;
        }
        if self.served.len() == SERVED_MAX {
            self.served.pop_front();
        }
        self.served.push_back(operation.to_owned());
        true
    }

    /// Tells the driver, by way of the node that it was heard from and of the master: its own link
    /// to one of them may be down.
    fn acknowledge(&self, at: usize, old: Option<&str>, operation: &str, step: Step) {
        self.peers.acknowledge(at, operation, step);
        if let Some(old) = old.and_then(|old| self.peers.place_of(old))
            && old != at
        {
            self.peers.acknowledge(old, operation, step);
        }
    }
}

/// What another proxy says next; nothing ever, where there is no channel.
pub(super) async fn heard(others: &mut Option<Others>) -> Heard {
    if let Some(others) = others
        && let Some(heard) = others.heard.recv().await
    {
        return heard;
    }
    std::future::pending().await
}

/// A HOLD that came while an operation of ours ran, and when.
#[derive(Default)]
pub(super) struct Kept(Option<(Heard, Instant)>);

impl Kept {
    /// An order of ours that holds nobody yet makes way for one that does.
    pub fn hear(&mut self, heard: Heard, ours: &Operation) {
        let operation = &heard.message.operation;
        match &heard.message.saying {
            Saying::Hold { .. } if self.0.is_none() => {
                // Full means that it is being stopped already.
                let _ = ours.words.try_send(Word::Outrun(operation.clone()));
                self.0 = Some((heard, Instant::now()));
            }
            Saying::Release => {
                self.0
                    .take_if(|(hold, _)| hold.message.operation == *operation);
            }
            Saying::Hold { .. } | Saying::Route { .. } | Saying::Ack(_) => {}
        }
    }

    /// It, with what is left of its time.
    pub fn left(self) -> Option<Heard> {
        let (mut heard, at) = self.0?;
        let Saying::Hold { length, .. } = &mut heard.message.saying else {
            return None;
        };
        *length = length.checked_sub(at.elapsed())?;
        Some(heard)
    }
}

/// The connection to the target, and the lanes of every worker, on their way.
type Dialled = JoinHandle<Option<Connection>>;

/// What another proxy's words have led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Led {
    Nowhere,
    /// The route names another master.
    Elsewhere,
}

impl<G: Gates, R: Routes> Actor<G, R> {
    /// Another proxy has spoken, and no operation of ours has hands on gate or route.
    pub(super) async fn hear(&mut self, heard: Heard) -> Led {
        let Heard { at, message } = heard;
        let before = self.site.routes.current().1;
        match &message.saying {
            Saying::Hold { length, target } => {
                let Some(mut others) = self.others.take() else {
                    return Led::Nowhere;
                };
                if others.is_new(&message.operation) {
                    let length = *length;
                    self.stand_by(&mut others, at, &message, length, target)
                        .await;
                }
                self.others = Some(others);
            }
            // It was not heard in time that this one should hold; the nodes tell the rest.
            Saying::Route { .. } => self.watch.want(),
            Saying::Release | Saying::Ack(_) => {}
        }
        match self.site.routes.current().1 == before {
            true => Led::Nowhere,
            false => Led::Elsewhere,
        }
    }

    /// Holds with the driver of an operation until it says that this is over.
    async fn stand_by(
        &mut self,
        others: &mut Others,
        at: usize,
        hold: &Message,
        length: Duration,
        target: &str,
    ) {
        let site = self.site.clone();
        let (limit, begun) = (site.switchover().pause_timeout, Instant::now());
        let Some(granted) = others.allowance.grant(length, limit, begun) else {
            // Anybody who may publish can say it as often as he likes.
            tracing::debug!(shard = %site.shard, operation = hold.operation, proxy = hold.proxy,
                "ignored another proxy's switchover: too much was held for others lately");
            return;
        };
        let until = begun + granted;
        let old = site.routes.current().1;
        let mut part = Part::of(hold);
        let mut dialled = self.dial(target, until);
        *self.desk.gate() = "holding";
        let mut draining = pin!(site.gates.hold(granted));
        let end = loop {
            // Cancel-safe: a message and an order are taken whole or not at all, and what drains
            // stays where it is.
            tokio::select! {
                biased;
                drained = &mut draining, if part.is_draining() => match drained {
                    Ok(()) => {
                        part.drained();
                        others.acknowledge(at, old.as_deref(), &hold.operation, Step::Hold);
                    }
                    Err(_) => break End::Stuck,
                },
                Some(heard) = others.heard.recv() => match part.hear(&heard.message) {
                    Then::GoOn => {}
                    Then::Confirm(target) => {
                        let confirmed =
                            self.confirm(others, &mut dialled, &target, old.as_deref(), until);
                        if confirmed.await {
                            part.routed();
                            others.acknowledge(heard.at, old.as_deref(), &hold.operation, Step::Route);
                        }
                    }
                    Then::End if part.is_routed() => break End::Routed,
                    Then::End => break End::Released,
                },
                Some(order) = self.orders.recv() => self.refuse(&order, &hold.operation),
                () = sleep_until(until) => break End::Expired,
                () = self.ended.cancelled() => break End::Expired,
            }
        };
        self.let_go(&part).await;
        others.allowance.spend(begun.elapsed(), Instant::now());
        site.metrics.stood_by(end.as_str());
        tracing::info!(shard = %site.shard, operation = part.operation, proxy = hold.proxy,
            end = end.as_str(), held_ms = begun.elapsed().as_secs_f64() * 1e3,
            "held with another proxy's switchover");
    }

    /// Reaches out for the node that will be the master, if all goes well.
    fn dial(&self, target: &str, until: Instant) -> Option<Dialled> {
        let target = self.node_called(target)?;
        let site = self.site.clone();
        Some(tokio::spawn(async move {
            let within = until.saturating_duration_since(Instant::now());
            let (connection, _) = tokio::join!(
                Connection::open(&target, &site.credentials, NAME, within),
                // What is not warm by then is dialled when it is needed.
                site.gates.prepare(&target, within),
            );
            connection.ok()
        }))
    }

    /// One of our nodes, by the name that another proxy has for it.
    fn node_called(&self, name: &str) -> Option<NodeName> {
        let (host, port) = split(name)?;
        let port = port.parse().ok()?;
        let snapshot = self.watch.snapshot();
        let mut nodes = snapshot.nodes.iter();
        let found = nodes.find(|node| node.identity.is_called(host, port));
        found.map(|node| node.name().clone())
    }

    /// Whether the target is the master now; then the route names it, and those who receive
    /// messages have them from there.
    async fn confirm(
        &mut self,
        others: &Others,
        dialled: &mut Option<Dialled>,
        target: &str,
        old: Option<&str>,
        until: Instant,
    ) -> bool {
        let Some(target) = self.node_called(target) else {
            tracing::debug!(shard = %self.site.shard, target, "another proxy names no node of ours");
            return false;
        };
        if old == Some(&*target) {
            return true;
        }
        let dialled = dialled.take();
        let asked = async {
            tokio::join!(
                self.facts_of(&target, dialled, until),
                still_master(others, old)
            )
        };
        let Ok((Some(facts), false)) = timeout_at(until, asked).await else {
            self.watch.want();
            return false;
        };
        if !facts.role.is_master() || !self.known.goes_on_in(&target, &facts) {
            tracing::warn!(shard = %self.site.shard, %target,
                "another proxy says that this is the master, and it is not: ignored");
            return false;
        }
        self.site.routes.suit(facts.engine);
        let replicas = self.site.replicas_of(Some(&target));
        let epoch = self.site.routes.publish(Some(&target), &replicas);
        self.known = Known::master(&target);
        tracing::info!(shard = %self.site.shard, master = %target, epoch, "route published");
        let moved = timeout_at(until, self.site.gates.move_receivers()).await;
        moved.is_ok()
    }

    async fn facts_of(
        &self,
        target: &NodeName,
        dialled: Option<Dialled>,
        until: Instant,
    ) -> Option<NodeFacts> {
        let at_hand = match dialled {
            Some(dialled) => dialled.await.ok().flatten(),
            None => None,
        };
        let within = until.saturating_duration_since(Instant::now());
        let mut connection = match at_hand.filter(|known| known.node() == target) {
            Some(connection) => connection,
            None => Connection::open(target, &self.site.credentials, NAME, within)
                .await
                .ok()?,
        };
        NodeFacts::read(&mut connection, within).await.ok()
    }

    /// The end of a hold for another proxy: writes go on, to whomever the route names.
    async fn let_go(&mut self, part: &Part) {
        let (opening, word) = match self.site.routes.current().1 {
            Some(_) => (Opening::Open, "open"),
            None => (Opening::Shut, "shut"),
        };
        self.site.gates.release(opening).await;
        *self.desk.gate() = word;
        if part.is_routed() {
            // What the nodes said before is history.
            self.believed_from = self.watch.unbegun_round();
            self.down = None;
            self.watch.want_closely();
        } else {
            self.watch.want();
        }
        if let Some(sentinels) = &self.site.sentinels {
            sentinels.want();
        }
    }

    /// An order that came while another proxy changes the master.
    fn refuse(&self, order: &Order, other: &str) {
        let why = Reason::Outrun(other.to_owned());
        order.operation.progress.refused(why.to_string());
        self.site.metrics.ended("refused");
        self.desk.running.send_replace(None);
    }
}

/// Whether the old master says that it is one still; silence is no such word.
async fn still_master(others: &Others, old: Option<&str>) -> bool {
    let role = match old {
        // One that has been fenced answers at once; one that is frozen must not keep us from
        // following.
        Some(old) => timeout(OLD_ANSWERS_WITHIN, others.peers.role_of(old))
            .await
            .ok(),
        None => None,
    };
    matches!(role.flatten(), Some(RoleReply::Master { .. }))
}
