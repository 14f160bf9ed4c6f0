//! What sessions keep while the master changes to and fro under their hands: one module per kind
//! of state, each with clients at work through several switchovers.

#[path = "../support/mod.rs"]
mod support;

mod caching;
mod shuttle;
mod transactions;
