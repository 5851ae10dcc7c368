//! The suffixes of an opcode, ticked off as they are understood.

use super::Outcome;
use crate::ptx::op::{Mode, Round};
use crate::ptx::types::Type;

/// An opcode such as `ld.global.v4.f32`, split at its dots.
pub(super) struct Suffixes<'a> {
    stem: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Suffixes<'a> {
    pub(super) fn new(opcode: &'a str) -> Self {
        let mut parts = opcode.split('.');
        let stem = parts.next().unwrap_or("");
        Self { stem, rest: parts.collect() }
    }

    /// The instruction's name.
    pub(super) fn stem(&self) -> &'a str {
        self.stem
    }

    /// Ticks off a suffix if it is there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|suffix| *suffix == name);
        if let Some(index) = found {
            self.rest.remove(index);
        }
        found.is_some()
    }

    /// Ticks off the first suffix that means something to `parse`.
    pub(super) fn take_map<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (index, value) = self.rest.iter().enumerate().find_map(|(index, suffix)| Some((index, parse(suffix)?)))?;
        self.rest.remove(index);
        Some(value)
    }

    /// The next type.
    pub(super) fn ty(&mut self) -> Outcome<Type> {
        self.take_map(Type::parse).ok_or_else(|| "a type is missing".to_owned())
    }

    /// The next type, left where it is.
    pub(super) fn peek_type(&self) -> Option<Type> {
        self.rest.iter().find_map(|suffix| Type::parse(suffix))
    }

    /// The suffixes of single-precision arithmetic.
    pub(super) fn mode(&mut self) -> Mode {
        let ftz = self.take("ftz");
        let sat = self.take("sat");
        let round = self.take_map(round).unwrap_or(Round::Nearest);
        Mode { ftz, sat, round }
    }

    /// Ticks off the suffixes that change nothing here: caching, memory order, alignment promises.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        self.rest
            .retain(|suffix| !names.contains(suffix) && !suffix.starts_with("L1::") && !suffix.starts_with("L2::"));
    }

    /// An error if a suffix was not understood.
    pub(super) fn finish(&self) -> Outcome<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(suffix) => Err(format!("unsupported suffix .{suffix}")),
        }
    }
}

pub(super) fn round(suffix: &str) -> Option<Round> {
    match suffix {
        "rn" => Some(Round::Nearest),
        "rz" => Some(Round::Zero),
        "rm" => Some(Round::Down),
        "rp" => Some(Round::Up),
        _ => None,
    }
}
