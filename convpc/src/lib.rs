//! convpc
