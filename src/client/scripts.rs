//! Scripts that clients have sent, so that a new master knows those that the old one knew.
//!
//! Servers do not replicate scripts (Redis 7 never, Kvrocks not those known by `EVAL` only). The
//! proxy loads the ones it has seen on the target before the hold ([`super::seat::Seat::prepare`]).
//! What that misses is loaded when it is asked for: a command that names a script (`EVALSHA`,
//! `SCRIPT EXISTS`) which was brought to an earlier master and not to this one is sent behind a
//! `SCRIPT LOAD`. No reply has to be looked at for that, so it is the same on a lane, on a
//! connection of the session's own, and for a command that is queued in a transaction.
//!
//! `NOSCRIPT` then is the server's true answer: the script was never sent through this proxy,
//! was flushed, or the proxy was restarted since.
//!
//! * [`store`]: what the workers of a shard remember together.
//! * [`bring`]: a session brings scripts to the master.
//!
//! **Invariants:** a script is loaded with the credentials of those who brought it, or with those
//! of the session that runs it, never with anybody else's: whoever may run scripts but not load
//! them cannot have the proxy do it. What was flushed comes back on no other master.
//!
//! # Trade-offs
//! A script is recognised by its length and sixteen samples and then compared in full: hashing all
//! of it would cost more than sending it. Two scripts that agree in the samples displace one
//! another here, not in the store.

mod bring;
pub mod store;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use self::store::{Digest, ScriptStore};
use crate::resp::sha1::from_hex;
use crate::upstream::identity::Credentials;

/// Scripts and digests that a worker recognises without asking the store.
const RECOGNISED_MAX: usize = 4096;
const SAMPLES: usize = 16;

type Key = (usize, [u8; SAMPLES]);

/// One worker's view of a shard's scripts.
#[derive(Debug, Default)]
pub struct Scripts {
    store: Arc<ScriptStore>,
    /// Scripts that the store has, each with the last credentials it was brought with here.
    known: RefCell<HashMap<Key, (Bytes, Option<Credentials>)>>,
    /// Digests of which the store was asked in this epoch.
    asked: RefCell<HashSet<Digest>>,
    /// The epoch for which that holds.
    epoch: Cell<u64>,
    /// The number of flushes for which all of the above holds.
    flushes: Cell<u64>,
}

/// What a command has to do with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern<'b> {
    /// It brings one along.
    Brings(&'b [u8]),
    /// It runs the one with this digest.
    Runs(Digest),
    /// It asks for the presence of some.
    Lists,
}

impl Scripts {
    pub fn new(store: Arc<ScriptStore>) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    pub fn store(&self) -> &ScriptStore {
        &self.store
    }

    /// Remembers a script that is on its way to the master of `epoch`.
    pub fn note(&self, body: &[u8], by: Option<&Credentials>, epoch: u64) {
        self.forget_flushed();
        let key = key(body);
        let mut known = self.known.borrow_mut();
        if let Some((same, last)) = known.get(&key)
            && same == body
            && last.as_ref() == by
        {
            return;
        }
        let body = self.store.note(body, by, epoch);
        if known.len() >= RECOGNISED_MAX {
            known.clear();
        }
        known.insert(key, (body, by.cloned()));
    }

    /// Whether the script has to be brought to the master of `epoch` before it is asked for there.
    pub fn is_missing(&self, digest: &Digest, master: &str, epoch: u64) -> bool {
        self.keep_valid(epoch);
        if self.asked.borrow().contains(digest) {
            return false;
        }
        let missing = self.store.is_missing(digest, master, epoch);
        if !missing {
            self.was_asked(*digest, epoch);
        }
        missing
    }

    /// What was asked of an earlier master says nothing of this one.
    fn was_asked(&self, digest: Digest, epoch: u64) {
        if self.epoch.get() != epoch {
            return;
        }
        let mut asked = self.asked.borrow_mut();
        if asked.len() >= RECOGNISED_MAX {
            asked.clear();
        }
        asked.insert(digest);
    }

    fn keep_valid(&self, epoch: u64) {
        self.forget_flushed();
        if self.epoch.replace(epoch) != epoch {
            self.asked.borrow_mut().clear();
        }
    }

