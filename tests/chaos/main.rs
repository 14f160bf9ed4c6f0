//! Clients that record what they do while masters are switched, programs die and links break; and a
//! checker that decides whether what they were told can be true.
//!
//! `make chaos` runs for ten minutes; `CHAOS_SECONDS`, `CHAOS_SEED` and `KVROCKS_BIN` choose other
//! runs. Every seed is printed before its run.

#[path = "../support/mod.rs"]
mod support;

mod book;
mod checker;
mod checker_tests;
mod clients;
mod dice;
mod history;
mod matrix;
mod model;
mod mutations;
mod nemesis;
mod nodes;
mod proof;
mod relay;
mod runs;
mod trap;
mod world;
