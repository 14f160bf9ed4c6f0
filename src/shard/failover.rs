//! How a client's `FAILOVER` reaches the control path: a bounded channel of requests, made once per
//! shard like gate and route.
//!
//! **Invariant:** what goes through is a wish. Who may start what, and whether it can be done, is
//! decided by the control path alone; the client learns whether it has begun.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the control path; one operation at a time runs anyway.
const REQUESTS_MAX: usize = 16;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failover {
    Begin {
        /// `host` and `port` of the new master; `None`: whoever is closest to the present one.
        to: Option<(String, u16)>,
        /// How long the new master may take to receive every write.
        timeout: Option<Duration>,
    },
    Abort,
}

/// A request and the place for its answer: begun, or the error line without `-ERR `.
#[derive(Debug)]
pub struct FailoverRequest {
    pub failover: Failover,
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// The asking half; cheap to clone, one per worker.
#[derive(Debug, Clone)]
pub struct FailoverDesk {
    requests: mpsc::Sender<FailoverRequest>,
}

/// Both halves of one shard.
pub fn failover() -> (FailoverDesk, mpsc::Receiver<FailoverRequest>) {
    let (requests, taken) = mpsc::channel(REQUESTS_MAX);
    (FailoverDesk { requests }, taken)
}

impl FailoverDesk {
    /// Returns as soon as the operation has begun, or cannot begin.
    pub async fn ask(&self, failover: Failover) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let request = FailoverRequest { failover, answer };
        let gone = || "the proxy is stopping".to_owned();
        match self.requests.try_send(request) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err("too many FAILOVER requests at once: try again".to_owned())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
    }
}
