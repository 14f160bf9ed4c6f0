//! Connections to clients and to nodes, in plain TCP or in TLS, behind one face.
//!
//! The control path and the admin API read and write a [`Stream`] as any other. The data path needs
//! more: lanes and outboxes write through a shared reference, without waiting, from whichever task
//! has something to say. For them a stream is taken apart into [`ReadHalf`] and [`WriteHalf`].
//!
//! **Invariants:** a plain connection costs what it did without TLS: one branch for each system
//! call, none for a request, and no allocation. Every handshake has the deadline of its caller.

mod accept;
mod dial;
mod half;
mod socket;
mod stream;

pub use accept::{Acceptor, HandshakeError};
pub use dial::Dialer;
pub use half::{ReadHalf, WriteHalf};
pub use stream::Stream;
