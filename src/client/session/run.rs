//! Runs: requests in front of the input that go to the same lane in one piece.
//!
//! **Invariant:** a write is counted at the gate in the same tick in which it is queued on a lane.

use bytes::Buf;

use super::stand_in::is_plain_read;
use super::{LANE_REQUEST_BYTES_MAX, Session, Step};
use crate::client::links::LaneUse;
use crate::client::state::ReplyMode;
use crate::resp::command::policy::Ruled;
use crate::resp::command::{Path, Pin, Verdict};
use crate::resp::scan::args;

/// Requests at the front of the input that go to the same lane in one piece.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) end: usize,
    /// Where the last of them begins.
    last: usize,
    pub(super) count: usize,
    write: bool,
}

impl Run {
    fn add(&mut self, len: usize, write: bool) {
        self.last = self.end;
        self.end += len;
        self.count += 1;
        self.write = write;
    }
}

impl Session {
    pub(super) fn may_go_on(&self, run: &Run) -> Result<(), Step> {
        self.outbox.state().check().map_err(Step::Close)?;
        let full = self.lane.as_ref().is_some_and(|own| own.lane.is_full());
        if self.outbox.owed() + run.count >= self.seat.limits.pipeline_max
            || self.outbox.is_crowded()
            || full
        {
            return Err(Step::Room);
        }
        Ok(())
    }

    /// Decides about one complete request of `len` bytes behind the run: adds it to the run, or
    /// says what it needs first.
    #[inline]
    pub(super) fn take(&mut self, run: &mut Run, len: usize) -> Result<(), Step> {
        let rest = self.input.get(run.end..).unwrap_or_default();
        let verdict = self.verdict(rest);
        if let Some(noauth) = self.refused_unauthenticated(&verdict) {
            return self.answer_error_in_place(run, len, &noauth);
        }
        let write = verdict.writes;
        match verdict.path {
            Path::Lane if self.suits_a_lane(len, write) => {}
            Path::Pinned(Pin::Scan) if len <= LANE_REQUEST_BYTES_MAX => {
                return Err(Step::Scan(len));
            }
            Path::Lane | Path::Pinned(_) => return Err(Step::Relay),
            Path::Local(local) if local.needs_no_server() => {
                return Err(Step::Answer(local, len));
            }
            Path::Local(_) => return Err(Step::Relay),
            Path::Refused(text) | Path::Ruled(&Ruled { refusal: text, .. }) => {
                return self.answer_error_in_place(run, len, format!("-{text}\r\n").as_bytes());
            }
        }
        if write && !self.seat.gate.is_open() {
            return Err(Step::Hold);
        }
        if self.wants_scripts(rest) {
            return Err(Step::Scripts(len));
        }
        if run.count > 0 && run.write != write {
            self.send_run(run);
        }
        self.usable_lane(&verdict)?;
        run.add(len, write);
        if self.reply_mode == ReplyMode::SkipNext {
            self.send_run(run);
            self.reply_mode = ReplyMode::On;
        }
        Ok(())
    }

    /// Whether a request of a command that lanes carry may go on one: it delays nobody else there.
    #[inline]
    pub(in crate::client) fn suits_a_lane(&self, len: usize, write: bool) -> bool {
        len <= LANE_REQUEST_BYTES_MAX && !self.seat.pause.stops(write || self.writes)
    }

    /// Answers the request of `len` bytes behind the run with an error, in its turn.
    fn answer_error_in_place(
        &mut self,
        run: &mut Run,
        len: usize,
        line: &[u8],
    ) -> Result<(), Step> {
        self.send_run(run);
        if self.outbox.owed() > 0 {
            return Err(Step::Settle);
        }
        self.input.advance(len);
        self.say(line);
        Ok(())
    }

    /// Whether the session's lane serves the next request, and if not, what is to be done.
    #[inline]
    fn usable_lane(&mut self, verdict: &Verdict) -> Result<(), Step> {
        let write = verdict.writes;
        let epoch = self.seat.epoch();
        let (mut lane_use, stays) = if write || self.writes {
            (LaneUse::Writes, self.has_lane(epoch, LaneUse::Writes))
        } else {
            (LaneUse::Reads, self.has_lane(epoch, LaneUse::Reads))
        };
        if stays {
            return Ok(());
        }
        if self.seat.lacks_master(epoch) && is_plain_read(verdict) {
            lane_use = LaneUse::StandIn;
            if self.has_lane(epoch, lane_use) {
                return Ok(());
            }
        }
        match &self.lane {
            Some(_) if self.outbox.owed() > 0 => Err(Step::Settle),
            _ if write => Err(Step::FindLane(lane_use, self.seat.limits.hold_budget)),
            _ => Err(Step::FindLane(lane_use, self.seat.limits.reads_budget)),
        }
    }

    #[inline]
    fn has_lane(&self, epoch: u64, lane_use: LaneUse) -> bool {
        let own = self.lane.as_ref();
        own.is_some_and(|own| own.epoch == epoch && own.lane_use == lane_use && own.lane.is_open())
    }

    /// Queues the run on the session's lane and takes it out of the input.
    pub(super) fn send_run(&mut self, run: &mut Run) {
        if run.count == 0 {
            return;
        }
        let Run {
            end,
            count,
            write,
            last,
        } = std::mem::take(run);
        let Some(own) = &self.lane else { return };
        if write {
            self.seat.gate.admit_writes(count);
            self.writes = true;
            self.seat.counts.writes.add(count as u64);
        } else {
            self.seat.counts.reads.add(count as u64);
        }
        self.outbox.owe(count);
        let mute = self.reply_mode != ReplyMode::On;
        let requests = self.input.get(..end).unwrap_or_default();
        let name = requests.get(last..).and_then(|last| args(last).next());
        self.presence.ran(name.unwrap_or_default());
        own.lane.send(requests, &self.outbox, count, write, mute);
        self.input.advance(end);
    }
}
