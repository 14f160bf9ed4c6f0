//! What the other sessions of the proxy may see of a session without asking it.
//!
//! A session writes it where its state changes; `CLIENT LIST`, `KILL`, `UNBLOCK` and
//! `TRACKING REDIRECT` of other sessions, on whatever worker, read it. What the server alone knows
//! of a session that has a connection of its own there (flags, subscriptions, buffers) is asked of
//! the server, where the session is found by our address of that connection: asking every
//! connection for its `CLIENT ID` would show in `MONITOR`, in `ACL LOG` and in the statistics.
//!
//! **Invariant:** on the path of an ordinary request there are plain stores only, one set for a
//! whole run of requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Bytes of a command's name that are shown.
const NAME_BYTES_MAX: usize = 24;

/// A connection of a session's own, as the server sees it in `CLIENT LIST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    /// The route that it belongs to.
    pub epoch: u64,
    /// Our end of it.
    pub addr: SocketAddr,
}

/// One session, seen from outside.
#[derive(Debug)]
pub struct Presence {
    pub id: u64,
    since: Instant,
    upstream: Mutex<Option<Upstream>>,
    /// Somebody looks the present connection up on the server, to do something to it.
    claimed: AtomicBool,
    /// Another session needs this one to have a connection of its own, as long as it lives.
    wanted: AtomicBool,
    blocked: AtomicBool,
    subscribed: AtomicBool,
    /// Its connection is a tunnel: to the server it is a replica.
    replicates: AtomicBool,
    active: AtomicBool,
    idle_since_s: AtomicU64,
    command: [AtomicU64; NAME_BYTES_MAX / 8],
}

impl Presence {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            since: Instant::now(),
            upstream: Mutex::new(None),
            claimed: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            subscribed: AtomicBool::new(false),
            replicates: AtomicBool::new(false),
            active: AtomicBool::new(false),
            idle_since_s: AtomicU64::new(0),
            command: Default::default(),
        }
    }

    pub fn age_s(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// Seconds without requests, as coarse as [`Presence::tick`] is called.
    pub fn idle_s(&self) -> u64 {
        self.age_s().saturating_sub(self.idle_since_s.load(Relaxed))
    }

    /// Called now and then: requests since the last call count as if they came just now.
    pub fn tick(&self) {
        if self.active.swap(false, Relaxed) {
            self.idle_since_s.store(self.age_s(), Relaxed);
        }
    }

    pub fn upstream(&self) -> Option<Upstream> {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_upstream(&self, upstream: Option<Upstream>) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// The session's connection, which from now on no other session will get: what is done to it
    /// on the server cannot hit anybody else.
    pub fn claim(&self) -> Option<Upstream> {
        self.claimed.store(true, Relaxed);
        // The lock orders the two: who gives the connection up looks at the claim after it.
        self.upstream()
    }

    /// Whether the connection that is given up just now has been claimed.
    pub(super) fn was_claimed(&self) -> bool {
        self.claimed.swap(false, Relaxed)
    }

    pub fn want_upstream(&self) {
        self.wanted.store(true, Relaxed);
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    pub(super) fn blocks(&self, blocked: bool) {
        self.blocked.store(blocked, Relaxed);
    }

    pub fn is_replica(&self) -> bool {
        self.replicates.load(Relaxed)
    }

    pub(super) fn replicates(&self, replicates: bool) {
        self.replicates.store(replicates, Relaxed);
    }

    pub fn is_subscribed(&self) -> bool {
        self.subscribed.load(Relaxed)
    }

    pub(super) fn subscribes(&self, subscribed: bool) {
        self.subscribed.store(subscribed, Relaxed);
    }

    /// Requests have been sent; the last of them has this name.
    #[inline]
    pub(super) fn ran(&self, name: &[u8]) {
        self.active.store(true, Relaxed);
        let mut rest = name;
        for slot in &self.command {
            let (part, left) = rest.split_at(rest.len().min(8));
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(part) {
                *to = *from;
            }
            slot.store(u64::from_le_bytes(word), Relaxed);
            rest = left;
        }
    }

    /// The name of the last command, as the server would show it.
    pub fn command(&self) -> String {
        let words = self.command.iter().map(|word| word.load(Relaxed));
        let bytes: Vec<u8> = words
            .flat_map(u64::to_le_bytes)
            .take_while(|byte| *byte != 0)
            .collect();
        if bytes.is_empty() {
            return "NULL".to_owned();
        }
        String::from_utf8_lossy(&bytes).to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_command_is_shown_as_the_server_shows_it() {
        let presence = Presence::new(1);
        assert_eq!(presence.command(), "NULL");
        presence.ran(b"GEORADIUSBYMEMBER_RO");
        assert_eq!(presence.command(), "georadiusbymember_ro");
        presence.ran(b"GET");
        assert_eq!(presence.command(), "get");
    }

    #[test]
    fn a_claim_is_seen_once_by_whoever_gives_the_connection_up() {
        let presence = Presence::new(1);
        assert!(!presence.was_claimed());
        assert_eq!(presence.claim(), None);
        assert!(presence.was_claimed());
        assert!(!presence.was_claimed());
    }
}
