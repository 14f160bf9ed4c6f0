//! The data path, outbound.
