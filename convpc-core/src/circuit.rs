use std::{fmt, sync::Arc};

use crate::{error::Result, parameters::Parameters, scope::Scope, structure::Structure};

/// A convolutional probabilistic circuit: a validated [`Structure`] with legal [`Parameters`].
///
/// A circuit is a value: load it into a [`Backend`](crate::Backend) to compute with it. `Display` prints a table of the
/// layers with shapes, scope sizes and parameter counts.
///
/// ```
/// use convpc_core::{ConvPc, Family};
/// let circuit = ConvPc::new(8, 8, 1, Family::bernoulli()).channels(4).depth(3).build(0)?;
/// assert_eq!(circuit.variables(), 64);
/// println!("{circuit}");
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Circuit {
    structure: Arc<Structure>,
    parameters: Parameters,
}

impl Circuit {
    /// Joins a structure and parameters.
    ///
    /// # Errors
    /// Where shapes disagree, weights are negative or do not sum to one within 1e-6, or a leaf's parameters are illegal.
    pub fn new(structure: impl Into<Arc<Structure>>, parameters: Parameters) -> Result<Self> {
        let structure = structure.into();
        let parameters = parameters.validated(&structure)?;
        Ok(Circuit { structure, parameters })
    }

    /// A circuit with random parameters: weights uniform on the simplex, leaves as their family likes to begin. The same
    /// seed gives the same circuit.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) where the parameters do not fit into memory.
    pub fn random(structure: impl Into<Arc<Structure>>, seed: u64) -> Result<Self> {
        let structure = structure.into();
        crate::initialize::check_size(&structure)?;
        let parameters = crate::initialize::random(&structure, 1.0, seed);
        Self::new(structure, parameters)
    }

    /// The chain of layers.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The structure and the parameters, taken apart.
    pub fn into_parts(self) -> (Arc<Structure>, Parameters) {
        (self.structure, self.parameters)
    }

    /// The number of variables: columns of the data.
    pub fn variables(&self) -> usize {
        self.structure.variables()
    }

    /// The variables of the circuit.
    pub fn scope(&self) -> Scope {
        self.structure.columns().iter().map(|c| c.variable).collect()
    }

    /// The total number of parameters.
    pub fn parameter_count(&self) -> usize {
        (0..self.structure.layers().len()).map(|layer| self.parameters.count(layer)).sum()
    }

    /// The parameters of the leaf at (data column, channel, repetition).
    pub fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize) -> &[f64] {
        let (shape, n) = (self.structure.shape(0), self.structure.leaf().family.parameters());
        let start = ((self.structure.leaf_row(column) * shape.channels + channel) * shape.repetitions + repetition) * n;
        &self.parameters.slice(0)[start..start + n]
    }
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let structure = &self.structure;
        let leaf = structure.leaf();
        writeln!(
            f,
            "ConvPc over {} variables ({}×{}, {} {}), {} leaves, {}{} parameters",
            self.variables(),
            leaf.height,
            leaf.width,
            leaf.colors,
            if leaf.colors == 1 { "color" } else { "colors" },
            leaf.family.name(),
            structure.num_classes().map(|classes| format!("{classes} classes, ")).unwrap_or_default(),
            self.parameter_count()
        )?;
        writeln!(f, "{:>3}  {:<28}  {:<16}  {:>6}  {:>12}", "#", "layer", "output", "scope", "parameters")?;
        // The root is what a reader looks for first.
        for (index, layer) in structure.layers().iter().enumerate().rev() {
            let shape = structure.shape(index);
            let nodes = (0..shape.repetitions).flat_map(|r| (0..shape.features()).map(move |f| (f, r)));
            let scope = nodes.map(|(f, r)| structure.scope(index, f, r).len()).max().unwrap_or(0);
            writeln!(
                f,
                "{index:>3}  {:<28}  {:<16}  {scope:>6}  {:>12}",
                layer.to_string(),
                shape.to_string(),
                self.parameters.count(index)
            )?;
        }
        Ok(())
    }
}
