//! A session brings to the master what its next command asks for; a worker brings to a target what
//! there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::store::{Digest, Flush, Load};
use super::{Concern, Scripts, concern};
use crate::client::links::NodeLinks;
use crate::client::session::{Session, Waited};
use crate::client::state::Closed;
use crate::resp::scan::{ReplyKind, Request, RequestLimits, RequestScanner, args, write_request};
use crate::resp::sha1::from_hex;
use crate::shard::gate::Gate;
use crate::upstream::connection::Connection;
use crate::upstream::identity::{Credentials, Identity};

/// A queue was judged when it came.
const QUEUE_LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: usize::MAX,
    elements_max: u64::MAX >> 1,
    bulk_bytes_max: u64::MAX >> 1,
};
const FLUSH: &[u8] = b"*2\r\n$6\r\nSCRIPT\r\n$5\r\nFLUSH\r\n";

impl Scripts {
    /// Makes a node that may be the next master forget what was flushed and know what is known. Its
    /// refusal is no obstacle: what is missing is brought when it is asked for.
    pub async fn prepare(&self, target: &NodeLinks, epoch: u64, deadline: Duration) {
        let mut loader = Loader::new(target, deadline);
        if let Some(flush) = self.store.unseen_flush(&target.node) {
            loader.flush(&flush).await;
        }
        for load in self.store.not_ready(&target.node, epoch) {
            if loader.load(&load).await.is_ok() {
                self.store.is_ready(&load.digest, &target.node, epoch);
            }
        }
        loader.give_back();
    }
}

impl Session {
    /// Whether the request at the front of `rest`, which the scanner has just judged, asks for
    /// scripts that the master does not know because it was not master when they came.
    #[inline]
    pub(in crate::client) fn wants_scripts(&self, rest: &[u8]) -> bool {
        let name = self.scanner.arg(rest, 0).unwrap_or_default();
        match concern(name, |index| self.scanner.arg(rest, index)) {
            None => false,
            Some(concern) => self.are_wanted(concern, rest),
        }
    }

    fn are_wanted(&self, concern: Concern<'_>, request: &[u8]) -> bool {
        let Some((epoch, links)) = self.seat.master() else {
            return false;
        };
        let scripts = &self.seat.scripts;
        if scripts.store.unseen_flush(&links.node).is_some() {
            return true;
        }
        match concern {
            Concern::Brings(_) => false,
            Concern::Runs(digest) => scripts.is_missing(&digest, &links.node, epoch),
            Concern::Lists => {
                listed(request).any(|digest| scripts.is_missing(&digest, &links.node, epoch))
            }
        }
    }

    /// Brings to the master what the requests of a transaction ask for, which will be sent again.
    pub(in crate::client) async fn bring_for_queue(&mut self, queue: &[u8]) -> Result<(), Closed> {
        let mut rest = Bytes::copy_from_slice(queue);
        let mut scanner = RequestScanner::default();
        while let Ok(Request::Complete { len, .. }) = scanner.scan(&rest, &QUEUE_LIMITS) {
            let request = rest.split_to(len);
            let words: Vec<&[u8]> = args(&request).take(3).collect();
            let name = words.first().copied().unwrap_or_default();
            let asks = concern(name, |index| words.get(index).copied());
            if asks.is_some_and(|concern| self.are_wanted(concern, &request)) {
                self.bring_scripts(&request).await?;
            }
        }
        Ok(())
    }

    /// Brings to the master what `request` asks for; the text to refuse it with when no master can
    /// be reached. Whatever comes of it, the same is not tried again in this epoch: the command
    /// then has the server's own answer.
    pub(in crate::client) async fn bring_scripts(
        &mut self,
        request: &[u8],
    ) -> Result<Option<String>, Closed> {
        let _admitted = match self.admit_load().await? {
            Admission::Free => None,
            Admission::Granted(admitted) => Some(admitted),
            Admission::Denied => return Ok(Some(self.budget_spent_text())),
        };
        let (epoch, links, own) = match self.connect_own().await? {
            Ok(own) => own,
            Err(text) => return Ok(Some(text)),
        };
        let mut loader = Loader::new(&links, self.seat.limits.call_deadline());
        let own_credentials = self.identity.credentials.as_deref().cloned();
        links.pool.give_back(own);
        let scripts = &self.seat.scripts;
        if let Some(flush) = scripts.store.unseen_flush(&links.node) {
            loader.flush(&flush).await;
        }
        for digest in listed(request) {
            if !scripts.is_missing(&digest, &links.node, epoch) {
                continue;
            }
            if let Some(mut load) = scripts.store.load(&digest) {
                load.brought_by.push(own_credentials.clone());
                match loader.load(&load).await {
                    Ok(()) => scripts.store.is_at(&digest, epoch),
                    Err(said) => {
                        let said = String::from_utf8_lossy(&said);
                        tracing::warn!(node = %links.node, said = said.trim_end(),
                            "a script that clients have sent could not be brought to the master");
                    }
                }
            }
            scripts.was_asked(digest, epoch);
        }
        loader.give_back();
        Ok(None)
    }
}

