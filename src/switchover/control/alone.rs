//! A shard whose master is out of reach, and nobody but this proxy to replace it.
//!
//! Where the config says so (`promote_on_failure`), the most advanced replica is promoted when the
//! master has been out of reach for `down_after_ms`. It is an operation like any other: journal,
//! claim, report; behind it the old master is waited for, and fenced when it comes back as one.

use std::net::{IpAddr, UdpSocket};

use tokio::time::Instant;

use super::Order;
use super::actor::Actor;
use super::evidence::Known;
use super::id::operation_id;
use super::successor::{Successor, successor};
use crate::switchover::exec::measure::unix_ms;
use crate::switchover::exec::{Gates, Routes, Task};
use crate::switchover::journal::Begin;
use crate::switchover::orders::SinkAddress;
use crate::switchover::plan::{Facts, Terms};
use crate::switchover::preflight::dialect;
use crate::topology::engine::{Engine, Version};
use crate::topology::watch::Observed;

impl<G: Gates, R: Routes> Actor<G, R> {
    pub(super) fn down_for_too_long(&self) -> bool {
        let after = self.site.promote_after;
        let down = self.down.zip(after);
        down.is_some_and(|(since, after)| since.elapsed() >= after)
    }

    pub(super) fn successor(&self) -> Option<Successor> {
        successor(&self.watch.snapshot(), &self.known, Instant::now())
    }

    /// The order to replace the master, when it is due. Nobody is master from then on.
    pub(super) async fn take_over(&mut self) -> Option<Order> {
        if !self.down_for_too_long() {
            return None;
        }
        let found = self.successor()?;
        let id = operation_id();
        let begin = self.begin(&id, &found)?;
        // The next try, should this one fail, is not made before as much time has gone by.
        self.down = None;
        let task = Task::TakeOver(Box::new(begin));
        let (from, to) = task.nodes();
        let order = Order::new(id, &self.site.shard, task);
        if self.desk.take_up(&order.operation).is_err() {
            // An order came in the same instant; it will find out who is there.
            return None;
        }
        self.history.remember(order.operation.clone());
        tracing::warn!(shard = %self.site.shard, operation = order.operation.id, %from, %to,
            missing = found.missing,
            "the master is out of reach; a replica takes its place. What had not been replicated is \
             lost: at least as much as is missing, in units of offset");
        self.shut().await;
        Some(order)
    }

    /// What preflight would have found, from what the nodes were last seen to be.
    fn begin(&self, operation: &str, found: &Successor) -> Option<Begin> {
        let snapshot = self.watch.snapshot();
        let from = self.known.master.clone()?;
        let (old, target) = (snapshot.node(&from)?, snapshot.node(&found.node)?);
        let facts = target.facts.as_ref()?;
        let others = self.site.nodes.iter();
        let others = others.filter(|node| **node != from && **node != found.node);
        let sink = sink(operation, facts.engine, old);
        let has_replicaof = facts.engine != Engine::Kvrocks && facts.version >= Version(5, 0, 0);
        Some(Begin {
            operation: operation.to_owned(),
            shard: self.site.shard.clone(),
            from: from.to_string(),
            to: found.node.to_string(),
            others: others.map(ToString::to_string).collect(),
            engine: facts.engine.to_string(),
            role_command: if has_replicaof {
                "REPLICAOF"
            } else {
                "SLAVEOF"
            }
            .to_owned(),
            sink_host: sink.host,
            sink_port: sink.port,
            replica_read_only: String::new(),
            facts: Facts {
                dialect: dialect(facts.engine, facts.version),
                knows_pause: false,
                lag: found.missing,
                lag_small: 0,
                old_is_down: true,
            },
            terms: Terms::default(),
            started_at_ms: unix_ms(),
            old_life: old.facts.as_ref().map(|facts| facts.life.clone()),
            target_offset: found.offset,
            sentinel_terms: Vec::new(),
        })
    }
}

/// Where the old master is told to replicate from, should it come back. For Kvrocks a listener at
/// our end of a connection to it, with a port of the kernel's choice.
fn sink(operation: &str, engine: Engine, old: &Observed) -> SinkAddress {
    let closed = SinkAddress::closed_port(operation);
    if engine != Engine::Kvrocks {
        return closed;
    }
    match old.identity.ip().and_then(local_address_towards) {
        Some(ip) => SinkAddress {
            host: ip.to_string(),
            port: 0,
        },
        None => closed,
    }
}

/// Sends nothing: connecting a datagram socket only chooses the way.
fn local_address_towards(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 1)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What the journal of an interrupted operation knows of the nodes: everybody was to hold what the
/// target held when it was looked at. An empty node that says that it is master is none of them.
pub(super) fn before_crash(begin: &Begin) -> Known {
    let held = |node: &String| (node.as_str().into(), begin.target_offset);
    Known {
        offset: Some(begin.target_offset),
        replicas: begin.others.iter().chain([&begin.to]).map(held).collect(),
        ..Known::master(&begin.from)
    }
}
