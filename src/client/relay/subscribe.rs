//! Subscriptions: what the session is subscribed to, so that it is subscribed to the same on
//! another master.
//!
//! **Invariant:** while something is received, the session has its place among those whom a release
//! waits for.

use std::collections::HashSet;

use bytes::Bytes;

use super::effects::Effect;
use super::{Awaited, Keeps, Relay};
use crate::resp::command::SubKind;
use crate::resp::scan::{ReplyKind, args};

/// Channels and patterns one session may be subscribed to.
const SUBSCRIPTIONS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) channels: HashSet<Bytes>,
    pub(super) patterns: HashSet<Bytes>,
    pub(super) shard: HashSet<Bytes>,
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard.is_empty()
    }

    pub(super) fn contains(&self, kind: SubKind, name: &[u8]) -> bool {
        match kind {
            SubKind::Channel => self.channels.contains(name),
            SubKind::Pattern => self.patterns.contains(name),
            SubKind::Shard => self.shard.contains(name),
        }
    }

    pub(super) fn of(&mut self, kind: SubKind) -> &mut HashSet<Bytes> {
        match kind {
            SubKind::Channel => &mut self.channels,
            SubKind::Pattern => &mut self.patterns,
            SubKind::Shard => &mut self.shard,
        }
    }
}

impl Relay<'_> {
    pub(super) fn subscribe(&mut self, request: &Bytes, kind: SubKind) {
        if !self.has_room_for(request, kind, 0) {
            return self.session.say(too_many().as_bytes());
        }
        let confirmations = self.subscribes(request, kind);
        self.become_receiver();
        self.send(request, Awaited::Confirm(kind, confirmations), false);
    }

    pub(super) fn unsubscribe(&mut self, request: &Bytes, kind: SubKind) {
        let confirmations = self.unsubscribes(request, kind);
        self.send(request, Awaited::Confirm(kind, confirmations), false);
    }

    /// Subscribes when `EXEC` runs it.
    pub(super) fn queue_subscribe(&mut self, request: &Bytes, kind: SubKind) {
        let queued = self.transaction.as_ref().map_or(0, |open| open.subscribes);
        if !self.has_room_for(request, kind, queued) {
            return self.fail_transaction(too_many().into_bytes());
        }
        if let Some(open) = &mut self.transaction {
            open.subscribes += args(request).skip(1).count();
        }
        self.queue(Effect::Subscribe(kind), request.clone(), request, false);
    }

    fn has_room_for(&mut self, request: &[u8], kind: SubKind, queued: usize) -> bool {
        let more = queued.saturating_add(args(request).skip(1).count());
        self.subscriptions.of(kind).len().saturating_add(more) <= SUBSCRIPTIONS_MAX
    }

    /// The server is subscribing the session: how many confirmations it will send.
    pub(super) fn subscribes(&mut self, request: &[u8], kind: SubKind) -> usize {
        self.subscribing.clear();
        let set = self.subscriptions.of(kind);
        for name in args(request).skip(1) {
            let name = Bytes::copy_from_slice(name);
            if set.insert(name.clone()) {
                self.subscribing.push(name);
            }
        }
        if self.keeps == Keeps::Nothing {
            self.keeps = Keeps::Subscriptions;
        }
        args(request).skip(1).count().max(1)
    }

    /// The same of the end of subscriptions.
    pub(super) fn unsubscribes(&mut self, request: &[u8], kind: SubKind) -> usize {
        self.subscribing.clear();
        let set = self.subscriptions.of(kind);
        let names = args(request).skip(1).count();
        if names == 0 {
            let confirmations = set.len().max(1);
            set.clear();
            return confirmations;
        }
        for name in args(request).skip(1) {
            set.remove(name);
        }
        names
    }

    /// Something that was received is not any more.
    pub(super) fn receives_less(&mut self) {
        if self.keeps != Keeps::Subscriptions
            && self.keeps != Keeps::Monitor
            && self.subscriptions.is_empty()
            && !self.tracking.is_on()
            && self.blocked.is_none()
        {
            self.receiver = None;
        }
    }

    pub(super) fn become_receiver(&mut self) {
        let gate = &self.session.seat.gate;
        let epoch = self.epoch;
        self.receiver.get_or_insert_with(|| gate.receive(epoch));
    }

    /// A subscription that the server refused was refused whole.
    pub(super) fn subscriptions_settled(&mut self, of: SubKind, kind: ReplyKind) {
        let added = std::mem::take(&mut self.subscribing);
        if kind == ReplyKind::Error {
            for name in added {
                self.subscriptions.of(of).remove(&name);
            }
        }
        let none = self.subscriptions.is_empty();
        if none && self.keeps == Keeps::Subscriptions && self.expects.is_empty() {
            self.keeps = Keeps::Nothing;
            self.receives_less();
        }
        self.receiver_settled();
    }

    /// Nothing is expected any more but what waits: whatever was to be received is received from
    /// this node.
    pub(super) fn receiver_settled(&self) {
        if (self.expects.is_empty() || self.waits_on_server())
            && let Some(receiver) = &self.receiver
        {
            receiver.moved_to(self.epoch);
        }
    }
}

fn too_many() -> String {
    format!("-ERR more than {SUBSCRIPTIONS_MAX} subscriptions\r\n")
}
