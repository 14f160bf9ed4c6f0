//! Admits writes, or holds them.
//!
//! Every worker owns a [`Gate`]; the control path owns the one
//! [`GateControl`](super::gate_control::GateControl) and reaches the gates by message. A worker
//! that has handled [`GateOrder::Hold`] admits no further write, and answers when none of the
//! writes it admitted is without its reply. A worker is one thread, so there is no race to reason
//! about: a flag and a counter shared by threads would be a Dekker pattern and cost an atomic
//! read-modify-write per request.
//!
//! **Invariant:** `admit_writes` and `write_ended` come in pairs; a write that was admitted and
//! whose connection died has ended too (what became of it is not the gate's business: the fence
//! settles it).
//!
//! # Trade-offs
//! The hold costs one cross-thread wake-up per worker (tens of microseconds). In exchange a
//! request pays a plain `Cell` test.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::oneshot;

use super::line::{Line, Place};

/// What a gate does with writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// Writes are admitted.
    Open,
    /// A switchover holds writes; it will release them.
    Holding,
    /// There is no single master: writes wait for one as long as their budget lasts.
    Shut,
}

/// What a hold did to clients, told at its release: to those of one worker, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Sessions whose write was waiting when the hold ended.
    pub writes_held: u64,
    /// The longest any of them had waited.
    pub longest_hold: Duration,
    /// When the gate, or the last one, was opened; `None` where no gate tells.
    pub released_at: Option<Instant>,
}

