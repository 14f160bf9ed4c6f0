//! Where the data path and the control path meet: the gate and the route, the only shared
//! mutable state of a shard.
//!
//! **Invariant:** the writing halves ([`gate_control::GateControl`], [`route::RouteControl`]) are
//! made once, when the shard is built, and handed to the control path alone; the data path gets the
//! reading halves. Who may hold writes or change the route is answered by the types.

pub mod doubt;
pub mod failover;
pub mod gate;
pub mod gate_control;
pub mod line;
pub mod route;
