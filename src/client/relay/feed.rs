//! Requests of a session on a connection of its own, client to server.

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::super::links::SILENCE_MAX;
use super::super::session::LANE_REQUEST_BYTES_MAX;
use super::super::state::{Closed, Transaction};
use super::upload::Upload;
use super::{Awaited, Expect, Feed, Keeps, OUT_BYTES_MAX, Relay, keeps_after};
use crate::resp::command::policy::Ruled;
use crate::resp::command::{Local, Path, Pin, Verdict};
use crate::resp::scan::{Form, Request, RequestScanner};
use crate::upstream::identity::Resp;
use crate::upstream::trial;

impl Relay<'_> {
    /// Passes on every request that needs no waiting, and says what the next one needs.
    pub(super) fn feed(&mut self) -> Result<Feed, Closed> {
        self.session.outbox.state().check()?;
        if let Some(feed) = self.before_requests()? {
            return Ok(feed);
        }
        self.reply_due = self.reply_due.filter(|_| self.is_reopening());
        loop {
            if self.session.outbox.is_crowded() {
                return Ok(Feed::Backlog);
            }
            if self.out.len() > OUT_BYTES_MAX {
                return Ok(Feed::Room);
            }
            self.send_alone();
            let crowded = self.expects.len() >= self.session.seat.limits.pipeline_max;
            if crowded
                || self.blocked.is_some()
                || self.awaits_confirmation()
                || self.awaits_identity()
            {
                return Ok(Feed::Wait);
            }
            if let Some(feed) = self.upload_first()? {
                return Ok(feed);
            }
            let fed = match self.upload.as_ref().and_then(|upload| upload.end) {
                Some(len) => self.request(len)?,
                None => self.front()?,
            };
            if let Some(feed) = fed {
                return Ok(feed);
            }
        }
    }

    /// What has to be done, or waited for, before any further request is looked at.
    fn before_requests(&mut self) -> Result<Option<Feed>, Closed> {
        if self.session.ends {
            return Err(Closed::Killed);
        }
        if self.withheld.is_some() && !self.expects.any_of_client() {
            return Ok(Some(Feed::Refused));
        }
        if self.link_ended {
            return self.link_has_ended().map(Some);
        }
        if self.session.eof && self.waits_on_server() {
            return Err(Closed::ClientGone);
        }
        if self.is_called_back() {
            return Ok(Some(Feed::CallBack));
        }
        if self.session.seat.is_stopping() && self.may_stop() {
            return Err(Closed::Shutdown);
        }
        if self.has_moved() && !self.stays() {
            return self.moved().map(Some);
        }
        Ok(self.withheld.is_some().then_some(Feed::Wait))
    }

    /// Takes what the client's input begins with. `None`: there may be more behind it.
    fn front(&mut self) -> Result<Option<Feed>, Closed> {
        let limits = &self.session.seat.limits.request;
        match self.session.scanner.scan(&self.session.input, limits) {
            Ok(Request::Incomplete) => self.incomplete().map(Some),
            Ok(Request::Blank { len }) => {
                self.session.input.advance(len);
                self.session.saw_blank();
                Ok(None)
            }
            Ok(Request::Complete {
                form: Form::Inline, ..
            })
            | Err(_) => {
                // Rare: the session deals with it once the connection is quiet.
                if !self.expects.is_empty() {
                    self.session.scanner = RequestScanner::default();
                    return Ok(Some(Feed::Wait));
                }
                self.inline_or_broken()?;
                Ok(None)
            }
            Ok(Request::Complete {
                len,
                form: Form::Multibulk,
            }) => self.request(len),
        }
    }

    fn link_has_ended(&mut self) -> Result<Feed, Closed> {
        // A connection that has ended is silent.
        self.expects
            .retain(|expect| !matches!(expect.what, Awaited::Silence));
        if self.expects.any_write() {
            return Err(Closed::AmbiguousWrite);
        }
        if self.expects.is_empty() {
            self.out.clear();
        }
        let clean = self.is_clean() && self.blocked.is_none();
        if clean {
            Ok(Feed::Leave)
        } else {
            Err(Closed::UpstreamLost)
        }
    }

    /// The route has left this connection's node: nothing more is sent to it.
    fn moved(&mut self) -> Result<Feed, Closed> {
        if let Some(upload) = &mut self.upload {
            if !upload.is_kept() {
                return Err(Closed::NotCarried);
            }
            if self.expects.is_empty() {
                self.out.clear();
            }
        }
        if !self.expects.is_empty() || !self.out.is_empty() {
            self.reply_due
                .get_or_insert_with(|| Instant::now() + SILENCE_MAX);
            return Ok(Feed::Wait);
        }
        if self.blocked.is_some() {
            // It has not been sent here, and is sent there.
            self.owe_again();
            return Ok(Feed::Room);
        }
        match self.keeps {
            Keeps::Nothing if self.is_clean() => Ok(Feed::Leave),
            _ if self.receiver.is_some() && !self.flushed => {
                // What the old node sends before this answer was published before the fence.
                self.flushed = true;
                self.expect_own(trial::request(), Awaited::Swallow, true);
                Ok(Feed::Wait)
            }
            _ => Ok(Feed::Carry),
        }
    }

    fn awaits_confirmation(&self) -> bool {
        matches!(
            self.expects.back(),
            Some(Expect {
                what: Awaited::Confirm(..),
                ..
            })
        ) || self.is_reopening()
    }

    fn inline_or_broken(&mut self) -> Result<(), Closed> {
        let limits = &self.session.seat.limits.request;
        match self.session.scanner.scan(&self.session.input, limits) {
            Ok(Request::Complete {
                form: Form::Inline, ..
            }) => self
                .session
                .reframe_inline()
                .map_err(|_| Closed::ProtocolError),
            Ok(_) => Ok(()),
            Err(error) => {
                self.session.outbox.push(&error.reply());
                Err(Closed::ProtocolError)
            }
        }
    }

    /// The request in front is not all here.
    fn incomplete(&mut self) -> Result<Feed, Closed> {
        let session = &mut *self.session;
        let large = session.input.len() > LANE_REQUEST_BYTES_MAX
            || session.scanner.needed() > LANE_REQUEST_BYTES_MAX as u64;
        if !large && self.upload.is_none() {
            if session.eof && self.expects.is_empty() {
                return Err(Closed::ClientGone);
            }
            let leave = self.is_clean();
            return Ok(if leave { Feed::Leave } else { Feed::Read });
        }
        if session.eof {
            return Err(Closed::ClientGone);
        }
        if self.upload.is_none()
            && let Some(feed) = self.reopen_for_upload()?
        {
            return Ok(feed);
        }
        let session = &mut *self.session;
        let verdict = match &self.upload {
            Some(upload) => upload.verdict,
            // A name as long as that is no command that anybody knows.
            None => session.verdict(&session.input),
        };
        match verdict.path {
            // What it subscribes to or tracks must be known, so it is collected.
            Path::Pinned(Pin::Subscribe(_) | Pin::Unsubscribe(_) | Pin::Tracking | Pin::Pause)
                if session.input.len() < session.seat.limits.session_buffer_bytes_max =>
            {
                return Ok(Feed::Read);
            }
            Path::Local(_)
            | Path::Refused(_)
            | Path::Ruled(_)
            | Path::Pinned(
                Pin::Subscribe(_) | Pin::Unsubscribe(_) | Pin::Tracking | Pin::Pause | Pin::Tunnel,
            ) => {
                session.outbox.push(b"-ERR this command is too long\r\n");
                return Err(Closed::ProtocolError);
            }
            Path::Lane | Path::Pinned(_) => {}
        }
        if verdict.writes && !session.seat.gate.is_open() {
            return Ok(Feed::Hold);
        }
        // Only now is something of it on this connection that no other can continue.
        let seat = &session.seat;
        let upload = self
            .upload
            .get_or_insert_with(|| Upload::new(verdict, seat));
        let ready = session.scanner.pos().min(session.input.len());
        session.scanner.consumed(ready);
        let piece = session.input.split_to(ready).freeze();
        self.out.extend_from_slice(&piece);
        upload.keep(piece);
        Ok(Feed::Read)
    }

    /// One whole request, or the last piece of an upload, `len` bytes, is in front. `None`: it
    /// was passed on or answered.
    fn request(&mut self, len: usize) -> Result<Option<Feed>, Closed> {
        let verdict = match &self.upload {
            Some(upload) => upload.verdict,
            None => self.session.verdict(&self.session.input),
        };
        let ends = matches!(
            verdict.path,
            Path::Local(Local::Quit | Local::HangUp | Local::Reset)
        );
        if !ends && let Some(feed) = self.reopen_transaction() {
            self.judge_later(len);
            return Ok(Some(feed));
        }
        if self.waits_its_turn(&verdict) {
            self.judge_later(len);
            return Ok(Some(Feed::Wait));
        }
        match verdict.path {
            Path::Refused(text) | Path::Ruled(&Ruled { refusal: text, .. }) => {
                return Ok(self.refuse(len, text));
            }
            Path::Local(local) => return Ok(self.local(local, len)),
            Path::Lane if self.is_clean() && self.session.suits_a_lane(len, verdict.writes) => {
                self.session.scanner = RequestScanner::default();
                return Ok(Some(Feed::Leave));
            }
            Path::Pinned(Pin::Scan) if len <= LANE_REQUEST_BYTES_MAX && self.may_scan() => {
                self.session.scanner = RequestScanner::default();
                return Ok(Some(if self.is_clean() {
                    Feed::Leave
                } else if self.expects.is_empty() {
                    Feed::Scan(len)
                } else {
                    Feed::Wait
                }));
            }
            Path::Lane | Path::Pinned(_) => {}
        }
        if verdict.writes && !self.session.seat.gate.is_open() {
            self.judge_later(len);
            return Ok(Some(Feed::Hold));
        }
        if self.upload.is_none() && self.session.wants_scripts(&self.session.input) {
            self.judge_later(len);
            return Ok(Some(Feed::Scripts(len)));
        }
        if let Path::Pinned(Pin::Subscribe(_) | Pin::Unsubscribe(_)) = verdict.path
            && self.transaction.is_none()
            && !self.expects.is_empty()
        {
            self.judge_later(len);
            return Ok(Some(Feed::Wait));
        }
        if verdict.path == Path::Pinned(Pin::Tracking) && self.needs_target(len) {
            self.judge_later(len);
            let quiet = self.expects.is_empty() && self.out.is_empty();
            return Ok(Some(if quiet { Feed::Target(len) } else { Feed::Wait }));
        }
        if self.needs_quiet(&verdict) && !self.expects.is_empty() {
            self.judge_later(len);
            return Ok(Some(Feed::Wait));
        }
        if verdict.path == Path::Pinned(Pin::Tunnel) && self.transaction.is_none() {
            return Ok(Some(Feed::Tunnel(len)));
        }
        self.note_pause(&verdict);
        self.pass_on(len, verdict);
        Ok(None)
    }

    /// Whether a step of an iteration may leave this connection: a transaction holds it, and in
    /// RESP2 a subscription lets nothing else pass.
    fn may_scan(&self) -> bool {
        let resp2 = self.session.identity.resp == Resp::Resp2;
        let listens = self.keeps == Keeps::Monitor || !self.subscriptions.is_empty();
        self.transaction.is_none() && self.upload.is_none() && !(resp2 && listens)
    }

    /// The request in front must wait and will be judged again. The end of an upload, `len` bytes,
    /// stays judged: its beginning is gone, and what is left of it would be read as requests.
    pub(super) fn judge_later(&mut self, len: usize) {
        match &mut self.upload {
            Some(upload) => upload.end = Some(len),
            None => self.session.scanner = RequestScanner::default(),
        }
    }

    fn pass_on(&mut self, len: usize, verdict: Verdict) {
        let mut upload = self.upload.take();
        let uploaded = upload.is_some();
        let request = self.session.input.split_to(len).freeze();
        if let Some(upload) = &mut upload {
            upload.keep(request.clone());
        }
        self.pass_on_request(&request, verdict, uploaded);
        if let Some(upload) = upload {
            self.expects.was_end_of(upload);
        }
    }

    fn pass_on_request(&mut self, request: &Bytes, verdict: Verdict, uploaded: bool) {
        let pin = match verdict.path {
            Path::Pinned(pin) => Some(pin),
            _ => None,
        };
        if self.transaction.is_some() {
            return self.pass_on_in_transaction(request, pin, verdict, uploaded);
        }
        match pin {
            Some(Pin::Multi) => {
                let mut opened = Transaction::open();
                opened.watch_lost = std::mem::take(&mut self.watch_lost);
                self.transaction = Some(opened);
                self.send(request, Awaited::Multi, false);
            }
            Some(Pin::Watch) => {
                self.watching = true;
                self.send(request, Awaited::Plain, false);
            }
            Some(Pin::Unwatch) => {
                self.watching = false;
                self.watch_lost = false;
                self.send(request, Awaited::Cleaning, false);
            }
            Some(pin @ (Pin::Blocking | Pin::Wait)) => {
                let kept = if uploaded {
                    Bytes::new()
                } else {
                    request.clone()
                };
                self.pass_on_blocking(request, kept, pin);
            }
            Some(Pin::ScriptFlush) => self.send(request, Awaited::ScriptFlush, true),
            Some(Pin::Subscribe(kind)) => self.subscribe(request, kind),
            Some(Pin::Unsubscribe(kind)) => self.unsubscribe(request, kind),
            Some(Pin::Sticky) => self.send(request, Awaited::Sticky, verdict.writes),
            Some(Pin::Tracking) => self.pass_on_tracking(request),
            _ => {
                let keeps = keeps_after(&verdict.path);
                // Lines of MONITOR go on, whatever else becomes of the connection.
                if keeps != Keeps::Nothing && self.keeps != Keeps::Monitor {
                    self.keeps = keeps;
                }
                if keeps == Keeps::Monitor {
                    self.become_receiver();
                }
                self.send(request, Awaited::Plain, verdict.writes);
            }
        }
    }

    /// A command that the proxy does not pass on. In a transaction it must fail the whole of it.
    pub(super) fn refuse(&mut self, len: usize, text: &str) -> Option<Feed> {
        let line = format!("-{text}\r\n").into_bytes();
        if self.transaction.is_some() {
            self.session.input.advance(len);
            self.fail_transaction(line);
            return None;
        }
        if !self.expects.is_empty() {
            self.judge_later(len);
            return Some(Feed::Wait);
        }
        self.session.input.advance(len);
        self.session.say(&line);
        None
    }
}
