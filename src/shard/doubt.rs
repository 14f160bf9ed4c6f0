//! How the data path tells the control path that the route's master refuses to be one: a bell, made
//! once per shard like gate and route.
//!
//! **Invariant:** what goes through is a doubt. Who is master is decided by the control path alone;
//! the data path learns it from the route, and from here when the nodes have been looked at since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    begun: AtomicU64,
    ended: AtomicU64,
}

/// The ringing half; cheap to clone, one per worker.
#[derive(Debug, Clone, Default)]
pub struct Doubt {
    bell: Arc<Bell>,
}

/// The look at the nodes that answers a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look(u64);

/// The answering half.
#[derive(Debug)]
pub struct Doubts {
    bell: Arc<Bell>,
}

/// Both halves of one shard.
pub fn doubt() -> (Doubt, Doubts) {
    let doubt = Doubt::default();
    let bell = Arc::clone(&doubt.bell);
    (doubt, Doubts { bell })
}

impl Doubt {
    /// The master has refused: somebody should look.
    pub fn raise(&self) -> Look {
        let look = Look(self.bell.begun.load(Ordering::Acquire) + 1);
        self.bell.rung.notify_one();
        look
    }

    /// Whether the nodes have been looked at, and the route brought in line with them.
    pub fn is_answered(&self, look: Look) -> bool {
        self.bell.ended.load(Ordering::Acquire) >= look.0
    }
}

impl Doubts {
    /// Returns when there is a doubt that no look has begun for.
    pub async fn raised(&self) {
        self.bell.rung.notified().await;
    }

    /// The nodes are being asked from now on.
    pub fn look_begins(&self) -> Look {
        Look(self.bell.begun.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// The route is what the nodes said then.
    pub fn look_ended(&self, look: Look) {
        self.bell.ended.fetch_max(look.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_doubt_is_answered_by_a_look_that_began_after_it() {
        let (doubt, doubts) = doubt();
        let earlier = doubts.look_begins();
        let asked = doubt.raise();
        doubts.look_ended(earlier);
        assert!(!doubt.is_answered(asked));
        doubts.raised().await;
        let look = doubts.look_begins();
        doubts.look_ended(look);
        assert!(doubt.is_answered(asked));
    }
}
