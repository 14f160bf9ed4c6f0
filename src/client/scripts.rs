//! Scripts that clients have sent, so that `EVALSHA` finds them on a new master.
//!
//! Servers do not replicate scripts (Redis 7 never, Kvrocks not those known by `EVAL` only). The
//! proxy loads the ones it has seen on the target before the hold, so a client that has used a
//! script through it does not meet `NOSCRIPT` because of a switchover. Others are as after any
//! failover: clients that use `EVALSHA` must be ready for `NOSCRIPT` anyway.
//!
//! **Invariant:** bounded in number and bytes; the oldest are forgotten first.
//!
//! # Trade-offs
//! A script is recognised by its length and sixteen samples and then compared in full: hashing all of
//! it would cost more than sending it. Two scripts that agree in the samples displace one another.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// Scripts remembered per worker and shard.
const SCRIPTS_MAX: usize = 1024;
/// Bytes of all of them together.
const BYTES_MAX: usize = 16 << 20;
const SAMPLES: usize = 16;

type Key = (usize, [u8; SAMPLES]);

/// Scripts by their samples, and in the order in which they came.
#[derive(Debug, Default)]
pub struct Scripts {
    known: RefCell<HashMap<Key, Bytes>>,
    order: RefCell<VecDeque<Key>>,
    bytes: Cell<usize>,
}

impl Scripts {
    /// Remembers a script.
    pub fn note(&self, body: &[u8]) {
        let key = key(body);
        let mut known = self.known.borrow_mut();
        match known.get(&key) {
            Some(same) if same == body => return,
            Some(other) => self.bytes.set(self.bytes.get() - other.len()),
            None => self.order.borrow_mut().push_back(key),
        }
        known.insert(key, Bytes::copy_from_slice(body));
        self.bytes.set(self.bytes.get() + body.len());
        while known.len() > SCRIPTS_MAX || self.bytes.get() > BYTES_MAX {
            let Some(oldest) = self.order.borrow_mut().pop_front() else {
                break;
            };
            if let Some(forgotten) = known.remove(&oldest) {
                self.bytes.set(self.bytes.get() - forgotten.len());
            }
        }
    }

    pub fn all(&self) -> Vec<Bytes> {
        self.known.borrow().values().cloned().collect()
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

/// The script in a request, when it brings one along.
#[inline]
pub fn brought_by<'b>(name: &[u8], arg: impl Fn(usize) -> Option<&'b [u8]>) -> Option<&'b [u8]> {
    match name.first()? {
        b'e' | b'E' if is(name, b"EVAL") || is(name, b"EVAL_RO") => arg(1),
        b's' | b'S' if is(name, b"SCRIPT") && is(arg(1)?, b"LOAD") => arg(2),
        _ => None,
    }
}

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_all_are_known_and_past_it_the_oldest_is_not() {
        let scripts = Scripts::default();
        for number in 0..SCRIPTS_MAX {
            scripts.note(format!("return {number:08}").as_bytes());
        }
        assert_eq!(scripts.all().len(), SCRIPTS_MAX);
        scripts.note(b"return 'one more'");
        let all = scripts.all();
        assert_eq!(all.len(), SCRIPTS_MAX);
        assert!(!all.iter().any(|script| &script[..] == b"return 00000000"));
    }

    #[test]
    fn large_scripts_are_forgotten_by_their_bytes() {
        let scripts = Scripts::default();
        scripts.note(&vec![b'a'; BYTES_MAX]);
        scripts.note(b"return 1");
        assert_eq!(scripts.all(), vec![Bytes::from_static(b"return 1")]);
    }

    #[test]
    fn only_commands_that_bring_a_script_are_noted() {
        let check = |words: &[&'static [u8]], expected: Option<&[u8]>| {
            assert_eq!(
                brought_by(words[0], |index| words.get(index).copied()),
                expected
            );
        };
        check(&[b"eval", b"return 1", b"0"], Some(b"return 1"));
        check(&[b"Script", b"load", b"return 2"], Some(b"return 2"));
        check(&[b"script", b"exists", b"x"], None);
        check(&[b"evalsha", b"x"], None);
        check(&[b"set", b"load", b"x"], None);
    }
}
