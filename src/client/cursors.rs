//! Which node a cursor of `SCAN`, `HSCAN`, `SSCAN` or `ZSCAN` came from.
//!
//! A cursor means something to the process that gave it out and to no other: Redis hashes keys with
//! a seed of its own in each. An iteration that was begun on a former master is therefore finished
//! there, while that node follows; a cursor of one master given to another would skip elements
//! without a word. An iteration may be continued on another connection, so this is no state of a
//! session: every cursor that is given out is remembered for the whole shard.
//!
//! **Invariant:** bounded; the cursors that were given out longest ago are forgotten first. One
//! that is not known goes to the master, as without the proxy.
//!
//! # Trade-offs
//! Two masters may give out the same number for iterations of the same thing. The session that
//! comes with it knows which it was given; another one cannot, and begins anew: twice the same
//! element is allowed, a missing one is not. So that such iterations end, the dispute about one
//! number is over after some rounds.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shard::route::Life;
use crate::upstream::identity::Identity;

/// Cursors remembered per shard: at least so many, at most twice as many.
const CURSORS_KEPT: usize = 32 * 1024;
/// Iterations that begin anew because nobody can tell whose cursor it was.
const DISPUTES_MAX: u8 = 8;
/// Masters that one cursor may have come from.
const ORIGINS_PER_CURSOR: usize = 3;

/// A cursor, and what it is a cursor of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CursorKey(u64);

/// Where a cursor came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    Unknown,
    From(Life),
    /// From more than one node.
    Disputed,
}

