//! What is sent on a connection of the session's own, and the reply that is expected for it.

use super::{Awaited, Expect, Relay};
use crate::client::state::ReplyMode;
use crate::resp::scan::args;

impl Relay<'_> {
    /// Sends a request of the client and expects its reply.
    pub(super) fn send(&mut self, request: &[u8], what: Awaited, write: bool) {
        self.send_instead(request, request, what, write);
    }

    /// Sends something in the place of a request of the client, which is asked again in its own
    /// words.
    pub(super) fn send_instead(
        &mut self,
        asked: &[u8],
        request: &[u8],
        what: Awaited,
        write: bool,
    ) {
        let seat = &self.session.seat;
        if write {
            seat.gate.admit_writes(1);
            seat.counts.writes.add(1);
        } else {
            seat.counts.reads.add(1);
        }
        let mute = self.session.reply_mode != ReplyMode::On;
        if self.session.reply_mode == ReplyMode::SkipNext {
            self.session.reply_mode = ReplyMode::On;
        }
        self.session
            .presence
            .ran(args(request).next().unwrap_or_default());
        self.out.extend_from_slice(asked);
        self.expects.sent(request, what, write, mute);
    }

    /// Sends a request of the proxy's own in the place of the client's, or in front of it.
    pub(super) fn send_own(&mut self, request: &[u8], what: Awaited) {
        let mute = self.session.reply_mode != ReplyMode::On;
        self.expect_own(request, what, mute);
    }

    /// Sends a request that the client knows nothing of.
    pub(super) fn expect_own(&mut self, request: &[u8], what: Awaited, mute: bool) {
        self.out.extend_from_slice(request);
        self.expects.push_back(Expect::own(what, mute));
    }
}
