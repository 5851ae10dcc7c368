//! convpc-cpu