impl Session {
    /// Kvrocks replicates what is loaded: there it is a write, and waits at the gate as one.
    async fn admit_load(&mut self) -> Result<Admission, Closed> {
        if !self.seat.reads_scripts_alone() {
            return Ok(Admission::Free);
        }
        if !self.seat.gate.is_open() && self.wait_at_gate(None).await? == Waited::BudgetSpent {
            return Ok(Admission::Denied);
        }
        let gate = Rc::clone(&self.seat.gate);
        if !gate.is_open() {
            return Ok(Admission::Denied);
        }
        gate.admit_writes(1);
        Ok(Admission::Granted(Admitted { gate }))
    }
}

/// Whether a script may be loaded now.
enum Admission {
    /// Loading is no write here.
    Free,
    Granted(Admitted),
    /// The gate stayed closed for longer than a command waits.
    Denied,
}

/// A write that is counted at the gate until this is dropped.
struct Admitted {
    gate: Rc<Gate>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gate.write_ended(1);
    }
}

/// Every digest among a request's arguments. One that is there for another purpose does no harm.
fn listed(request: &[u8]) -> impl Iterator<Item = Digest> {
    args(request).skip(1).filter_map(from_hex)
}

/// Connections to one node, by the credentials they need.
struct Loader<'l> {
    links: &'l NodeLinks,
    deadline: Duration,
    /// `None` where the node accepts no such connection.
    connections: HashMap<Option<Credentials>, Option<Connection>>,
}

impl<'l> Loader<'l> {
    fn new(links: &'l NodeLinks, deadline: Duration) -> Self {
        Self {
            links,
            deadline,
            connections: HashMap::new(),
        }
    }

    /// Loads a script with the first credentials with which the node takes it; otherwise what it
    /// says last.
    async fn load(&mut self, load: &Load) -> Result<(), Bytes> {
        let mut request = BytesMut::new();
        write_request(&mut request, &[&b"SCRIPT"[..], b"LOAD", &load.body]);
        let mut said = Bytes::from_static(b"no connection");
        for by in &load.brought_by {
            match self.call(by, &request).await {
                Some((_, ReplyKind::Ordinary)) => return Ok(()),
                Some((reply, _)) => said = reply,
                None => {}
            }
        }
        Err(said)
    }

    /// Kvrocks refuses this on a replica, and replicates the flush itself.
    async fn flush(&mut self, flush: &Flush) {
        let flushed = async {
            if self.call(&flush.by, FLUSH).await.is_none() {
                tracing::warn!(node = %self.links.node, "flushed scripts may still be known there");
            }
        };
        flush.seen.get_or_init(|| flushed).await;
    }

    async fn call(
        &mut self,
        by: &Option<Credentials>,
        request: &[u8],
    ) -> Option<(Bytes, ReplyKind)> {
        let connection = match self.connections.entry(by.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let identity = Identity {
                    credentials: by.clone().map(Rc::new),
                    ..Identity::default()
                };
                let (node, pool) = (&self.links.node, &self.links.pool);
                let taken = pool.take(node, &identity, self.deadline).await;
                vacant.insert(taken.ok())
            }
        };
        let answer = connection.as_mut()?.call(request, self.deadline).await;
        match answer {
            Ok(answer) => Some(answer),
            Err(_) => {
                *connection = None;
                None
            }
        }
    }

    fn give_back(self) {
        for connection in self.connections.into_values().flatten() {
            self.links.pool.give_back(connection);
        }
    }
}
