//! What was open on the node that the route has left is opened again on the next one: everything
//! in one batch, in front of whatever the client sends there.
//!
//! **Invariant:** nothing of the client's is sent behind the batch until every reply to it is here:
//! they say whether the session is again what it was.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::tracking::{FORGET_ALL, Tracking};
use super::{Again, Awaited, Expect, Keeps, Relay};
use crate::resp::scan::{ReplyKind, write_request};
use crate::upstream::identity::Resp;

const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";

impl Relay<'_> {
    /// Opens again what is open. The order matters: `CLIENT CACHING` counts for the next command,
    /// and `MONITOR` would show what follows it.
    pub(super) fn reopen(&mut self) {
        self.wear_name();
        self.flushed = false;
        if let Some(upload) = &mut self.upload {
            upload.begin_again();
        }
        self.reply_due = Some(Instant::now() + self.session.seat.limits.call_deadline());
        for request in self.session.modes.requests() {
            self.again(request, Again::Mode);
        }
        self.track_again();
        self.subscribe_again();
        if self.keeps == Keeps::Monitor {
            self.again(MONITOR, Again::Monitor);
        }
        if let Tracking::On(options) = &self.tracking
            && let Some(caching) = options.caching()
        {
            self.again(caching, Again::Caching);
        }
    }

    fn track_again(&mut self) {
        let Tracking::On(options) = &self.tracking else {
            return;
        };
        self.spent = true;
        let target = self.target.take().map(|(_, id)| id);
        if options.redirect.is_some() && target.is_none() {
            // The client is gone; the session was told when it went.
            return;
        }
        for request in options.requests(target) {
            self.again(&request, Again::Tracking);
        }
    }

    fn subscribe_again(&mut self) {
        let sets = [
            (&b"SUBSCRIBE"[..], &self.subscriptions.channels),
            (b"PSUBSCRIBE", &self.subscriptions.patterns),
            (b"SSUBSCRIBE", &self.subscriptions.shard),
        ];
        let mut requests = Vec::new();
        for (command, names) in sets {
            if !names.is_empty() {
                let mut words = vec![Bytes::from_static(command)];
                words.extend(names.iter().cloned());
                let mut request = BytesMut::new();
                write_request(&mut request, &words);
                requests.push((request, names.len()));
            }
        }
        for (request, confirmations) in requests {
            self.again(&request, Again::Subscribed(confirmations));
        }
    }

    pub(super) fn again(&mut self, request: &[u8], step: Again) {
        self.expect_own(request, Awaited::Again(step), true);
    }

    /// Whether replies are due that say what the session is on this connection.
    pub(super) fn is_reopening(&self) -> bool {
        // The session's name goes first.
        let mut first = self.expects.iter().take(2);
        first.any(|expect| matches!(expect.what, Awaited::Again(_)))
    }

    /// What the server said to one step of the batch.
    pub(super) fn settle_again(&mut self, step: Again, kind: ReplyKind, bytes: &[u8]) {
        match (step, kind) {
            (Again::Multi, kind) => self.reopened(kind, bytes),
            (Again::Queued, _) => self.requeued(bytes),
            // The new master refuses what the old one granted: the client must not wait in vain for
            // what it will not receive.
            (_, ReplyKind::Error) => {
                let id = self.session.id;
                let line = String::from_utf8_lossy(bytes);
                tracing::warn!(session = id, ?step, line = line.trim_end(), "not carried");
                self.link_ended = true;
            }
            (Again::Tracking, _) if !self.is_tracking_again() => self.forget_cache(),
            _ => {}
        }
        self.receiver_settled();
    }

    fn is_tracking_again(&self) -> bool {
        matches!(
            self.expects.front(),
            Some(Expect {
                what: Awaited::Again(Again::Tracking),
                ..
            })
        )
    }

    /// Tells the client that everything it has cached may have changed.
    fn forget_cache(&self) {
        if let Tracking::On(options) = &self.tracking
            && options.redirect.is_none()
            && self.session.identity.resp == Resp::Resp3
        {
            self.session.outbox.push(FORGET_ALL);
        }
    }
}
