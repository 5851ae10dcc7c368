//! Measuring how fast a backend is: circuits to measure, queries to time, and the rate of the sum layers' arithmetic.
//!
//! This is what `convpc bench` prints, for programs. Times are those of a caller: data come from and go to the host's memory.
//!
//! ```
//! use convpc::bench::{Case, Query};
//! use convpc::{Backend, ConvPc, Family, Reference};
//! let case = Case::new("tiny", ConvPc::new(4, 4, 1, Family::normal()).channels(2), 3); // 3 images a batch
//! let circuit = case.circuit()?;
//! let mut executable = Reference.load(&circuit)?;
//! for query in Query::ALL {
//!     let measured = query.measure(&mut *executable, &circuit, case.batch, 2)?;
//!     println!("{query}: {:.0} images/s", measured.images_per_second);
//!     # assert!(measured.images_per_second > 0.0);
//! }
//! # Ok::<(), convpc::Error>(())
//! ```

mod case;
mod query;

pub use case::Case;
pub use query::{Measured, Query};
