//! The words the plan and its executor exchange: what is to be done, and what came of it.
//!
//! The contract. Effects of one step are performed in the order of the list.
//! An effect marked *answered* ends in exactly one of the events named at it; `Lost` is one of
//! them whenever a node is involved, and is sent when the connection failed or the executor's
//! deadline for that reply passed. An effect marked *at once* has happened when the executor takes
//! the next effect, and is not answered. There is never more than one answered effect outstanding
//! per node (nor per journal, gate, or set of other replicas), so no event needs a number. What an
//! abort leaves unanswered (preflight, pre-dial) or the end does (reads) may be dropped.
//!
//! **Invariant:** after `Lost(node)` the connection that carried the effect is given up: nothing
//! more is written to it, and the next effect for that node goes over a fresh one. The command may
//! still execute (it was seen to, 0.7 s after our side had closed), which is why the effects that
//! follow carry [`Settle`] where that would matter.

use serde::{Deserialize, Serialize};

pub use crate::switchover::report::Outcome;

/// One of the two nodes an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// The master before the switchover.
    Old,
    /// The master after it.
    Target,
}

/// Who the route names as master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Master {
    Old,
    Target,
    /// Writes are answered `-TRYAGAIN` (after the data path's own hold budget): they did not
    /// execute.
    Nobody,
}

/// How a server behaves around a role change, as far as the plan cares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Redis 7.0 and later, Valkey: the fence is exact and the replicas stay fed behind it.
    Redis,
    /// Redis before 7.0: the fence cuts the replicas off, so the target must be equal before it.
    RedisBefore7,
    /// Kvrocks: the replicas stay fed, but a woken blocked client may still pop behind the fence.
    Kvrocks,
}

impl Dialect {
    /// Does a fenced master go on feeding its replicas?
    pub fn feeds_behind_fence(self) -> bool {
        !matches!(self, Dialect::RedisBefore7)
    }

    /// Is the offset in the fence's reply final, whatever happens to the node afterwards?
    pub fn fence_is_exact(self) -> bool {
        !matches!(self, Dialect::Kvrocks)
    }

    /// Must the other replicas follow the target before the old master does?
    pub fn repoints_first(self) -> bool {
        matches!(self, Dialect::Kvrocks)
    }
}

/// What preflight found; written to the journal with the operation, because recovery needs it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub dialect: Dialect,
    /// The old master knows `CLIENT PAUSE <ms> WRITE` (probed, or known by engine and version).
    pub knows_pause: bool,
    /// How far the target was behind when preflight looked (bytes, or sequences on Kvrocks).
    pub lag: u64,
    /// Up to this much is replicated in a few milliseconds, so the fence need not wait for it.
    pub lag_small: u64,
    /// The old master is out of reach, and the target takes its place without a fence.
    #[serde(default)]
    pub old_is_down: bool,
}

/// What the operator's settings ask for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Terms {
    /// Promote although the target is not equal when `sync_timeout_ms` ends; the loss is reported.
    pub force_on_timeout: bool,
    /// What becomes of it when another proxy of the shard does not hold.
    #[serde(default)]
    pub silent_proxies: Silence,
}

/// What the silence of another proxy means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// The switchover is undone.
    #[default]
    Abort,
    /// It goes on, and the report says so.
    Report,
}

/// Whether an earlier connection of this operation to that node may still execute something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Settle {
    /// Everything sent so far was answered: use the connection at hand.
    No,
    /// On a fresh connection, first close on the server every *other* connection of this operation
    /// (they are named `pointsman-<operation>`; CLIENT LIST, then CLIENT KILL by id or address),
    /// and see that CLIENT LIST shows none of them any more. Only then go on. A connection gets its
    /// name answered before anything else is written to it, so none can hide.
    First,
}

/// On which condition the old master may follow the target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Attach {
    /// Its offset, read a last time behind the fence, is this one.
    At(u64),
    /// After a crash the offset is not known: its history must be a prefix of the target's (Redis:
    /// replication id and offset; Kvrocks: its last batches are found unchanged on the target).
    IfPrefix,
    /// The target was promoted at `carried` although the old master held more (forced). It must
    /// not be a master, and must not follow either.
    Never { carried: u64 },
}

