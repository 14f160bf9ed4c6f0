//! What other sessions see of a session while it has a connection of its own.

use std::sync::Arc;

use super::super::presence::{Presence, Upstream};
use super::super::session::Session;
use super::Relay;

/// Others see the session's connection as long as it has one.
pub(super) struct Shown(pub Arc<Presence>);

impl Shown {
    pub(super) fn of(session: &Session) -> Self {
        Self(Arc::clone(&session.presence))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.has_upstream(None);
        self.0.blocks(false);
        self.0.subscribes(false);
        self.0.replicates(false);
    }
}

impl Relay<'_> {
    /// The connection is this one now: others find the session by it.
    pub(super) fn arrived(&mut self) {
        self.shown.0.has_upstream(Some(Upstream {
            epoch: self.epoch,
            addr: self.link.addr,
        }));
    }

    pub(super) fn show(&self) {
        let waits = self.reissue || self.waits_on_server();
        self.shown.0.blocks(waits);
        self.shown.0.subscribes(!self.subscriptions.is_empty());
    }
}