/// The cursors of a shard.
#[derive(Debug, Default)]
pub struct Cursors {
    inner: Mutex<Inner>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Inner {
    young: HashMap<CursorKey, Given>,
    old: HashMap<CursorKey, Given>,
}

/// Who gave out one cursor, and how often it was not used since.
#[derive(Debug, Default)]
struct Given {
    by: Vec<(Life, u16)>,
    disputes_left: u8,
}

impl Cursors {
    /// The name under which a cursor is remembered: what a command iterates over (`of`: its name
    /// and key), for whom, and the cursor itself.
    pub fn key(&self, of: &[&[u8]], identity: &Identity, cursor: &[u8]) -> CursorKey {
        let name = of.first().map(|name| name.to_ascii_uppercase());
        let key = of.get(1);
        let whose = (&identity.credentials, identity.db);
        CursorKey(self.hasher.hash_one((name, key, whose, cursor)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `origin` gives out a cursor.
    pub fn give(&self, key: CursorKey, origin: &Life) {
        let mut inner = self.inner();
        let given = inner.touch(key);
        match given.by.iter_mut().find(|(by, _)| by == origin) {
            Some((_, unused)) => *unused = unused.saturating_add(1),
            None => {
                if given.by.len() >= ORIGINS_PER_CURSOR {
                    given.by.remove(0);
                }
                given.by.push((origin.clone(), 1));
            }
        }
    }

    /// Somebody comes with a cursor, which `hint` gave him as far as he knows himself.
    pub fn claim(&self, key: CursorKey, hint: Option<&Life>) -> Claim {
        let mut inner = self.inner();
        if !inner.knows(key) {
            return hint.cloned().map_or(Claim::Unknown, Claim::From);
        }
        let given = inner.touch(key);
        if let Some(origin) = hint {
            given.used(origin);
            return Claim::From(origin.clone());
        }
        if given.disputes_left > 0 {
            given.disputes_left -= 1;
            return Claim::Disputed;
        }
        let mut unused = given.by.iter().filter(|(_, unused)| *unused > 0);
        let origin = match (unused.next(), unused.next()) {
            (Some(_), Some(_)) => {
                for (_, unused) in &mut given.by {
                    *unused = 0;
                }
                given.disputes_left = DISPUTES_MAX;
                return Claim::Disputed;
            }
            (Some((origin, _)), None) => origin.clone(),
            // Used before: the client repeats itself.
            (None, _) => match given.by.last() {
                Some((origin, _)) => origin.clone(),
                None => return Claim::Unknown,
            },
        };
        given.used(&origin);
        Claim::From(origin)
    }
}

impl Inner {
    fn knows(&self, key: CursorKey) -> bool {
        self.young.contains_key(&key) || self.old.contains_key(&key)
    }

    /// The entry of a cursor, young again.
    fn touch(&mut self, key: CursorKey) -> &mut Given {
        if self.young.len() >= CURSORS_KEPT && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let aged = self.old.remove(&key);
        self.young
            .entry(key)
            .or_insert_with(|| aged.unwrap_or_default())
    }
}

impl Given {
    fn used(&mut self, origin: &Life) {
        if let Some((_, unused)) = self.by.iter_mut().find(|(by, _)| by == origin) {
            *unused = unused.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(node: &str) -> Life {
        Life {
            node: node.into(),
            run_id: "life".into(),
        }
    }

    fn key(cursors: &Cursors, cursor: &str) -> CursorKey {
        cursors.key(&[b"scan"], &Identity::default(), cursor.as_bytes())
    }

    #[test]
    fn a_cursor_is_claimed_from_whoever_gave_it_also_twice() {
        let cursors = Cursors::default();
        let (a, cursor) = (origin("a:1"), key(&cursors, "17"));
        assert_eq!(cursors.claim(cursor, None), Claim::Unknown);
        cursors.give(cursor, &a);
        for _ in 0..2 {
            assert_eq!(cursors.claim(cursor, None), Claim::From(a.clone()));
        }
        cursors.give(cursor, &origin("b:1"));
        assert_eq!(cursors.claim(cursor, None), Claim::From(origin("b:1")));
    }

    #[test]
    fn who_knows_its_cursor_has_no_dispute_and_for_the_others_it_ends() {
        let cursors = Cursors::default();
        let (a, b, cursor) = (origin("a:1"), origin("b:1"), key(&cursors, "17"));
        cursors.give(cursor, &a);
        cursors.give(cursor, &b);
        assert_eq!(cursors.claim(cursor, Some(&a)), Claim::From(a.clone()));
        cursors.give(cursor, &a);
        let mut disputed = 0;
        while cursors.claim(cursor, None) == Claim::Disputed {
            // It begins anew on the present master and comes to the same place.
            cursors.give(cursor, &b);
            disputed += 1;
        }
        assert_eq!(disputed, 1 + usize::from(DISPUTES_MAX));
    }

    #[test]
    fn other_keys_users_and_commands_have_other_cursors() {
        let cursors = Cursors::default();
        let (nobody, db) = (Identity::default(), 1);
        let elsewhere = Identity {
            db,
            ..Identity::default()
        };
        let all = [
            cursors.key(&[b"SCAN"], &nobody, b"17"),
            cursors.key(&[b"SCAN"], &elsewhere, b"17"),
            cursors.key(&[b"HSCAN", b"k"], &nobody, b"17"),
            cursors.key(&[b"HSCAN", b"l"], &nobody, b"17"),
            cursors.key(&[b"SSCAN", b"k"], &nobody, b"17"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], cursors.key(&[b"scan"], &nobody, b"17"));
    }

    #[test]
    fn at_the_limit_all_are_known_and_far_past_it_the_first_is_not() {
        let cursors = Cursors::default();
        let first = key(&cursors, "first");
        cursors.give(first, &origin("a:1"));
        for number in 1..CURSORS_KEPT {
            cursors.give(key(&cursors, &number.to_string()), &origin("a:1"));
        }
        assert_ne!(cursors.claim(first, None), Claim::Unknown);
        for number in 0..2 * CURSORS_KEPT {
            cursors.give(key(&cursors, &format!("later {number}")), &origin("a:1"));
        }
        assert_eq!(cursors.claim(first, None), Claim::Unknown);
    }
}
