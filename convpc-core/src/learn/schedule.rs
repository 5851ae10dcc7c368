use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a step size goes from its first to its last value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// It does not: the first value holds.
    Constant,
    /// On a straight line.
    Linear,
    /// On half a wave: slowly at both ends.
    Cosine,
}

/// The step size as a function of how much of the training is done.
///
/// ```
/// use convpc_core::{Curve, Schedule};
/// let schedule = Schedule { from: 0.4, to: 0.02, curve: Curve::Linear, warm_up: 0.25 };
/// assert_eq!(schedule.at(0.125), 0.2); // half of the warm-up
/// assert_eq!(schedule.at(0.25), 0.4);
/// assert_eq!(schedule.at(1.0), 0.02);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The step size after the warm-up.
    pub from: f64,
    /// The step size at the end; a constant schedule does not read it.
    pub to: f64,
    /// The way between the two.
    pub curve: Curve,
    /// The share of the training, 0 to 1, in which the step size grows from 0 to `from` on a straight line.
    pub warm_up: f64,
}

impl Schedule {
    /// The same step size all along.
    pub fn constant(step: f64) -> Self {
        Schedule { from: step, to: step, curve: Curve::Constant, warm_up: 0.0 }
    }

    /// A straight line from one step size to another.
    pub fn linear(from: f64, to: f64) -> Self {
        Schedule { from, to, curve: Curve::Linear, warm_up: 0.0 }
    }

    /// Half a wave from one step size to another.
    pub fn cosine(from: f64, to: f64) -> Self {
        Schedule { from, to, curve: Curve::Cosine, warm_up: 0.0 }
    }

    /// The step size after `progress`, 0 at the beginning and 1 at the end of the training; what is outside counts as these.
    pub fn at(&self, progress: f64) -> f64 {
        let Schedule { from, to, curve, warm_up } = *self;
        let progress = progress.clamp(0.0, 1.0);
        if progress < warm_up {
            return from * progress / warm_up;
        }
        let rest = if warm_up < 1.0 { (progress - warm_up) / (1.0 - warm_up) } else { 0.0 };
        match curve {
            Curve::Constant => from,
            Curve::Linear => from * (1.0 - rest) + to * rest,
            Curve::Cosine => to + (from - to) * 0.5 * (1.0 + (PI * rest).cos()),
        }
    }

    /// # Errors
    /// [`Error::Argument`] where a step size is negative or not finite, or the warm-up is no share.
    pub fn check(&self) -> Result<()> {
        for (what, value) in [("the first step size", self.from), ("the last step size", self.to)] {
            if !(value >= 0.0 && value.is_finite()) {
                let expected = "a finite number of at least 0".to_string();
                return Err(Error::Argument { what, given: value.to_string(), expected });
            }
        }
        if !(0.0..=1.0).contains(&self.warm_up) {
            let (what, expected) = ("the warm-up", "a share of the training between 0 and 1".to_string());
            return Err(Error::Argument { what, given: self.warm_up.to_string(), expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_at_their_ends_and_in_the_middle() {
        let points = [-1.0, 0.0, 0.25, 0.5, 1.0, 2.0];
        for (schedule, expected) in [
            (Schedule::constant(0.3), [0.3; 6]),
            (Schedule::linear(0.4, 0.0), [0.4, 0.4, 0.3, 0.2, 0.0, 0.0]),
            // (1 + cos(π/4))/2
            (Schedule::cosine(1.0, 0.0), [1.0, 1.0, 0.853_553_390_593_273_8, 0.5, 0.0, 0.0]),
            (Schedule { warm_up: 0.5, ..Schedule::linear(0.4, 0.2) }, [0.0, 0.0, 0.2, 0.4, 0.2, 0.2]),
            (Schedule { warm_up: 1.0, ..Schedule::constant(0.4) }, [0.0, 0.0, 0.1, 0.2, 0.4, 0.4]),
        ] {
            for (progress, expected) in points.into_iter().zip(expected) {
                let given = schedule.at(progress);
                assert!((given - expected).abs() < 1e-15, "{schedule:?} at {progress}: {given}");
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        assert_eq!(Schedule::cosine(0.4, 0.02).check(), Ok(()));
        for wrong in [
            Schedule::constant(-0.1),
            Schedule::constant(f64::NAN),
            Schedule::linear(0.1, f64::INFINITY),
            Schedule { warm_up: 1.1, ..Schedule::constant(0.1) },
            Schedule { warm_up: f64::NAN, ..Schedule::constant(0.1) },
        ] {
            assert!(matches!(wrong.check(), Err(Error::Argument { .. })), "{wrong:?}");
        }
    }
}
