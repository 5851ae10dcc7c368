use std::{any::Any, borrow::Cow, fmt, sync::Arc};

use ndarray::{ArrayD, IxDyn};

use crate::{
    error::{Error, Result},
    parameters::Parameters,
    structure::Structure,
};

/// What an update rule remembers from one step to the next. It is a value: what is saved and loaded exactly goes on exactly, and
/// a clone does not change with what it was cloned from.
///
/// It belongs to the circuit, and to the parameters that the last step left.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Steps taken.
    pub steps: u64,
    /// What was remembered of them.
    pub memory: Memory,
}

impl OptimizerState {
    /// Counts a step. The counter saturates.
    pub fn count_step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// What a running mean that began at zero is too small by after the next step, where each step keeps so much of it.
    pub fn next_bias(&self, kept: f64) -> f64 {
        1.0 - kept.powf(self.steps as f64 + 1.0)
    }
}

/// The tensors of an [`OptimizerState`].
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Memory {
    /// Nothing: before the first step, and for rules without memory.
    #[default]
    None,
    /// Mini-batch EM with momentum: the running mean of the expected counts of a row, without the correction of its bias,
    /// one tensor a layer in the shapes of [`Statistics::counts`](crate::Statistics::counts).
    Running(Vec<ArrayD<f64>>),
    /// Adam: the running means of the gradient and of its square, without the correction of their bias.
    Moments {
        /// Of the gradient.
        first: Parameters,
        /// Of its square.
        second: Parameters,
    },
    /// In the memory of the device that took the steps; [`Memory::fetch`] brings it here.
    Device(DeviceMemory),
}

/// Tensors under their names, one a layer each.
pub type Named<'a> = Vec<(&'static str, &'a [ArrayD<f64>])>;

/// What a rule remembers, where a device keeps it.
#[derive(Debug, Clone)]
pub struct DeviceMemory(pub Arc<dyn Resident>);

/// Tensors in a device's memory. They change by steps only, and only where nobody else has them.
pub trait Resident: Any + fmt::Debug + Send + Sync {
    /// A copy of them here: [`Memory::Running`] or [`Memory::Moments`].
    ///
    /// # Errors
    /// Where the device fails.
    fn fetch(&self) -> Result<Memory>;
}

/// The same tensors, not equal ones.
impl PartialEq for DeviceMemory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Memory {
    /// The tensors under their names, one a layer each: to be saved.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are in a device's memory: [`fetch`](Self::fetch) comes first.
    pub fn tensors(&self) -> Result<Named<'_>> {
        match self {
            Memory::None => Ok(vec![]),
            Memory::Running(counts) => Ok(vec![("running", counts)]),
            Memory::Moments { first, second } => Ok(vec![("first", &first.0), ("second", &second.0)]),
            Memory::Device(_) => Err(Error::Argument {
                what: "the optimizer's state",
                given: "in the memory of a device".into(),
                expected: "tensors here; call Memory::fetch before".into(),
            }),
        }
    }

    /// Brings the tensors here, where a device keeps them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn fetch(&mut self) -> Result<()> {
        if let Memory::Device(memory) = self {
            *self = memory.0.fetch()?;
        }
        Ok(())
    }

    /// The same with its tensors here: itself, or a copy of what a device keeps.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn here(&self) -> Result<Cow<'_, Memory>> {
        match self {
            Memory::Device(memory) => memory.0.fetch().map(Cow::Owned),
            _ => Ok(Cow::Borrowed(self)),
        }
    }

    /// # Errors
    /// [`Error::Argument`] where the tensors do not belong to the structure.
    pub fn check(&self, structure: &Structure) -> Result<()> {
        let here = self.here()?;
        for (name, tensors) in here.tensors()? {
            let shape = |layer| match &*here {
                Memory::Running(_) => structure.statistics_shape(layer),
                _ => structure.parameter_shape(layer),
            };
            let expected: Vec<Vec<usize>> = (0..structure.layers().len()).map(shape).collect();
            let given: Vec<Vec<usize>> = tensors.iter().map(|tensor| tensor.shape().to_vec()).collect();
            if given != expected {
                return Err(Error::Argument {
                    what: "the optimizer's state",
                    given: format!("of the shapes {given:?} ({name})"),
                    expected: format!("{expected:?}; begin with OptimizerState::default() for another circuit"),
                });
            }
        }
        Ok(())
    }

    /// That nothing is remembered, which a rule without memory would leave behind with the parameters of an earlier step.
    ///
    /// # Errors
    /// [`Error::Argument`] where something is.
    pub fn none(&self) -> Result<()> {
        match self {
            Memory::None => Ok(()),
            _ => Err(of_another_rule("mini-batch EM without momentum")),
        }
    }

    /// The running counts, zeros at first.
    ///
    /// # Errors
    /// [`Error::Argument`] where the memory is that of another rule or circuit; where a device that kept it fails.
    pub fn running(&mut self, structure: &Structure) -> Result<&mut Vec<ArrayD<f64>>> {
        self.fetch()?;
        if matches!(self, Memory::None) {
            let zeros = |layer| ArrayD::zeros(IxDyn(&structure.statistics_shape(layer)));
            *self = Memory::Running((0..structure.layers().len()).map(zeros).collect());
        }
        self.check(structure)?;
        match self {
            Memory::Running(counts) => Ok(counts),
            _ => Err(of_another_rule("mini-batch EM")),
        }
    }

    /// The moments of the gradient, zeros at first.
    ///
    /// # Errors
    /// [`Error::Argument`] where the memory is that of another rule or circuit; where a device that kept it fails.
    pub fn moments(&mut self, structure: &Structure) -> Result<(&mut Parameters, &mut Parameters)> {
        self.fetch()?;
        if matches!(self, Memory::None) {
            *self = Memory::Moments { first: Parameters::zeros(structure), second: Parameters::zeros(structure) };
        }
        self.check(structure)?;
        match self {
            Memory::Moments { first, second } => Ok((first, second)),
            _ => Err(of_another_rule("Adam")),
        }
    }
}

fn of_another_rule(rule: &str) -> Error {
    Error::Argument {
        what: "the optimizer's state",
        given: "that of another update rule".into(),
        expected: format!("that of {rule}; begin with OptimizerState::default() when the rule changes"),
    }
}
