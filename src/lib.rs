#![forbid(unsafe_code)]
//! Pointsman: a Redis-protocol proxy that changes the master behind its clients while they keep
//! writing.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod resp;
pub mod server;
pub mod shard;
pub mod switchover;
pub mod telemetry;
pub mod topology;
pub mod upstream;
pub mod worker;
