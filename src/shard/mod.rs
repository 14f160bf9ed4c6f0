//! Where the data path and the control path meet.
