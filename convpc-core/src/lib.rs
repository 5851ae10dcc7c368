//! convpc-core
