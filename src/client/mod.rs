//! The data path, downstream.
