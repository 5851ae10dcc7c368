//! Learning.

pub mod em;
