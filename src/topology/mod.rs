//! Control path, step 1: what is true.

pub mod engine;
pub mod facts;
pub mod identity;
pub mod node;
pub mod watch;