/// What a node turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Seen {
    Master,
    /// Master, but not in the life in which the journal's record knew it: another `run_id`, or
    /// where there is none another `process_id` or an uptime shorter than the record's age. A
    /// restart forgets a fence, so this says nothing about whether there was one. Only `Settled`
    /// makes the difference, and only of the old master; a target that is master is `Master`.
    Reborn,
    /// A replica of this operation's sink: host and port both match. Nothing else is a fence.
    Fenced,
    /// A replica of the other node of this operation.
    Follows,
    /// A replica of something else.
    Foreign,
}

/// Journal records. One file, records in order; each is durable before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// Operation, nodes, sink, [`Facts`], [`Terms`], and the old master's identity for
    /// [`Seen::Reborn`].
    Begin,
    /// The outcome; a record without it makes the next start call [`recover`](super::recover).
    End(Outcome),
}

/// Why an operation was refused, undone, or left something behind. The executor adds the servers'
/// own words to the report where it has them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Reason {
    /// One per failing requirement, in preflight's words.
    #[error("{0}")]
    Requirement(String),
    #[error("the journal cannot be written: check state_dir")]
    Journal,
    #[error("connections to the nodes could not be prepared")]
    NotWarm,
    #[error("aborted by order")]
    Aborted,
    #[error("another proxy changes the master: operation {0}; wait until it has ended")]
    Outrun(String),
    #[error("writes in flight were not answered within drain_timeout_ms")]
    DrainTimeout,
    #[error("another proxy of this shard did not hold its writes within drain_timeout_ms")]
    ProxySilent,
    #[error("the target did not catch up within sync_timeout_ms")]
    SyncTimeout,
    #[error("writes were held for pause_timeout_ms without a result")]
    HoldTimeout,
    #[error("the old master did not answer")]
    OldLost,
    #[error("the target did not answer")]
    TargetLost,
    #[error("the old master refused the fence")]
    FenceRefused,
    #[error("somebody else changed the role of the old master")]
    OldChanged,
    #[error("the target lost its replication link behind the fence")]
    LinkDown,
    #[error("the target is no replica of the old master any more")]
    TargetChanged,
    #[error("the target refused the promotion")]
    PromotionRefused,
    #[error("the promotion is known not to have happened")]
    NotPromoted,
    #[error("the proxy stopped in the middle; the nodes' roles decided")]
    Recovered,
    #[error("the old master follows somebody else now and is left alone")]
    Foreign,
    #[error("somebody else has made another node the master; what was left to do is left to them")]
    Superseded,
    #[error(
        "the old master was out of reach for down_after_ms; the most advanced replica was promoted"
    )]
    OldDown,
    #[error("given up by order; what was left to do is left as it is")]
    GivenUp,
}

/// Timers. Their lengths are the executor's business; each is armed at most once at a time, and
/// arming it again starts it anew. An expiry that was under way when it was disarmed is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Timer {
    /// `drain_timeout_ms`: how long writes in flight may take to be answered.
    Drain,
    /// `sync_timeout_ms`: from the drain's end until the target is proven equal.
    Sync,
    /// `pause_timeout_ms`: how long writes may be held at all. Past it they are released, to
    /// whomever the plan then names.
    Hold,
    /// `demote_timeout_ms`: past it the report goes out with the rest marked pending.
    Demote,
    /// 50 ms at first, doubling to 1 s while nothing changes: the pace of everything repeated.
    Retry,
}

/// Things somebody should look at. Said again at each retry: log a run of equal ones once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alarm {
    /// The fence or pause may still be on the old master, which does not answer.
    RestorePending,
    /// It is not known whether the target was promoted; nobody is master until it is.
    PromotionUnknown,
    /// The old master does not follow the target yet; retried.
    DemotePending,
    /// A replica does not follow the target yet; retried.
    RepointPending,
    /// The old master holds writes that the target lacks; it is kept apart.
    Leaked,
    /// Both nodes say master and the old one has not restarted, so somebody promoted by hand; no
    /// writes are admitted until one remains.
    TwoMasters,
    /// Neither node is master, or one follows a stranger; no writes are admitted.
    NoMaster,
    /// Somebody else changed the old master's role.
    Foreign,
    /// The journal's last record could not be written; the next start looks at the nodes again.
    Journal,
}

/// What became of the old master, for the report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OldNow {
    /// Master, without pause and fence.
    Master,
    /// Still being restored to master, in the background.
    Restoring,
    /// Follows the target.
    Attached,
    /// Not yet following; retried in the background.
    AttachPending,
    /// Fenced, and kept apart because it holds what the target lacks.
    Apart,
    /// Somebody else's replica, or not known.
    Unknown,
}

