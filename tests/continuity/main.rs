//! What sessions keep while the master changes to and fro under their hands: one module per kind
//! of state, each with clients at work through several switchovers.

#[path = "../support/mod.rs"]
mod support;

mod caching;
mod identity;
mod messages;
mod pipelines;
mod scans;
mod scripts;
mod shuttle;
mod transactions;
mod uploads;
mod waiting;
mod watching;
