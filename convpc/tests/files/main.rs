//! Files in and out: every format that is read, every error that names one, and what is written.

mod atomic;
mod damaged;
mod idx;
mod labels;
mod npy;
mod npz;
mod picture;
mod png;
mod tools;
