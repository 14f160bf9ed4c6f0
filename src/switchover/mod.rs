//! Control path, step 2: change it.
//!
//! * [`plan`]: decides, purely; its banner is the protocol.
//! * [`exec`]: does what the plan decides, and tells it what came of it.
//! * [`control`]: one actor per shard: orders, recovery, following what somebody else changed.
//! * [`preflight`]: every requirement, looked at and named.
//! * [`orders`], [`redis`], [`kvrocks`]: what is said to a node, in its engine's words.
//! * [`attach`], [`resolve`]: the old master and the replicas follow; the fate of a lost promotion.
//! * [`claim`]: one proxy at a time. [`peers`]: the others hold and follow with it.
//! * [`sentinels`], [`telling`]: those that watch the shard, looked at before and told after.
//! * [`sink`]: where a fenced Kvrocks is told to replicate from.
//! * [`journal`]: one durable record before the hold, one after the end.
//! * [`report`], [`view`]: what operators see, and may order.
//!
//! **Invariant:** this is the only place with the writing halves of gate and route, and it never
//! touches a client.

pub mod attach;
pub mod claim;
pub mod control;
pub mod exec;
pub mod failover;
pub mod journal;
pub mod kvrocks;
pub mod orders;
pub mod peers;
pub mod plan;
pub mod preflight;
pub mod redis;
pub mod report;
pub mod resolve;
pub mod sentinels;
pub mod sink;
pub mod telling;
pub mod view;
