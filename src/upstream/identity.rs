//! Who a session is to the server: what must be the same on every connection that runs its
//! commands. Lanes and pooled connections are keyed by it, so that nobody's command ever runs
//! with another's rights, database or protocol version.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Resp {
    #[default]
    Resp2,
    Resp3,
}

/// User name (Redis 6 and later) and password, or a Kvrocks namespace token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: Option<Bytes>,
    pub password: Bytes,
}

/// Passwords must never reach a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The state of a connection that `HELLO`, `AUTH` and `SELECT` change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    pub credentials: Option<Rc<Credentials>>,
    pub resp: Resp,
    pub db: u32,
}

impl Identity {
    /// The user by name, who may cease to exist.
    pub fn user(&self) -> Option<&Bytes> {
        self.credentials.as_ref()?.user.as_ref()
    }
}
