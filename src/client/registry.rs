//! The live sessions of the whole proxy, for `CLIENT LIST` and the admin side.
//!
//! **Invariant:** written when a session begins, ends, or changes its name or identity; never on
//! the path of an ordinary request.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;

/// What is known of one session.
#[derive(Debug, Clone)]
pub struct Entry {
    pub addr: SocketAddr,
    pub laddr: SocketAddr,
    pub since: Instant,
    pub name: String,
    pub user: String,
    pub db: u32,
    pub resp: u8,
}

/// Sessions by `CLIENT ID`; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    sessions: Arc<DashMap<u64, Entry>>,
}

impl Registry {
    pub fn insert(&self, id: u64, entry: Entry) {
        self.sessions.insert(id, entry);
    }

    pub fn remove(&self, id: u64) {
        self.sessions.remove(&id);
    }

    /// Changes an entry in place.
    pub fn update(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.sessions.get_mut(&id) {
            change(&mut entry);
        }
    }

    /// One session as `CLIENT INFO` shows it.
    pub fn line(&self, id: u64) -> String {
        self.sessions
            .get(&id)
            .map(|entry| line(id, &entry))
            .unwrap_or_default()
    }

    /// All sessions as `CLIENT LIST` shows them, oldest first.
    pub fn list(&self) -> String {
        let mut lines: Vec<(u64, String)> = self
            .sessions
            .iter()
            .map(|entry| (*entry.key(), line(*entry.key(), &entry)))
            .collect();
        lines.sort_unstable_by_key(|(id, _)| *id);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

fn line(id: u64, entry: &Entry) -> String {
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        line,
        "id={id} addr={} laddr={} name={} age={} db={} resp={} user={}",
        entry.addr,
        entry.laddr,
        entry.name,
        entry.since.elapsed().as_secs(),
        entry.db,
        entry.resp,
        entry.user,
    );
    line
}
