//! x
pub mod direct_writer;
pub mod load;
pub mod marked;
pub mod proof;
pub mod servers;
pub mod wire;
pub mod workspace;
