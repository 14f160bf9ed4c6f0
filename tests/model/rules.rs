//! What one walk may contain, and the mistakes it can be told to make.

use pointsman::switchover::plan::{Dialect, Facts, Silence, Terms};

/// What one walk may contain.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub dialect: Dialect,
    /// Redis does since 6.2, Kvrocks does not.
    pub knows_pause: bool,
    pub force: bool,
    pub far_behind: bool,
    pub stale_restart: bool,
    /// Writes that bypass the proxy on the old master.
    pub writes: u8,
    /// Pops by woken blocked clients behind the fence.
    pub pops: u8,
    /// Lost replies, refusals, broken links and kills, together.
    pub faults: u8,
    pub crashes: u8,
    /// Somebody else takes over, or the operator does, while it works behind its report or after a
    /// crash.
    pub taken_over: bool,
    /// Another proxy of the shard, and what its silence means.
    pub peer: Option<Silence>,
    /// The old master is dead at the beginning, and the target takes its place.
    pub take_over: bool,
    pub flaw: Option<Flaw>,
}

impl Rules {
    pub fn new(dialect: Dialect) -> Rules {
        Rules {
            dialect,
            knows_pause: dialect != Dialect::Kvrocks,
            force: false,
            far_behind: false,
            stale_restart: false,
            writes: 2,
            pops: 0,
            faults: 3,
            crashes: 2,
            taken_over: false,
            peer: None,
            take_over: false,
            flaw: None,
        }
    }

    /// With another proxy beside, and fewer faults: it doubles what can happen.
    pub fn beside_another(dialect: Dialect, silence: Silence) -> Rules {
        Rules {
            writes: 1,
            faults: 2,
            crashes: 1,
            peer: Some(silence),
            ..Rules::new(dialect)
        }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            force_on_timeout: self.force,
            silent_proxies: self.peer.unwrap_or_default(),
        }
    }

    pub fn facts(&self) -> Facts {
        Facts {
            dialect: self.dialect,
            knows_pause: self.knows_pause,
            lag: if self.far_behind { 10 } else { 0 },
            lag_small: 1,
            old_is_down: self.take_over,
        }
    }
}

/// Deliberate mistakes; the walk must find each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The target is believed to be equal.
    ProofSkipped,
    /// The route is swapped and the gate opened when the promotion is sent.
    ReleasedEarly,
    /// A fence without a reply, or refused, counts as a fence.
    FenceAssumed,
    /// The role is asked without killing the connection that carried the promotion.
    LateNotKilled,
    /// A target that does not answer counts as a replica.
    SilenceMeansReplica,
    /// The undo forgets the fence.
    FenceNotLifted,
    /// Everybody forgets the pause.
    PauseNotLifted,
    /// The undo does not kill what was lost before it.
    RestoreUnsettled,
    /// The old offset is not read before the old master is attached.
    AttachedBlindly,
    /// Kvrocks: the second reading repeats the first.
    SecondReadSkipped,
    /// A promotion without a reply counts as refused.
    LossMeansRefused,
    /// A restarted old master counts as one that never was fenced.
    RebornBelieved,
    /// The first record is not written.
    NoJournal,
    /// The retry timer is not armed.
    NoRetry,
    /// It ends while an order to a node is under way.
    LeftInHaste,
    /// Nobody waits until the other proxy holds.
    PeerNotAwaited,
    /// Nobody waits until the other proxy reads from the target.
    PeerNotRouted,
    /// The other proxy is not told that it is over.
    PeerNotReleased,
}
