//! The master changes without us: by an operator's hand, by Redis' own FAILOVER, by another proxy.
//! Clients of all kinds are at work meanwhile; none of them sees an error, nothing that was
//! acknowledged is lost, nothing happens twice and nobody reads what is older than what was
//! acknowledged.

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod by_hand;
mod crowd;
mod listeners;
mod two_proxies;