    fn forget_flushed(&self) {
        let flushes = self.store.flushes();
        if self.flushes.replace(flushes) != flushes {
            self.known.borrow_mut().clear();
            self.asked.borrow_mut().clear();
        }
    }
}

fn key(body: &[u8]) -> Key {
    let mut samples = [0; SAMPLES];
    for (index, sample) in samples.iter_mut().enumerate() {
        *sample = body
            .get(index * body.len() / SAMPLES)
            .copied()
            .unwrap_or_default();
    }
    (body.len(), samples)
}

/// What a command has to do with scripts, by its name and first arguments.
#[inline]
pub fn concern<'b>(name: &[u8], arg: impl Fn(usize) -> Option<&'b [u8]>) -> Option<Concern<'b>> {
    match name.first()? {
        b'e' | b'E' if is(name, b"EVAL") || is(name, b"EVAL_RO") => arg(1).map(Concern::Brings),
        b'e' | b'E' if is(name, b"EVALSHA") || is(name, b"EVALSHA_RO") => {
            from_hex(arg(1)?).map(Concern::Runs)
        }
        b's' | b'S' if is(name, b"SCRIPT") && is(arg(1)?, b"LOAD") => arg(2).map(Concern::Brings),
        b's' | b'S' if is(name, b"SCRIPT") && is(arg(1)?, b"EXISTS") => Some(Concern::Lists),
        _ => None,
    }
}

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::sha1::sha1;

    #[test]
    fn only_commands_about_scripts_concern_them() {
        let check = |words: &[&'static [u8]], expected: Option<Concern>| {
            let found = concern(words[0], |index| words.get(index).copied());
            assert_eq!(found, expected);
        };
        check(
            &[b"eval", b"return 1", b"0"],
            Some(Concern::Brings(b"return 1")),
        );
        check(
            &[b"Script", b"load", b"return 2"],
            Some(Concern::Brings(b"return 2")),
        );
        check(&[b"script", b"exists", b"x"], Some(Concern::Lists));
        check(&[b"evalsha", b"x"], None);
        check(
            &[b"evalsha_ro", b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"],
            Some(Concern::Runs(sha1(b"return 1"))),
        );
        check(&[b"set", b"load", b"x"], None);
        check(&[b"script"], None);
    }

    #[test]
    fn a_script_is_missing_on_the_next_master_until_it_was_brought_there() {
        let scripts = Scripts::default();
        let digest = sha1(b"return 1");
        assert!(!scripts.is_missing(&digest, "a:1", 1), "never seen");
        scripts.note(b"return 1", None, 1);
        assert!(!scripts.is_missing(&digest, "a:1", 1));
        assert!(scripts.is_missing(&digest, "b:1", 2));
        scripts.note(b"return 1", None, 2);
        assert!(
            scripts.is_missing(&digest, "b:1", 2),
            "an EVAL that may be refused proves nothing"
        );
        scripts.store().is_at(&digest, 2);
        assert!(!scripts.is_missing(&digest, "b:1", 2));
        assert!(
            scripts.is_missing(&digest, "a:1", 3),
            "it may have restarted"
        );
    }

    #[test]
    fn what_was_asked_of_one_master_is_asked_of_the_next_also_when_the_answer_came_late() {
        let scripts = Scripts::default();
        let digest = sha1(b"return 1");
        scripts.note(b"return 1", None, 1);
        assert!(scripts.is_missing(&digest, "b:1", 2));
        assert!(scripts.is_missing(&digest, "c:1", 3));
        scripts.was_asked(digest, 2);
        assert!(scripts.is_missing(&digest, "c:1", 3));
        scripts.was_asked(digest, 3);
        assert!(!scripts.is_missing(&digest, "c:1", 3));
    }

    #[test]
    fn what_was_flushed_is_forgotten_by_every_worker() {
        let store = Arc::new(ScriptStore::default());
        let [one, other] = [Scripts::new(Arc::clone(&store)), Scripts::new(store)];
        one.note(b"return 1", None, 1);
        other.store().flushed("a:1", None);
        assert!(!one.is_missing(&sha1(b"return 1"), "b:1", 2));
        one.note(b"return 1", None, 2);
        assert!(one.is_missing(&sha1(b"return 1"), "a:1", 3));
    }
}
