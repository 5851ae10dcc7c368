use ndarray::{ArrayD, IxDyn};

use crate::{
    error::{Error, Result},
    parameters::Parameters,
    structure::Structure,
};

/// What an update rule remembers from one step to the next. It is a value: what is saved and loaded exactly goes on exactly.
///
/// It belongs to the circuit, and to the parameters that the last step left.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Steps taken.
    pub steps: u64,
    /// What was remembered of them.
    pub memory: Memory,
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
}

impl Memory {
    /// The tensors under their names, one a layer each: to be saved.
    pub fn tensors(&self) -> Vec<(&'static str, &[ArrayD<f64>])> {
        match self {
            Memory::None => vec![],
            Memory::Running(counts) => vec![("running", counts)],
            Memory::Moments { first, second } => vec![("first", &first.0), ("second", &second.0)],
        }
    }

    /// # Errors
    /// [`Error::Argument`] where the tensors do not belong to the structure.
    pub fn check(&self, structure: &Structure) -> Result<()> {
        for (name, tensors) in self.tensors() {
            let shape = |layer| match self {
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
    /// [`Error::Argument`] where the memory is that of another rule or circuit.
    pub fn running(&mut self, structure: &Structure) -> Result<&mut Vec<ArrayD<f64>>> {
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
    /// [`Error::Argument`] where the memory is that of another rule or circuit.
    pub fn moments(&mut self, structure: &Structure) -> Result<(&mut Parameters, &mut Parameters)> {
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
