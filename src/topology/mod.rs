//! Control path, step 1: what is true.

pub mod node;
pub mod watch;
