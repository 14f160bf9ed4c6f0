//! Three real Sentinels watch the shard: their failovers are followed, and they are told of ours.

#[path = "../nodes/proxy.rs"]
mod control;
#[path = "../nodes/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod failover;
mod late;
mod ours;
mod reads;
mod watchers;
mod writers;
