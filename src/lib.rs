#![forbid(unsafe_code)]
//! Pointsman: a Redis-protocol proxy that changes the master behind its clients while they keep
//! writing.
//!
//! # The house
//!
//! ```text
//!             data path                                   control path
//!    client -> session -> gate -> lane -> master      topology -> switchover -> (gate, route)
//!                            \--> pinned -> master        admin, CLI, signals drive it
//! ```
//!
//! The data path never names the control path and the control path never touches a client: they
//! meet in two small objects, the gate and the route. In the order in which a request and an order
//! to switch pass through:
//!
//! | module | what it is |
//! |---|---|
//! | [`resp`] | the protocol: scanner, command table, the replies that the proxy reads itself |
//! | [`config`] | `config.toml`, checked whole, every problem told at once |
//! | [`transport`] | connections to clients and nodes, plain or in TLS |
//! | [`telemetry`] | every metric name and handle, the form of the log |
//! | [`client`] | data path, downstream: listener, session, outbox, relay |
//! | [`shard`] | where the two paths meet: gate and route |
//! | [`upstream`] | data path, outbound: connections, lanes, the pool |
//! | [`worker`] | one thread of the data path |
//! | [`topology`] | control path, step 1: what the nodes say |
//! | [`switchover`] | control path, step 2: the plan, its executor, the journal |
//! | [`admin`] | HTTP API, status page, metrics endpoint |
//! | [`cli`] | one file per subcommand |
//! | [`server`] | builds everything once; order of start and stop |
//!
//! **Invariants:** imports run one way (a test walks them); state is an enum; everything that grows
//! has a limit; every wait for the network has a deadline; a write whose fate is unknown is never
//! sent again.
//!
//! # One request
//!
//! `SET k v` of a session that has written before: the session's task reads it into its input and
//! [`resp::scan::RequestScanner`] finds its end; [`resp::command::classify`] says *a write, for a
//! lane*; the gate is open, so it is counted there and copied onto the session's
//! [`upstream::lane::Lane`], whose task is woken once for all sessions of this tick and writes all
//! their requests at once. The reply is matched to the oldest waiter, copied to its
//! [`client::outbox::Outbox`] and written to the client from there; the gate counts the write as
//! ended. The session's task was not woken for it.
//!
//! # One switchover
//!
//! `POST /v1/shards/main/switchover` becomes an order to the shard's actor
//! ([`switchover::control`]); [`switchover::plan`] decides what is to be done after each event and
//! [`switchover::exec`] does it. Its banner comment is the protocol, step by step.

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
pub mod transport;
pub mod upstream;
pub mod worker;
