//! Where reads of one worker go while there is no master to be asked (`reads_without_master =
//! "replica"`): to one of the nodes that the control path vouches for, the same for all sessions
//! until it fails.
//!
//! **Invariants:** only what is a read in our table and nothing else goes there. As soon as the
//! route names another master, or the one that it names answers, nothing more does. A read that is
//! under way there is answered before the next one goes to the master, so replies stay in order. A
//! dial that fails proves little (the master may be busy with a script): as long as one lane of
//! this worker is open the master is not missed, and whoever has such a lane stays on it until it
//! closes, or until the master says itself that it cannot serve.
//!
//! # Trade-offs
//! A master whose machine is gone without a word is missed by a worker only when its lanes break,
//! or when the route gives it up: until then reads wait, because they would be stale if it lived.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::links::{NodeLinks, Serves};
use super::seat::Seat;
use crate::upstream::identity::Identity;

/// Between two questions to a master that does not answer.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// Identities that it is asked as at once, beside the one that missed it.
const ASKED_AS_MAX: usize = 8;

/// How a master was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// There is none, or no connection to it could be opened.
    Unreached,
    /// It said itself that it cannot serve.
    Refuses,
}

/// What one worker knows of a shard without a master.
#[derive(Debug, Default)]
pub struct StandIn {
    /// The epoch whose master cannot be reached, or that has none.
    missing: Cell<Option<u64>>,
    links: RefCell<Option<Rc<NodeLinks>>>,
}

impl Seat {
    /// Whether reads go elsewhere, because the master of this epoch is missing.
    #[inline]
    pub fn lacks_master(&self, epoch: u64) -> bool {
        self.stand_in.missing.get() == Some(epoch)
    }

    /// The master of this epoch could not be reached, or there is none. Says whether reads may go
    /// elsewhere now. `identity`: who missed it.
    pub fn miss_master(self: &Rc<Self>, epoch: u64, missed: Missed, identity: &Identity) -> bool {
        if !self.limits.reads_stand_in || epoch != self.epoch() || self.stand_ins().is_empty() {
            return false;
        }
        if missed == Missed::Unreached && self.is_connected() {
            return false;
        }
        if self.stand_in.missing.replace(Some(epoch)) == Some(epoch) {
            return true;
        }
        tracing::warn!(epoch, "no master can be asked: reads go to a replica");
        if let Some((epoch, master)) = self.master() {
            // Ends when the master answers, or another one is named.
            tokio::task::spawn_local(Rc::clone(self).ask_for_master(
                epoch,
                master,
                identity.clone(),
            ));
        }
        true
    }

    /// Whether anybody here has a lane to the master.
    fn is_connected(&self) -> bool {
        let master = self.master();
        master.is_some_and(|(_, links)| links.has_open_lane())
    }

    /// The route stays what it is when the same master comes back, so it is asked.
    async fn ask_for_master(self: Rc<Self>, epoch: u64, master: Rc<NodeLinks>, who: Identity) {
        while self.lacks_master(epoch) && self.epoch() == epoch && !self.is_stopping() {
            if self.is_served_by(&master, &who).await {
                if self.epoch() == epoch {
                    self.stand_in.missing.set(None);
                    self.leave_stand_in(&master);
                }
                return;
            }
            sleep(ASK_PAUSE).await;
        }
    }

    /// Asks as `who` missed it, and as others who are here when that tells nothing. Where it tells
    /// nobody, there is nobody for whom another node could do better.
    async fn is_served_by(&self, master: &NodeLinks, who: &Identity) -> bool {
        let others = self.identities().into_iter().filter(|other| other != who);
        let others: Vec<Identity> = others.take(ASKED_AS_MAX).collect();
        for who in std::iter::once(who).chain(&others) {
            match master.serves(who).await {
                Serves::Yes => return true,
                Serves::No => return false,
                Serves::Unknown => {}
            }
        }
        true
    }

    /// The node to read from: the one in use as long as it is vouched for, otherwise the best.
    pub fn stand_in(&self) -> Option<Rc<NodeLinks>> {
        let able = self.stand_ins();
        let used = self.stand_in.links.borrow().clone();
        if let Some(used) = used.filter(|used| able.iter().any(|node| **node == *used.node)) {
            return Some(used);
        }
        let links = self.links(&Rc::from(&**able.first()?));
        self.stand_in.links.replace(Some(Rc::clone(&links)));
        Some(links)
    }

    /// A node could not be read from: the next one is tried.
    pub fn stand_in_failed(&self, failed: &NodeLinks) {
        let used = self.stand_in.links.borrow().clone();
        if used.is_none_or(|used| used.node != failed.node) {
            // Somebody else has found out before.
            return;
        }
        let able = self.stand_ins();
        let at = able.iter().position(|node| **node == *failed.node);
        let next = at.map_or(0, |at| at + 1);
        if let Some(node) = able.get(next).or_else(|| able.first()) {
            let links = self.links(&Rc::from(&**node));
            self.stand_in.links.replace(Some(links));
        }
    }

    /// There is a master: the lanes elsewhere close as soon as they owe nothing.
    pub(super) fn leave_stand_in(&self, master: &NodeLinks) {
        let left = self.stand_in.links.take();
        if let Some(left) = left.filter(|left| left.node != master.node) {
            self.forget_node(&left);
        }
    }
}
