//! Finds where requests and replies end, without copying, allocating or reading a byte twice.
//!
//! Two scanners, one per direction. Both are resumable: what they know survives between reads, so
//! a frame that arrives in a thousand pieces costs as much as one that arrives whole. Both are
//! iterative: nesting is a counter with a limit, never the call stack.
//!
//! * [`RequestScanner`] reads what clients send. It is strict, because a request that Redis would
//!   read differently could shift a connection that other sessions share.
//! * [`ReplyScanner`] reads what nodes send. It checks only what it needs to find the end of a
//!   reply, because a reply is not ours to judge, and it lets the caller drop what it has passed.
//!
//! **Invariant:** no input makes a scanner panic, recurse or allocate; how the input is cut into
//! reads never changes the result.
//!
//! # Trade-offs
//!
//! redis-protocol decodes both directions, but it needs 156 ns to find the end of a SET with three
//! arguments, against 17 ns here (`benches/scan.rs`, two busy shared cores), starts again at byte 0
//! on every read, recurses without a limit and knows no inline commands. It remains the oracle of
//! the property tests in `tests/protocol.rs`.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod args;
mod error;
mod inline;
mod line;
mod reply;
mod request;

pub use args::{Args, args, write_request};
pub use error::ProtocolError;
pub use inline::{reframe, split_inline};
pub use reply::{NESTING_MAX, Reply, ReplyError, ReplyKind, ReplyScanner, is_null};
pub use request::{ARGS_KEPT, Form, Request, RequestLimits, RequestScanner};
