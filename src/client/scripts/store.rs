//! What the workers of a shard remember of scripts together.
//!
//! **Invariant:** bounded in number and bytes; the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::resp::sha1::sha1;
use crate::upstream::identity::Credentials;

/// Scripts remembered per shard.
const SCRIPTS_MAX: usize = 1024;
/// Bytes of all of them together.
const BYTES_MAX: usize = 16 << 20;
/// Different credentials with which a script was brought that are remembered.
const BROUGHT_BY_MAX: usize = 4;

/// SHA-1 of a script: its name on every server.
pub type Digest = [u8; 20];

/// A script as it is to be loaded.
#[derive(Debug, Clone)]
pub struct Load {
    pub digest: Digest,
    pub body: Bytes,
    pub brought_by: Vec<Option<Credentials>>,
}

/// A flush that a node has not seen yet.
#[derive(Debug, Clone)]
pub struct Flush {
    pub by: Option<Credentials>,
    /// Set when the node has seen it; those who come meanwhile wait here.
    pub seen: Arc<OnceCell<()>>,
}

#[derive(Debug)]
struct Script {
    body: Bytes,
    /// The master of this epoch knows it.
    epoch: u64,
    /// It was loaded on a node in the epoch before the one in which that node may become master.
    ready: Option<(Arc<str>, u64)>,
    brought_by: Vec<Option<Credentials>>,
}

/// All scripts of a shard.
#[derive(Debug, Default)]
pub struct ScriptStore {
    inner: Mutex<Inner>,
    flushes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    scripts: HashMap<Digest, Script>,
    order: VecDeque<Digest>,
    bytes: usize,
    /// Who flushed last, and which nodes have seen it.
    flushed_by: Option<Option<Credentials>>,
    clean: HashMap<Arc<str>, Arc<OnceCell<()>>>,
}

impl ScriptStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a script; its body as it is kept.
    pub fn note(&self, body: &[u8], by: Option<&Credentials>, epoch: u64) -> Bytes {
        let digest = sha1(body);
        let mut inner = self.inner();
        if let Some(script) = inner.scripts.get_mut(&digest) {
            let is_new = !script.brought_by.iter().any(|known| known.as_ref() == by);
            if is_new && script.brought_by.len() < BROUGHT_BY_MAX {
                script.brought_by.push(by.cloned());
            }
            return script.body.clone();
        }
        let body = Bytes::copy_from_slice(body);
        let script = Script {
            body: body.clone(),
            epoch,
            ready: None,
            brought_by: vec![by.cloned()],
        };
        inner.bytes += body.len();
        inner.scripts.insert(digest, script);
        inner.order.push_back(digest);
        inner.forget_oldest();
        body
    }

    /// Whether the script was known to an earlier master and not brought to this one.
    pub fn is_missing(&self, digest: &Digest, master: &str, epoch: u64) -> bool {
        let inner = self.inner();
        let Some(script) = inner.scripts.get(digest) else {
            return false;
        };
        let ready = matches!(&script.ready, Some((node, in_epoch))
            if &**node == master && in_epoch + 1 == epoch);
        script.epoch != epoch && !ready
    }

    pub fn load(&self, digest: &Digest) -> Option<Load> {
        let inner = self.inner();
        let script = inner.scripts.get(digest)?;
        Some(script.to_load(*digest))
    }

    /// Everything that is not ready on a node yet, oldest first.
    pub fn not_ready(&self, node: &str, epoch: u64) -> Vec<Load> {
        let inner = self.inner();
        let of = |digest: &Digest| {
            let script = inner.scripts.get(digest)?;
            let ready = matches!(&script.ready, Some((at, in_epoch))
                if &**at == node && *in_epoch == epoch);
            (!ready).then(|| script.to_load(*digest))
        };
        inner.order.iter().filter_map(of).collect()
    }

    /// The script is known to the master of `epoch`.
    pub fn is_at(&self, digest: &Digest, epoch: u64) {
        if let Some(script) = self.inner().scripts.get_mut(digest) {
            script.epoch = script.epoch.max(epoch);
        }
    }

    /// The script was loaded in `epoch` on a node that may be the next master.
    pub fn is_ready(&self, digest: &Digest, node: &str, epoch: u64) {
        if let Some(script) = self.inner().scripts.get_mut(digest) {
            script.ready = Some((Arc::from(node), epoch));
        }
    }

    /// Counts the flushes: what was remembered before one is void.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    /// The master, `node`, has flushed its scripts.
    pub fn flushed(&self, node: &str, by: Option<&Credentials>) {
        let mut inner = self.inner();
        *inner = Inner::default();
        inner.flushed_by = Some(by.cloned());
        let seen = Arc::new(OnceCell::new_with(Some(())));
        inner.clean.insert(Arc::from(node), seen);
        self.flushes.fetch_add(1, Ordering::Release);
    }

    /// The last flush, when `node` has not seen it.
    pub fn unseen_flush(&self, node: &str) -> Option<Flush> {
        if self.flushes() == 0 {
            return None;
        }
        let mut inner = self.inner();
        let by = inner.flushed_by.clone()?;
        let seen = match inner.clean.get(node) {
            Some(seen) => Arc::clone(seen),
            None => {
                let seen = Arc::default();
                inner.clean.insert(Arc::from(node), Arc::clone(&seen));
                seen
            }
        };
        (!seen.initialized()).then_some(Flush { by, seen })
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        while self.scripts.len() > SCRIPTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(forgotten) = self.scripts.remove(&oldest) {
                self.bytes -= forgotten.body.len();
            }
        }
    }
}

