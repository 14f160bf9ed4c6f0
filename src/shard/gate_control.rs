//! The control path's half of a shard's gate: every worker's gate at once, reached by message.
//!
//! **Invariant:** an order to hold is followed by a release, whatever comes of it: the caller's
//! duty, since a hold that fails leaves writes held.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::gate::{Everywhere, GateOrder, GateState, HoldStats};

/// Orders that may wait for a busy worker; one operation at a time sends a handful.
const ORDERS_MAX: usize = 64;
/// How long a release waits for sessions that receive messages. They are one round trip away from
/// the new master, to which their connections are dialled now. A late write is better than a lost
/// message, up to what client libraries wait for an answer: the least patient give it 500 ms.
const MOVE_DEADLINE: Duration = Duration::from_millis(300);

/// The control path's half: every worker's gate at once.
#[derive(Debug)]
pub struct GateControl {
    workers: Vec<mpsc::Sender<GateOrder>>,
    everywhere: Arc<Everywhere>,
}

/// A worker's seat at the gate: where its orders arrive.
#[derive(Debug)]
pub struct GateSeat {
    pub orders: mpsc::Receiver<GateOrder>,
    pub everywhere: Arc<Everywhere>,
}

/// The gate of one shard over `workers` workers.
pub fn gate(workers: usize) -> (GateControl, Vec<GateSeat>) {
    let everywhere = Arc::<Everywhere>::default();
    let (workers, seats) = (0..workers)
        .map(|_| {
            let (sender, orders) = mpsc::channel(ORDERS_MAX);
            (
                sender,
                GateSeat {
                    orders,
                    everywhere: Arc::clone(&everywhere),
                },
            )
        })
        .unzip();
    let control = GateControl {
        workers,
        everywhere,
    };
    (control, seats)
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
    /// waiting for a master. The route has been published before.
    ///
    /// Before writes go on, every session that receives messages gets them from the new master, so
    /// that none that is published by them is lost; that is waited for at most [`MOVE_DEADLINE`].
    pub async fn release(&self, to: GateState) -> HoldStats {
        if to == GateState::Open {
            self.move_receivers().await;
        }
        let mut total = HoldStats::default();
        for stats in self.ask_all(|done| GateOrder::Release { to, done }).await {
            total.writes_held += stats.writes_held;
            total.longest_hold = total.longest_hold.max(stats.longest_hold);
            total.released_at = total.released_at.max(stats.released_at);
        }
        total
    }

    /// In a hold: every session that receives messages gets them from the node that the route names
    /// now, when this returns, or has been waited for long enough. Again is no harm.
    pub async fn move_receivers(&self) {
        if self.everywhere.receivers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let moved = self.ask_all(|moved| GateOrder::Move { moved });
        if tokio::time::timeout(MOVE_DEADLINE, moved).await.is_err() {
            tracing::warn!("what clients receive is moved late: messages may be missed");
        }
    }

    /// Gives every worker an order and collects the answers. A worker that has stopped gives none.
    async fn ask_all<T>(&self, order: impl Fn(oneshot::Sender<T>) -> GateOrder) -> Vec<T> {
        let mut waiting = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (sender, answer) = oneshot::channel();
            if worker.send(order(sender)).await.is_ok() {
                waiting.push(answer);
            }
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.extend(answer.await.ok());
        }
        answers
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

    #[tokio::test]
    async fn a_worker_that_does_not_drain_fails_the_hold_at_its_deadline() {
        let (control, _seats) = gate(1);
        let failed = control.hold(Duration::from_millis(1)).await;
        assert_eq!(failed, Err(DrainFailed::Deadline(Duration::from_millis(1))));
    }

    #[tokio::test]
    async fn a_hold_ends_when_the_last_gate_opens() {
        let (control, mut seats) = gate(2);
        let first = std::time::Instant::now();
        let last = first + Duration::from_millis(5);
        let workers = async {
            for (seat, at) in seats.iter_mut().zip([last, first]) {
                let Some(GateOrder::Release { done, .. }) = seat.orders.recv().await else {
                    panic!("no order to release");
                };
                let released_at = Some(at);
                let stats = HoldStats {
                    released_at,
                    ..HoldStats::default()
                };
                done.send(stats).unwrap();
            }
        };
        let (total, ()) = tokio::join!(control.release(GateState::Shut), workers);
        assert_eq!(total.released_at, Some(last));
    }
}
