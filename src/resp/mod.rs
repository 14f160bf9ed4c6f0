//! The protocol: knows bytes, not sockets.

pub mod command;
pub mod reply;
pub mod scan;