/// An order of the control path to one worker's gate.
#[derive(Debug)]
pub enum GateOrder {
    /// Admit no more writes; answer when all admitted ones have ended.
    Hold { drained: oneshot::Sender<()> },
    /// The route has been published: answer when every session that receives messages does so
    /// from the node that it names. Writes stay held, so that nothing is published in between.
    Move { moved: oneshot::Sender<()> },
    /// Leave the hold, to `Open` or to `Shut`; answer with what the hold did.
    Release {
        to: GateState,
        done: oneshot::Sender<HoldStats>,
    },
    /// Open the lanes to this node that the live sessions will need; answer when they are
    /// authenticated and warm, or why one of them is not.
    Prepare {
        node: String,
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// What the gates of one shard have in common, over all workers.
#[derive(Debug, Default)]
pub struct Everywhere {
    /// Sessions that receive. Without any a release does not ask the workers to move them first,
    /// which saves a wake-up per worker in the hold.
    pub receivers: AtomicUsize,
    /// Sessions whose command waits on the master.
    pub line: Arc<Line>,
}

/// The gate of one shard in one worker.
#[derive(Debug)]
pub struct Gate {
    state: Cell<GateState>,
    in_flight: Cell<usize>,
    /// Blocked commands that nobody lets go: they are called back before the shard is drained.
    to_call_back: Cell<usize>,
    held: Cell<u64>,
    /// Counts holds and shuts, so that a session is counted once in each.
    hold_number: Cell<u64>,
    first_held: Cell<Option<Instant>>,
    drained: RefCell<Option<oneshot::Sender<()>>>,
    watchers: RefCell<Slab<Option<Waker>>>,
    /// Sessions that receive messages, each with the epoch of the node that it has them from.
    receivers: RefCell<Slab<u64>>,
    everywhere: Arc<Everywhere>,
    moved: RefCell<Option<(u64, oneshot::Sender<()>)>>,
    moving: Cell<bool>,
}

impl Gate {
    /// A gate for a shard whose master is not known yet.
    pub fn shut(everywhere: Arc<Everywhere>) -> Rc<Self> {
        Rc::new(Self {
            state: Cell::new(GateState::Shut),
            in_flight: Cell::new(0),
            to_call_back: Cell::new(0),
            held: Cell::new(0),
            hold_number: Cell::new(0),
            first_held: Cell::new(None),
            drained: RefCell::new(None),
            watchers: RefCell::new(Slab::new()),
            receivers: RefCell::new(Slab::new()),
            everywhere,
            moved: RefCell::new(None),
            moving: Cell::new(false),
        })
    }

    pub fn state(&self) -> GateState {
        self.state.get()
    }

    #[inline]
    pub fn is_open(&self) -> bool {
        self.state.get() == GateState::Open
    }

    /// Counts writes that are about to be sent. Only an open gate admits.
    #[inline]
    pub fn admit_writes(&self, count: usize) {
        debug_assert!(self.is_open(), "a held write was admitted");
        self.in_flight.set(self.in_flight.get() + count);
    }

    /// An admitted write has its reply, or never will.
    #[inline]
    pub fn write_ended(&self, count: usize) {
        debug_assert!(
            self.in_flight.get() >= count,
            "more writes ended than were admitted"
        );
        let left = self.in_flight.get().saturating_sub(count);
        self.in_flight.set(left);
        if left == 0 {
            self.tell_drained();
        }
    }

    /// A command blocks on a server that will not let it go when its role changes: at a hold its
    /// session calls it back, and the shard counts as drained only then.
    pub fn owe_call_back(self: &Rc<Self>) -> CallBack {
        self.to_call_back.set(self.to_call_back.get() + 1);
        CallBack {
            gate: Rc::clone(self),
        }
    }

    /// Sessions whose write waits here now.
    pub fn writes_held(&self) -> u64 {
        self.held.get()
    }

    /// A place from which a task is told of every change of the gate.
    pub fn watch(self: &Rc<Self>) -> GateWatch {
        let key = self.watchers.borrow_mut().insert(None);
        GateWatch {
            gate: Rc::clone(self),
            key,
            waits_in: Cell::new(None),
        }
    }

    /// A session receives messages from the node of `epoch` from now on.
    pub fn receive(self: &Rc<Self>, epoch: u64) -> Receiver {
        self.everywhere.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver {
            gate: Rc::clone(self),
            key: self.receivers.borrow_mut().insert(epoch),
        }
    }

    /// A command of a session waits on the node of `epoch` from now on.
    pub fn stand_in_line(&self, epoch: u64) -> Place {
        self.everywhere.line.join(epoch)
    }

    /// Whether the route is what it will be at the release, and those who receive are being moved.
    pub fn is_moving(&self) -> bool {
        self.moving.get()
    }

    /// Which hold this is, or which time between two holds.
    pub fn hold_number(&self) -> u64 {
        self.hold_number.get()
    }

    /// Handles `Move`.
    pub fn move_receivers(&self, epoch: u64, moved: oneshot::Sender<()>) {
        self.moved.replace(Some((epoch, moved)));
        self.moving.set(true);
        self.wake_watchers();
        self.tell_moved();
    }

    fn tell_moved(&self) {
        let mut moved = self.moved.borrow_mut();
        let behind = |epoch: u64| self.receivers.borrow().iter().any(|(_, at)| *at < epoch);
        if moved.as_ref().is_some_and(|(epoch, _)| !behind(*epoch))
            && let Some((_, moved)) = moved.take()
        {
            // The other side may have given up waiting.
            let _ = moved.send(());
        }
    }

    /// Handles `Hold`.
    pub fn hold(&self, drained: oneshot::Sender<()>) {
        self.state.set(GateState::Holding);
        self.moving.set(false);
        self.hold_number.set(self.hold_number.get() + 1);
        self.held.set(0);
        self.first_held.set(None);
        self.drained.replace(Some(drained));
        self.wake_watchers();
        self.tell_drained();
    }

    /// Handles `Release`, also without a hold before it.
    pub fn release(&self, to: GateState) -> HoldStats {
        let now = Instant::now();
        let stats = HoldStats {
            writes_held: self.held.replace(0),
            longest_hold: self
                .first_held
                .take()
                .map(|at| now.duration_since(at))
                .unwrap_or_default(),
            released_at: Some(now),
        };
        self.drained.replace(None);
        self.moved.replace(None);
        self.moving.set(false);
        self.hold_number.set(self.hold_number.get() + 1);
        self.state.set(to);
        self.wake_watchers();
        stats
    }

    /// Answers a hold once nothing is under way.
    fn tell_drained(&self) {
        let holding = self.state.get() == GateState::Holding;
        if !holding || self.in_flight.get() > 0 || self.to_call_back.get() > 0 {
            return;
        }
        if let Some(drained) = self.drained.borrow_mut().take() {
            // The other side may have given up waiting; then a release is on its way.
            let _ = drained.send(());
        }
    }

    fn wake_watchers(&self) {
        for (_, watcher) in self.watchers.borrow_mut().iter_mut() {
            if let Some(waker) = watcher.take() {
                waker.wake();
            }
        }
    }
}

/// A task's place at the gate; leaving it takes the task's held write out of the count.
#[derive(Debug)]
pub struct GateWatch {
    gate: Rc<Gate>,
    key: usize,
    /// The hold in which this session's write was counted.
    waits_in: Cell<Option<u64>>,
}

impl GateWatch {
    /// The waker is called once, at the next change of the gate.
    pub fn register(&self, waker: &Waker) {
        if let Some(slot) = self.gate.watchers.borrow_mut().get_mut(self.key) {
            match slot {
                Some(known) if known.will_wake(waker) => {}
                _ => *slot = Some(waker.clone()),
            }
        }
    }

    /// This session's write is waiting at the gate from now on.
    pub fn write_waits(&self) {
        let now = Some(self.gate.hold_number.get());
        if self.waits_in.replace(now) != now {
            self.gate.held.set(self.gate.held.get() + 1);
            if self.gate.first_held.get().is_none() {
                self.gate.first_held.set(Some(Instant::now()));
            }
        }
    }
}

impl Drop for GateWatch {
    fn drop(&mut self) {
        self.gate.watchers.borrow_mut().try_remove(self.key);
        let counted = self.waits_in.get() == Some(self.gate.hold_number.get());
        if counted && self.gate.state.get() != GateState::Open {
            self.gate.held.set(self.gate.held.get().saturating_sub(1));
        }
    }
}

/// A blocked command that has to be called back; dropped when it has been, or has its reply.
#[derive(Debug)]
pub struct CallBack {
    gate: Rc<Gate>,
}

impl Drop for CallBack {
    fn drop(&mut self) {
        self.gate
            .to_call_back
            .set(self.gate.to_call_back.get().saturating_sub(1));
        self.gate.tell_drained();
    }
}

/// A session that receives what it does not ask for (messages, invalidations, what a blocked
/// command waits for) and has to be moved with the route.
#[derive(Debug)]
pub struct Receiver {
    gate: Rc<Gate>,
    key: usize,
}

impl Receiver {
    /// Its node has let it go: it receives nothing, from nobody.
    pub fn let_go(&self) {
        if let Some(at) = self.gate.receivers.borrow_mut().get_mut(self.key) {
            *at = 0;
        }
    }

    /// It receives from the node of `epoch` now.
    pub fn moved_to(&self, epoch: u64) {
        if let Some(at) = self.gate.receivers.borrow_mut().get_mut(self.key) {
            *at = epoch;
        }
        self.gate.tell_moved();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.gate.receivers.borrow_mut().try_remove(self.key);
        self.gate
            .everywhere
            .receivers
            .fetch_sub(1, Ordering::Relaxed);
        self.gate.tell_moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_gate() -> Rc<Gate> {
        let gate = Gate::shut(Arc::default());
        gate.release(GateState::Open);
        gate
    }

    #[test]
    fn a_hold_drains_at_once_when_nothing_is_in_flight() {
        let gate = open_gate();
        let (drained, mut answer) = oneshot::channel();
        gate.hold(drained);
        assert_eq!(answer.try_recv(), Ok(()));
        assert!(!gate.is_open());
    }

    #[test]
    fn a_hold_drains_with_the_last_write_in_flight() {
        let gate = open_gate();
        gate.admit_writes(3);
        let (drained, mut answer) = oneshot::channel();
        gate.hold(drained);
        gate.write_ended(2);
        assert!(answer.try_recv().is_err());
        gate.write_ended(1);
        assert_eq!(answer.try_recv(), Ok(()));
    }

    #[test]
    fn a_hold_drains_when_the_last_blocked_command_has_been_called_back() {
        let gate = open_gate();
        let blocked = gate.owe_call_back();
        let (drained, mut answer) = oneshot::channel();
        gate.hold(drained);
        assert!(answer.try_recv().is_err());
        drop(blocked);
        assert_eq!(answer.try_recv(), Ok(()));
    }

    #[test]
    fn a_session_that_leaves_while_held_is_not_counted_at_release() {
        let gate = open_gate();
        let (drained, _answer) = oneshot::channel();
        gate.hold(drained);
        let stays = gate.watch();
        stays.write_waits();
        let leaves = gate.watch();
        leaves.write_waits();
        drop(leaves);

        assert_eq!(gate.release(GateState::Open).writes_held, 1);
        drop(stays);
        let nobody = gate.release(GateState::Open);
        assert_eq!(
            (nobody.writes_held, nobody.longest_hold),
            (0, Duration::ZERO)
        );
    }

    #[test]
    fn a_session_that_waits_in_two_holds_is_counted_once_in_each() {
        let gate = open_gate();
        let session = gate.watch();
        for _ in 0..2 {
            let (drained, _answer) = oneshot::channel();
            gate.hold(drained);
            session.write_waits();
            session.write_waits();
            assert_eq!(gate.release(GateState::Open).writes_held, 1);
        }
    }

    #[test]
    fn receivers_have_moved_when_none_is_behind() {
        let gate = open_gate();
        let (stays, leaves) = (gate.receive(1), gate.receive(1));
        let (moved, mut answer) = oneshot::channel();
        gate.move_receivers(2, moved);
        assert!(answer.try_recv().is_err());
        stays.moved_to(2);
        assert!(answer.try_recv().is_err());
        drop(leaves);
        assert_eq!(answer.try_recv(), Ok(()));
    }
}
