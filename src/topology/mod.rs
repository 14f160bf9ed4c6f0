//! Control path, step 1: what is true.
//!
//! * [`node`]: a control connection to one node, with a deadline on every call.
//! * [`engine`], [`facts`], [`identity`]: what a node is, says, and is called by others.
//! * [`watch`]: all nodes of a shard as last observed, each with its age.
//! * [`sentinel`]: what the Sentinels of a shard say.
//! * [`stand_in`]: who may be read from while there is no master.
//!
//! **Invariant:** nothing here changes a node or decides anything.

pub mod engine;
pub mod facts;
pub mod identity;
pub mod node;
pub mod sentinel;
pub mod stand_in;
pub mod watch;