impl Script {
    fn to_load(&self, digest: Digest) -> Load {
        Load {
            digest,
            body: self.body.clone(),
            brought_by: self.brought_by.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(store: &ScriptStore) -> Vec<Bytes> {
        let all = store.not_ready("a:1", 1);
        all.into_iter().map(|load| load.body).collect()
    }

    #[test]
    fn at_the_limit_all_are_known_and_past_it_the_oldest_is_not() {
        let store = ScriptStore::default();
        for number in 0..SCRIPTS_MAX {
            store.note(format!("return {number:08}").as_bytes(), None, 1);
        }
        assert_eq!(bodies(&store).len(), SCRIPTS_MAX);
        store.note(b"return 'one more'", None, 1);
        let all = bodies(&store);
        assert_eq!(all.len(), SCRIPTS_MAX);
        assert!(!all.iter().any(|script| &script[..] == b"return 00000000"));
    }

    #[test]
    fn large_scripts_are_forgotten_by_their_bytes() {
        let store = ScriptStore::default();
        store.note(&vec![b'a'; BYTES_MAX], None, 1);
        store.note(b"return 1", None, 1);
        assert_eq!(bodies(&store), vec![Bytes::from_static(b"return 1")]);
    }

    #[test]
    fn a_flush_is_owed_to_every_node_that_has_not_seen_it() {
        let store = ScriptStore::default();
        assert!(store.unseen_flush("a:1").is_none());
        store.note(b"return 1", None, 1);
        store.flushed("a:1", None);
        assert!(bodies(&store).is_empty());
        assert!(store.unseen_flush("a:1").is_none());
        let owed = store.unseen_flush("b:1").unwrap();
        owed.seen.set(()).unwrap();
        assert!(store.unseen_flush("b:1").is_none());
    }

    #[test]
    fn only_so_many_bringers_are_remembered() {
        let store = ScriptStore::default();
        for user in 0..BROUGHT_BY_MAX + 1 {
            let by = Credentials {
                user: Some(user.to_string().into()),
                password: Bytes::new(),
            };
            store.note(b"return 1", Some(&by), 1);
            store.note(b"return 1", Some(&by), 1);
        }
        let load = store.load(&sha1(b"return 1")).unwrap();
        assert_eq!(load.brought_by.len(), BROUGHT_BY_MAX);
    }
}
