//! Control path, step 2: change it.

pub mod attach;
pub mod control;
pub mod exec;
pub mod journal;
pub mod kvrocks;
pub mod orders;
pub mod plan;
pub mod preflight;
pub mod redis;
pub mod report;
pub mod resolve;
pub mod sink;
pub mod view;