/// The plan's part of the report.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Verdict {
    pub outcome: Outcome,
    pub reasons: Vec<Reason>,
    /// Bytes (Redis) or sequences (Kvrocks) the old master holds and the target lacks.
    pub not_carried: u64,
    pub old: OldNow,
}

/// What the executor is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// *Answered* `PreflightPassed` or `PreflightFailed`, within a deadline of the executor's.
    /// Looks, and changes nothing.
    Preflight,
    /// *Answered* `Recorded` or `RecordFailed` with the same record.
    Record(Record),
    /// *Answered* `Warmed` or `WarmFailed`. Dial, authenticate, and name the control connections to
    /// every node, ask every worker to warm its lanes to the target; Kvrocks: open the sink and see
    /// that the node reaches it.
    Warm,
    /// *Answered* `Drained`, when every worker has closed its gate and none of the writes it
    /// forwarded lacks its reply. Without a deadline of its own: `Timer::Drain` watches it, and
    /// `Release` takes it back.
    Hold,
    /// *Answered* `PeersHold`, `NoPeers` or `PeersSilent`. Have the other proxies of the shard
    /// hold, too, and wait until each of them has drained. Without a deadline of its own:
    /// `Timer::Drain` watches it, and `ReleasePeers` takes it back.
    HoldPeers,
    /// *Answered* `PeersRouted`, within a deadline of the executor's. Tell those that hold who is
    /// master, wait until each of them reads there, and move our own receivers meanwhile. An
    /// unanswered `HoldPeers` is taken back.
    RoutePeers,
    /// *At once.* Those that hold let their writes go on. An unanswered `HoldPeers` is taken back.
    ReleasePeers,
    /// *Answered* `Paused`, `PauseRefused` or `Lost(Old)`. `CLIENT PAUSE <pause_timeout_ms> WRITE`.
    /// A reply that does not come is `Lost`, never success.
    Pause,
    /// *Answered* `Fenced`, `FenceRefused` or `Lost(Old)`. Redis: `MULTI; CONFIG SET
    /// replica-read-only yes; REPLICAOF <sink>; EXEC; INFO replication` in one write. Kvrocks:
    /// `SLAVEOF <sink>; INFO replication` in one write, never in MULTI.
    Fence,
    /// *Answered* `OldRead` or `Lost(Old)`. `INFO replication`, before it `CLIENT UNPAUSE` when
    /// `unpause`, in one write; the unpause's own error is no failure. With `apart` the read is
    /// made at least 2 ms after the last reply of that node (Kvrocks' two reads).
    ReadOld { unpause: bool, apart: bool },
    /// *Answered* `TargetRead` or `Lost(Target)`. `INFO replication` on the target. Asked again as
    /// soon as it is answered: the round trip is the pace, because a timer's grain of 1 ms would be
    /// most of a hold.
    ReadTarget,
    /// *Answered* `Restored` or `Lost(Old)`. Undo what this operation may have left on the old
    /// master: settle if asked; with `unfence`, look at its role and send `SLAVEOF NO ONE` only if
    /// it is fenced with our sink; with `unpause`, `CLIENT UNPAUSE`; then the role as it is now.
    /// Can be repeated at will.
    Restore {
        settle: Settle,
        unfence: bool,
        unpause: bool,
    },
    /// *Answered* `Promoted`, `PromotionRefused` or `Lost(Target)`. `SLAVEOF NO ONE; INFO
    /// replication` in one write. `Promoted` only when the reply shows `role:master`. Its deadline
    /// is generous (Kvrocks joins a thread for up to 100 ms, 10 s when its link is broken): the
    /// hold is bounded by `Timer::Hold`, not by this.
    Promote,
    /// *Answered* `Settled` or `Lost(node)`. As [`Settle::First`], then ask the role. This is how a
    /// promotion whose reply is missing is found to have happened or not; recovery asks it of both.
    Settle(Node),
    /// *At once.* Swap the route (epoch + 1); `Nobody` keeps the replicas for reads.
    Publish(Master),
    /// *At once.* Open every gate; an unanswered `Hold` is taken back, its `Drained` never comes.
    Release,
    /// *Answered* `Demoted`, `Leaked`, `DemoteRefused` or `Lost(Old)`. Settle if asked. See that
    /// the target says master, else `DemoteRefused`. If the old master answers as master (it
    /// restarted with an old config), fence it first. `CLIENT UNPAUSE` if `unpause`. Already
    /// following the target: `Demoted`; following a stranger: leave it alone, `Leaked { by: 0 }`.
    /// Then judge by `attach`; if it may not attach leave it fenced and answer `Leaked`. Kvrocks:
    /// `CLIENT KILL ADDR` of the target's link alone. Then `SLAVEOF target` (`CONFIG REWRITE` where
    /// wanted), and see role and master.
    Demote {
        attach: Attach,
        settle: Settle,
        unpause: bool,
    },
    /// *Answered* `Repointed` or `RepointFailed`. Every other replica follows the target (several
    /// at a time, each verified). Those already there are left alone. No other replica:
    /// `Repointed`.
    Repoint,
    /// *At once.* Start the timer (anew).
    Arm(Timer),
    /// *At once.* Stop the timer; not running is fine.
    Disarm(Timer),
    /// *At once.* Log and count it.
    Alarm(Alarm),
    /// *At once.* The order to abort came after the promotion was sent.
    TooLate,
    /// *At once.* Answer the operator. A later one replaces it in the operation's record: after
    /// `Unknown`, or when work went on in the background.
    Report(Verdict),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The operator wants it stopped.
    Abort,
    /// What is left to do is not this operation's business any more, for this reason. Heard by what
    /// goes on behind a report, and after a crash.
    Leave(Reason),
    /// Another proxy has begun to hold, for this operation of its own.
    Outrun(String),
    /// A timer that was armed has run out.
    Expired(Timer),
    /// The effect outstanding for that node has no reply and will have none; it may or may not have
    /// been executed, and unless the connection is known to be gone on the server it still may.
    Lost(Node),
    PreflightPassed(Facts),
    /// Every failing requirement, by name.
    PreflightFailed(Vec<String>),
    Recorded(Record),
    RecordFailed(Record),
    Warmed,
    WarmFailed,
    Drained,
    /// Every other proxy holds and has drained.
    PeersHold,
    /// There is no other.
    NoPeers,
    /// They could not be counted or told.
    PeersSilent,
    /// Every other proxy reads from the target, or was waited for long enough.
    PeersRouted,
    Paused,
    /// An error reply: the node does not know it, or may not. No obstacle.
    PauseRefused,
    /// The reply shows `role:slave` *and* our sink's host and port; the offset in it is F.
    Fenced {
        offset: u64,
    },
    /// A reply that shows anything else.
    FenceRefused,
    OldRead {
        offset: u64,
        seen: Seen,
    },
    /// `link_up`: `master_link_status:up` and no sync in progress. The offset is the target's own.
    TargetRead {
        offset: u64,
        seen: Seen,
        link_up: bool,
    },
    Restored(Seen),
    Promoted,
    /// A reply (an error, or `role:slave`): it has not happened and will not.
    PromotionRefused,
    Settled(Node, Seen),
    Demoted,
    /// It was not attached: its offset is past `At` or `carried` by this much (0 when that cannot
    /// be counted).
    Leaked {
        by: u64,
    },
    /// A reply that says not now; it will be tried again.
    DemoteRefused,
    Repointed,
    RepointFailed,
}

impl Effect {
    /// The node whose answer this effect waits for.
    pub(super) fn asks(&self) -> Option<Node> {
        match self {
            Effect::Pause | Effect::Fence | Effect::ReadOld { .. } => Some(Node::Old),
            Effect::Restore { .. } | Effect::Demote { .. } => Some(Node::Old),
            Effect::ReadTarget | Effect::Promote => Some(Node::Target),
            Effect::Settle(node) => Some(*node),
            _ => None,
        }
    }
}

impl Event {
    /// The node that has answered, or never will.
    pub(super) fn answers(&self) -> Option<Node> {
        match self {
            Event::Lost(node) | Event::Settled(node, _) => Some(*node),
            Event::Paused | Event::PauseRefused => Some(Node::Old),
            Event::Fenced { .. } | Event::FenceRefused | Event::OldRead { .. } => Some(Node::Old),
            Event::Restored(_) => Some(Node::Old),
            Event::Demoted | Event::Leaked { .. } | Event::DemoteRefused => Some(Node::Old),
            Event::TargetRead { .. } | Event::Promoted => Some(Node::Target),
            Event::PromotionRefused => Some(Node::Target),
            _ => None,
        }
    }
}
