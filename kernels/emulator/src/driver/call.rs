//! What surrounds the body of every driver function, and the types that its parameters have.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::codes::{INVALID_VALUE, SUCCESS, UNKNOWN};
use super::state::state;

/// A handle as C code holds it: a pointer that is never followed.
pub(super) type Handle = usize;

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: i32,
    /// More than the code says, for [`Device::last_report`](crate::Device::last_report).
    report: Option<String>,
}

pub(super) type Outcome<T = ()> = Result<T, Failure>;

impl From<i32> for Failure {
    fn from(code: i32) -> Self {
        Self { code, report: None }
    }
}

impl Failure {
    pub(super) fn new(code: i32, report: impl Into<String>) -> Self {
        Self { code, report: Some(report.into()) }
    }

    /// An argument that is not allowed.
    pub(super) fn invalid(report: impl Into<String>) -> Self {
        Self::new(INVALID_VALUE, report)
    }
}

/// Runs the body of the driver function `name`: fails as the test has planned, keeps panics from unwinding into C,
/// and keeps the report.
pub(super) fn call(name: &'static str, body: impl FnOnce() -> Outcome) -> i32 {
    let planned = state().planned_failure(name);
    let outcome = match planned {
        Some(code) => Err(Failure::new(code, "fails because the test wants it")),
        None => catch_unwind(AssertUnwindSafe(body))
            .unwrap_or_else(|panic| Err(Failure::new(UNKNOWN, format!("the emulator panicked: {}", message(&*panic))))),
    };
    let Err(failure) = outcome else { return SUCCESS };
    let mut state = state();
    if state.verbose {
        eprintln!("{name}: {} {}", failure.code, failure.report.as_deref().unwrap_or(""));
    }
    if let Some(report) = failure.report {
        state.report = Some(format!("{name}: {report}"));
    }
    failure.code
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("")
}

/// Where a result goes. The C caller vouches for the pointer, or passes null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Stores the result.
    pub(super) fn set(self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Failure::invalid("a null pointer where a result belongs"));
        }
        // SAFETY: only C callers make an `Out`; the driver's interface obliges them to let it point to a `T`.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Stores the result if it is wanted.
    pub(super) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Fails early where a result could not be stored.
    pub(super) fn check(self) -> Outcome {
        if self.0.is_null() { Err(Failure::invalid("a null pointer where a result belongs")) } else { Ok(()) }
    }
}

/// An array that the C caller reads from or has filled, or null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Array<T>(*const T);

impl<T: Copy> Array<T> {
    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// An element; the caller has passed an array that is long enough.
    pub(super) fn at(self, index: usize) -> Outcome<T> {
        if self.0.is_null() {
            return Err(Failure::invalid("a null pointer where an array belongs"));
        }
        // SAFETY: only C callers make an `Array`; the driver's interface obliges them to give that many elements.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

/// Host memory that the driver reads or writes. The C caller vouches for as many bytes as the call is about.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host(pub(super) usize);

impl Host {
    pub(super) fn check(self, bytes: usize) -> Outcome {
        if self.0 == 0 && bytes > 0 { Err(Failure::invalid("a null pointer to host memory")) } else { Ok(()) }
    }

    /// The bytes; [`Self::check`] has been passed.
    pub(super) fn bytes<'a>(self, bytes: usize) -> &'a [u8] {
        if bytes == 0 {
            return &[];
        }
        // SAFETY: only C callers make a `Host`; the driver's interface obliges them to keep the bytes alive and
        // unchanged for the call, and for a graph for every launch of it.
        unsafe { std::slice::from_raw_parts(self.0 as *const u8, bytes) }
    }

    /// Writes bytes; [`Self::check`] has been passed.
    pub(super) fn write(self, bytes: &[u8]) {
        // SAFETY: as in `bytes`; the buffer of the emulator and memory of the caller do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0 as *mut u8, bytes.len()) };
    }
}

/// A string of the C caller, or null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Text(*const c_char);

impl Text {
    pub(super) fn bytes<'a>(self) -> Outcome<&'a [u8]> {
        if self.0.is_null() {
            return Err(Failure::invalid("a null pointer where a string belongs"));
        }
        // SAFETY: only C callers make a `Text`; the driver's interface obliges them to end it with a zero.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes())
    }

    pub(super) fn str<'a>(self) -> Outcome<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Failure::invalid("a string that is not UTF-8"))
    }
}
