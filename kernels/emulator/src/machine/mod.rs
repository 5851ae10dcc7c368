//! The device: memory, warps, blocks.
//!
//! A warp executes one instruction for all its lanes at once as long as they stand at the same place, which is what
//! makes the emulator fast: the cost of decoding is shared by 32 threads, and the loop over lanes becomes vector code.
//! Lanes that branch apart wait for each other at the first common instruction. Other orders run thread by thread; see
//! [`settings::Order`].
#![allow(unreachable_pub, reason = "`pub` marks what a module offers; how far it is seen is the parent's choice")]
#![allow(clippy::needless_range_loop, reason = "a lane is an index of several rows and of bits at once")]

mod access;
mod alu;
mod approx;
mod atomics;
pub mod block;
mod collective;
mod convert;
mod exec;
pub mod fault;
pub mod memory;
mod product;
mod races;
mod registers;
mod scalar;
pub mod settings;
mod shared;
mod warp;
