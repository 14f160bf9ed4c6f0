//! Three real Sentinels watch the shard: their failovers are followed, and they are told of ours.

#[path = "../support/mod.rs"]
mod support;

mod failover;
mod ours;
mod watchers;
mod writers;
