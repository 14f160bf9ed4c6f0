//! Admits writes, or holds them.
//!
//! Every worker owns a [`Gate`]; the control path owns the one [`GateControl`] and reaches the
//! gates by message. A worker that has handled [`GateOrder::Hold`] admits no further write, and
//! answers when none of the writes it admitted is without its reply. A worker is one thread, so
//! there is no race to reason about: a flag and a counter shared by threads would be a Dekker
//! pattern and cost an atomic read-modify-write per request.
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
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait for a busy worker; one operation at a time sends a handful.
const ORDERS_MAX: usize = 64;

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

/// What a hold did to the clients of one worker, told at its release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Sessions whose write was waiting when the hold ended.
    pub writes_held: u64,
    /// The longest any of them had waited.
    pub longest_hold: Duration,
}

/// An order of the control path to one worker's gate.
#[derive(Debug)]
pub enum GateOrder {
    /// Admit no more writes; answer when all admitted ones have ended.
    Hold { drained: oneshot::Sender<()> },
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

/// The gate of one shard in one worker.
#[derive(Debug)]
pub struct Gate {
    state: Cell<GateState>,
    in_flight: Cell<usize>,
    held: Cell<u64>,
    /// Counts changes of the gate: what was counted before one says nothing after it.
    hold_number: Cell<u64>,
    first_held: Cell<Option<Instant>>,
    drained: RefCell<Option<oneshot::Sender<()>>>,
    watchers: RefCell<Slab<Option<Waker>>>,
}

impl Gate {
    /// A gate for a shard whose master is not known yet.
    pub fn shut() -> Rc<Self> {
        Rc::new(Self {
            state: Cell::new(GateState::Shut),
            in_flight: Cell::new(0),
            held: Cell::new(0),
            hold_number: Cell::new(0),
            first_held: Cell::new(None),
            drained: RefCell::new(None),
            watchers: RefCell::new(Slab::new()),
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
        if left == 0 && self.state.get() == GateState::Holding {
            self.tell_drained();
        }
    }

    /// Work that must end before the shard counts as drained, although it is no new write:
    /// a blocked command being called back. Allowed in any state.
    pub fn enter_drain(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub fn writes_in_flight(&self) -> usize {
        self.in_flight.get()
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
            counted_in: Cell::new(None),
        }
    }

    /// Handles `Hold`.
    pub fn hold(&self, drained: oneshot::Sender<()>) {
        self.state.set(GateState::Holding);
        self.held.set(0);
        self.hold_number.set(self.hold_number.get() + 1);
        self.first_held.set(None);
        self.drained.replace(Some(drained));
        self.wake_watchers();
        if self.in_flight.get() == 0 {
            self.tell_drained();
        }
    }

    /// Handles `Release`, also without a hold before it.
    pub fn release(&self, to: GateState) -> HoldStats {
        let stats = HoldStats {
            writes_held: self.held.replace(0),
            longest_hold: self
                .first_held
                .take()
                .map(|at| at.elapsed())
                .unwrap_or_default(),
        };
        self.hold_number.set(self.hold_number.get() + 1);
        self.drained.replace(None);
        self.state.set(to);
        self.wake_watchers();
        stats
    }

    fn tell_drained(&self) {
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
    /// The hold that this session's waiting write is counted in.
    counted_in: Cell<Option<u64>>,
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
        let hold = self.gate.hold_number.get();
        if self.counted_in.replace(Some(hold)) != Some(hold) {
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
        if self.counted_in.get() == Some(self.gate.hold_number.get()) {
            self.gate.held.set(self.gate.held.get().saturating_sub(1));
        }
    }
}

/// The control path's half: every worker's gate at once.
#[derive(Debug)]
pub struct GateControl {
    workers: Vec<mpsc::Sender<GateOrder>>,
}

/// A worker's seat at the gate: where its orders arrive.
pub type GateSeat = mpsc::Receiver<GateOrder>;

/// The gate of one shard over `workers` workers.
pub fn gate(workers: usize) -> (GateControl, Vec<GateSeat>) {
    let (senders, seats) = (0..workers).map(|_| mpsc::channel(ORDERS_MAX)).unzip();
    (GateControl { workers: senders }, seats)
}

impl GateControl {
    /// Holds writes in every worker. Returns when every write admitted before has ended; with
    /// `Err`, when that took longer than `deadline` (the hold goes on: release it).
    pub async fn hold(&self, deadline: Duration) -> Result<(), DrainFailed> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (drained, answer) = oneshot::channel();
            worker
                .send(GateOrder::Hold { drained })
                .await
                .map_err(|_| DrainFailed::WorkerGone)?;
            answers.push(answer);
        }
        let all = async {
            for answer in answers {
                answer.await.map_err(|_| DrainFailed::WorkerGone)?;
            }
            Ok(())
        };
        tokio::time::timeout(deadline, all)
            .await
            .unwrap_or(Err(DrainFailed::Deadline(deadline)))
    }

    /// Ends the hold in every worker: `Open` lets the held writes go on, `Shut` leaves them
    /// waiting for a master.
    pub async fn release(&self, to: GateState) -> HoldStats {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            if worker.send(GateOrder::Release { to, done }).await.is_ok() {
                answers.push(answer);
            }
        }
        let mut total = HoldStats::default();
        for answer in answers {
            if let Ok(stats) = answer.await {
                total.writes_held += stats.writes_held;
                total.longest_hold = total.longest_hold.max(stats.longest_hold);
            }
        }
        total
    }

