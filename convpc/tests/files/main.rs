//! Files in and out: every format that is read, every error that names one, and what is written.

mod atomic;
mod axes;
mod containers;
mod damaged;
mod idx;
mod labels;
mod limits;
mod mask;
mod npy;
mod npz;
mod picture;
mod pictures;
mod tools;
mod types;
mod values;
