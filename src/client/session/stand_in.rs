//! Reads of a session while there is no master: on a lane of another node, with the session's own
//! identity. What is not about data (`ROLE`, `PING`, `PUBSUB NUMSUB`) the node would answer for
//! itself: like everything else it waits for a master, and so does what the client sends behind it.

use tokio::time::{Instant, sleep};

use super::wait::REDIAL_PAUSE;
use super::{OwnLane, Session};
use crate::client::links::{LaneAnswer, LaneUse};
use crate::client::stand_in::Missed;
use crate::client::state::Closed;
use crate::resp::command::{Class, Path, Verdict};
use crate::resp::refusal::{Refusal, refusal};
use crate::resp::scan::{Form, Request, RequestScanner};

impl Session {
    /// The master of `epoch` is missing: whether the request in front goes elsewhere.
    pub(super) fn stands_in_for(&mut self, epoch: u64, missed: Missed) -> bool {
        // Who wants something else from the master says nothing for those who read.
        self.is_read_in_front() && self.seat.miss_master(epoch, missed, &self.identity)
    }

    fn is_read_in_front(&mut self) -> bool {
        let limits = &self.seat.limits.request;
        let front = self.scanner.scan(&self.input, limits);
        let Ok(Request::Complete {
            form: Form::Multibulk,
            ..
        }) = front
        else {
            return false;
        };
        let verdict = self.verdict(&self.input);
        self.scanner = RequestScanner::default();
        is_plain_read(&verdict)
    }

    /// Finds a lane of a node that stands in. Returns as well when there is a master: then the
    /// request in front is judged again.
    pub(super) async fn find_stand_in(&mut self) -> Result<(), Closed> {
        let deadline = self.budget_from(self.refused_since());
        loop {
            let epoch = self.seat.epoch();
            if !self.seat.lacks_master(epoch) {
                return Ok(());
            }
            if let Some(links) = self.seat.stand_in() {
                let answer = self
                    .seat
                    .lane(&links, &self.identity, LaneUse::Reads, self.proven)
                    .await;
                match answer {
                    Ok(LaneAnswer::Open(lane)) => {
                        self.lane = Some(OwnLane {
                            lane,
                            links,
                            lane_use: LaneUse::StandIn,
                            epoch,
                        });
                        return Ok(());
                    }
                    Ok(LaneAnswer::NoAuth(line)) => {
                        let text = String::from_utf8_lossy(&line);
                        let text = text.trim_end().trim_start_matches('-').to_owned();
                        return self.refuse_front(&text).await;
                    }
                    Err(_) => self.seat.stand_in_failed(&links),
                }
            }
            self.outbox.state().check()?;
            if Instant::now() >= deadline {
                let text = self.budget_spent_text();
                return self.refuse_front(&text).await;
            }
            sleep(REDIAL_PAUSE).await;
        }
    }

    /// What was asked of this session's lane was refused with `line`, or lost with the lane: next
    /// time another node is asked.
    pub(super) fn lane_failed(&mut self, line: &[u8]) {
        let Some(own) = &self.lane else { return };
        match (own.lane_use, refusal(line)) {
            (LaneUse::StandIn, _) => {
                self.seat.stand_in_failed(&own.links);
                self.lane = None;
            }
            (_, Some(Refusal::Loading | Refusal::MasterDown)) => {
                let (epoch, missed) = (own.epoch, Missed::Refuses);
                if self.seat.miss_master(epoch, missed, &self.identity) {
                    self.lane = None;
                }
            }
            _ => {}
        }
    }
}

/// What may be asked of any node that has the data.
pub(super) fn is_plain_read(verdict: &Verdict) -> bool {
    verdict.class == Class::Read && !verdict.writes && verdict.path == Path::Lane
}
