//! Masters that die. Three real Sentinels watch the shard: their failovers are followed, and they
//! are told of our switchovers. Or nobody does, and the proxy is told to act alone.

#[path = "../nodes/proxy.rs"]
mod control;
#[path = "../nodes/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod alone;
mod failover;
mod late;
mod ours;
mod reads;
mod watchers;
mod writers;
