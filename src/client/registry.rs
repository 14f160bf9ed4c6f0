//! The live sessions of one shard over all workers: for `CLIENT LIST`, and to reach a session of
//! another worker.
//!
//! **Invariant:** written when a session begins, ends, or changes its name or identity; never on
//! the path of an ordinary request. Nothing is done to a session here: its worker gets an
//! [`Order`], because a session belongs to its worker's thread.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::mpsc;

use super::presence::{Presence, Upstream};

/// Orders that a worker has not taken up yet; past it, what they ask for does not happen.
pub const ORDERS_MAX: usize = 1024;

/// What a worker is asked to do to its sessions.
#[derive(Debug)]
pub enum Order {
    /// End them, as the server ends a client.
    Close(HashSet<u64>),
    /// Let them look at their [`Presence`] again.
    Wake(u64),
}

/// What is known of one session.
#[derive(Debug, Clone)]
pub struct Entry {
    pub presence: Arc<Presence>,
    /// Where its worker takes orders.
    pub door: mpsc::Sender<Order>,
    pub addr: SocketAddr,
    pub laddr: SocketAddr,
    pub fd: RawFd,
    pub about: About,
}

/// What a session says of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub name: Bytes,
    pub user: Bytes,
    pub lib_name: Bytes,
    pub lib_ver: Bytes,
    pub db: u32,
    pub resp: u8,
}

/// Sessions by `CLIENT ID`; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    sessions: Arc<DashMap<u64, Entry>>,
}

impl Registry {
    pub fn insert(&self, entry: Entry) {
        self.sessions.insert(entry.presence.id, entry);
    }

    pub fn remove(&self, id: u64) {
        self.sessions.remove(&id);
    }

    /// Changes an entry in place.
    pub fn update(&self, id: u64, about: About) {
        if let Some(mut entry) = self.sessions.get_mut(&id) {
            entry.about = about;
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn get(&self, id: u64) -> Option<Entry> {
        self.sessions.get(&id).map(|entry| entry.clone())
    }

    /// All sessions, oldest first.
    pub fn all(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.sessions.iter().map(|entry| entry.clone()).collect();
        all.sort_unstable_by_key(|entry| entry.presence.id);
        all
    }

    /// The session whose connection of its own is this one.
    pub fn of_upstream(&self, upstream: Upstream) -> Option<u64> {
        self.sessions
            .iter()
            .find(|entry| entry.presence.upstream() == Some(upstream))
            .map(|entry| *entry.key())
    }
}

/// Ends these sessions; says how many will.
pub fn close(entries: &[Entry]) -> usize {
    let mut by_worker: Vec<(mpsc::Sender<Order>, HashSet<u64>)> = Vec::new();
    for entry in entries {
        let known = by_worker
            .iter_mut()
            .find(|(door, _)| door.same_channel(&entry.door));
        match known {
            Some((_, ids)) => {
                ids.insert(entry.presence.id);
            }
            None => by_worker.push((entry.door.clone(), HashSet::from([entry.presence.id]))),
        }
    }
    by_worker
        .into_iter()
        .map(|(door, ids)| {
            let count = ids.len();
            door.try_send(Order::Close(ids)).map_or(0, |()| count)
        })
        .sum()
}

/// Sessions by our address of their connection to the node of this epoch.
pub fn by_upstream(entries: &[Entry], epoch: u64) -> HashMap<String, &Entry> {
    let own = entries.iter().filter_map(|entry| {
        let upstream = entry.presence.upstream()?;
        (upstream.epoch == epoch).then(|| (upstream.addr.to_string(), entry))
    });
    own.collect()
}
