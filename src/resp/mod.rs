//! The protocol: knows bytes, not sockets.
//!
//! * [`scan`]: where requests and replies end; resumable and iterative, for the data path.
//! * [`command`]: what every command is and which way it takes.
//! * [`refusal`]: errors that prove that a command was not executed.
//! * [`reply`]: the replies that the proxy itself reads; redis-protocol decodes them.
//! * [`sha1`]: the name by which servers know a script.

pub mod command;
pub mod refusal;
pub mod reply;
pub mod scan;
pub mod sha1;
