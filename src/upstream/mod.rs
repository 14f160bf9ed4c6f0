//! The data path, outbound: connections to nodes.
//!
//! * [`connection`]: one connection to one node, dialled and authenticated.
//! * [`lane`]: a connection shared by many sessions; replies matched in FIFO order.
//! * [`on_way`]: a lane's requests, from the session to the reply.
//! * [`pinned`]: connections that belong to one session at a time, and the pool they come from.
//! * [`trial`]: the question with which a new connection is tried.
//!
//! **Invariant:** nothing here knows of gates and routes; which node to talk to and whether a
//! request may be sent is decided by the caller.

pub mod connection;
pub mod identity;
pub mod lane;
pub mod on_way;
pub mod pinned;
pub mod trial;
