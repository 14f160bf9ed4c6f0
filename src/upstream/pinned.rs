//! Connections that belong to one session at a time, and the pool they come from.
//!
//! **Invariant:** a pooled connection has the identity it is filed under, no reply outstanding
//! and no state of a former user: only connections that are proven clean are given back, all
//! others are closed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::connection::{Connection, DialError};
use super::identity::Identity;
use crate::transport::Dialer;

/// Idle connections of one worker to one node, by identity.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<Identity, Vec<Connection>>>,
    idle_max: usize,
    dialer: Dialer,
}

impl Pool {
    /// Keeps at most `idle_max` idle connections.
    pub fn new(dialer: Dialer, idle_max: usize) -> Self {
        Self {
            dialer,
            idle: RefCell::default(),
            idle_max,
        }
    }

    /// A clean connection with this identity: an idle one, or a new one dialled within
    /// `deadline`.
    pub async fn take(
        &self,
        node: &str,
        identity: &Identity,
        deadline: Duration,
    ) -> Result<Connection, DialError> {
        while let Some(connection) = self.pop(identity) {
            if connection.is_idle() {
                return Ok(connection);
            }
        }
        // Boxed: it happens rarely, and whoever takes a connection would be as large.
        Box::pin(Connection::dial(&self.dialer, node, identity, deadline)).await
    }

    fn pop(&self, identity: &Identity) -> Option<Connection> {
        self.idle.borrow_mut().get_mut(identity)?.pop()
    }

    /// Closes the idle connections of an identity that nobody has any more.
    pub fn forget(&self, identity: &Identity) {
        self.idle.borrow_mut().remove(identity);
    }

    /// Gives back a connection that its user has proven clean. It is closed instead when the
    /// pool is full.
    pub fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let kept: usize = idle.values().map(Vec::len).sum();
        if kept < self.idle_max && connection.input.is_empty() && !connection.scanner.mid_reply() {
            idle.entry(connection.identity.clone())
                .or_default()
                .push(connection);
        }
        idle.retain(|_, connections| !connections.is_empty());
    }
}