    /// Opens lanes to `node` in every worker. The error is what the node answered to the first
    /// session that it would not serve.
    pub async fn prepare(&self, node: &str, deadline: Duration) -> Result<(), String> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let order = GateOrder::Prepare {
                node: node.to_owned(),
                done,
            };
            worker
                .send(order)
                .await
                .map_err(|_| "a worker has stopped".to_owned())?;
            answers.push(answer);
        }
        let all = async {
            for answer in answers {
                answer
                    .await
                    .unwrap_or_else(|_| Err("a worker has stopped".to_owned()))?;
            }
            Ok(())
        };
        tokio::time::timeout(deadline, all)
            .await
            .unwrap_or_else(|_| Err(format!("lanes to {node} were not open after {deadline:?}")))
    }
}

/// Why a hold did not drain. Either way writes are being held: release them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrainFailed {
    /// A write forwarded before the hold had no reply yet: a slow script, a huge command, a
    /// stuck server.
    #[error("writes in flight had no reply after {0:?}; raise drain_timeout_ms or try again")]
    Deadline(Duration),
    /// The proxy is stopping.
    #[error("a worker has stopped")]
    WorkerGone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_gate() -> Rc<Gate> {
        let gate = Gate::shut();
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
        assert_eq!(gate.release(GateState::Open), HoldStats::default());
    }

    #[test]
    fn a_session_that_stays_is_counted_in_every_hold() {
        let gate = open_gate();
        let (stays, leaves) = (gate.watch(), gate.watch());
        for _ in 0..2 {
            let (drained, _answer) = oneshot::channel();
            gate.hold(drained);
            stays.write_waits();
            stays.write_waits();
            assert_eq!(gate.release(GateState::Open).writes_held, 1);
        }
        leaves.write_waits();
        let (drained, _answer) = oneshot::channel();
        gate.hold(drained);
        stays.write_waits();
        // It waited in another hold, so it takes nothing out of this one.
        drop(leaves);
        assert_eq!(gate.release(GateState::Open).writes_held, 1);
    }

    #[tokio::test]
    async fn a_worker_that_does_not_drain_fails_the_hold_at_its_deadline() {
        let (control, _seats) = gate(1);
        let failed = control.hold(Duration::from_millis(1)).await;
        assert_eq!(failed, Err(DrainFailed::Deadline(Duration::from_millis(1))));
    }
}
