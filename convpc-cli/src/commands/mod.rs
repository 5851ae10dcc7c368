//! One file for each group of verbs.

pub(crate) mod architecture;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod complete;
pub(crate) mod demo;
pub(crate) mod edit;
pub(crate) mod run_flags;
pub(crate) mod sample;
pub(crate) mod score;
pub(crate) mod session;
pub(crate) mod train;
