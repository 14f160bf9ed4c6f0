//! Control path, step 2: change it.

pub mod exec;
pub mod journal;
pub mod kvrocks;
pub mod plan;
pub mod preflight;
pub mod redis;
pub mod report;
pub mod sink;
pub mod view;
