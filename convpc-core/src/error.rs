use crate::scope::Scope;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, each with what was given, what was expected and how to mend it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Structure.
    /// A size that must be positive is zero.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// The argument's name.
        what: &'static str,
    },
    /// An argument is out of its range.
    #[error("{what} is {given}; expected {expected}")]
    Argument {
        /// The argument's name.
        what: &'static str,
        /// What was given.
        given: String,
        /// What would be right.
        expected: String,
    },
    /// A circuit is too large to be counted by the machine, or larger than is allowed.
    #[error("{what} is too large; choose fewer channels, a smaller depth, less padding or a smaller image")]
    TooLarge {
        /// What was being counted.
        what: &'static str,
    },
    /// The chain does not begin with its one leaf layer.
    #[error("layer {layer} is {found}; the first layer of a circuit is a leaf layer, and no other is")]
    LeafPosition {
        /// Index of the offending layer, 0 the first.
        layer: usize,
        /// Its kind.
        found: &'static str,
    },
    /// The chain has no layers at all.
    #[error("a circuit needs layers: begin with a leaf layer")]
    NoLayers,
    /// A product kernel does not tile its padded input.
    #[error(
        "layer {layer} (ProdConv): the padded {axis} {padded} ({size} + {padding} padding) is not a multiple of the \
         kernel {axis} {kernel}; add padding up to {suggestion}, or choose a kernel that divides {padded}"
    )]
    KernelDoesNotDivide {
        /// Index of the layer.
        layer: usize,
        /// `"height"` or `"width"`.
        axis: &'static str,
        /// Input size without padding.
        size: usize,
        /// Total padding along the axis.
        padding: usize,
        /// `size + padding`.
        padded: usize,
        /// Kernel size along the axis.
        kernel: usize,
        /// The next multiple of the kernel.
        suggestion: usize,
    },
    /// The last layer is not a single distribution.
    #[error(
        "the last layer has {features} features, {channels} channels and {repetitions} repetitions; a root has 1 of \
         each: end with products down to one feature, a sum with 1 channel, and a RepetitionMixing if there are \
         repetitions"
    )]
    NotARoot {
        /// Features of the last layer.
        features: usize,
        /// Channels of the last layer.
        channels: usize,
        /// Repetitions of the last layer.
        repetitions: usize,
    },

    // Parameters.
    /// The parameters do not belong to this structure.
    #[error("{given} parameter tensors were given for {expected} layers; pass one tensor a layer (empty for products)")]
    ParameterCount {
        /// Tensors given.
        given: usize,
        /// Layers of the structure.
        expected: usize,
    },
    /// A parameter tensor has the wrong shape.
    #[error("layer {layer} ({kind}): parameters have shape {given:?}, expected {expected:?}")]
    ParameterShape {
        /// Index of the layer.
        layer: usize,
        /// Its kind.
        kind: &'static str,
        /// Shape given.
        given: Vec<usize>,
        /// Shape expected.
        expected: Vec<usize>,
    },
    /// The weights of a sum are not a distribution.
    #[error(
        "layer {layer} ({kind}): the weights of output {index} {problem}; weights are linear (not logits), at least 0 \
         and sum to 1 within 1e-6"
    )]
    Weights {
        /// Index of the layer.
        layer: usize,
        /// Its kind.
        kind: &'static str,
        /// Which group of weights, counted row-major over the axes that are not summed.
        index: usize,
        /// What is wrong with them.
        problem: String,
    },
    /// A leaf's parameters are not legal.
    #[error("leaf of variable {variable}, channel {channel}, repetition {repetition} ({family}): {problem}")]
    LeafParameters {
        /// Data column.
        variable: usize,
        /// Channel.
        channel: usize,
        /// Repetition.
        repetition: usize,
        /// Family name.
        family: &'static str,
        /// What is wrong.
        problem: String,
    },

    // Data.
    /// The data have another number of variables than the circuit.
    #[error("the data have {given} variables a row, the circuit has {expected}; {hint}")]
    VariableCount {
        /// Columns given.
        given: usize,
        /// Columns expected.
        expected: usize,
        /// How to mend it.
        hint: String,
    },
    /// There are no rows.
    #[error("the batch is empty: 0 rows were given, at least 1 is needed")]
    EmptyBatch,
    /// A value has no density under the leaf family.
    #[error(
        "row {row}, variable {variable}: {value} is outside the support of {family}, {support}; NaN marks a missing value"
    )]
    OutsideSupport {
        /// Row, 0 the first.
        row: usize,
        /// Data column.
        variable: usize,
        /// The value, as text so that it shows as given.
        value: String,
        /// Family name.
        family: &'static str,
        /// The support in words.
        support: String,
    },
    /// Conditioning on evidence of probability zero.
    #[error("row {row}: the evidence has probability 0 under the circuit, so there is no posterior")]
    ImpossibleEvidence {
        /// Row, 0 the first.
        row: usize,
    },

    /// A row that a backend cannot compute with in f32, which holds the squares of distances up to there.
    #[error(
        "row {row}: a value is more than about 1e19 standard deviations from the leaves, beyond the range of float32; take the row \
         out, learn with a larger minimum_std, or use the backend reference"
    )]
    TooFar {
        /// Row, 0 the first.
        row: usize,
    },

    // Classes.
    /// The circuit is not a mixture of classes.
    #[error(
        "the circuit has no classes: its root does not mix heads of its own; build it with ConvPc::num_classes, or end a chain \
         with a sum of as many channels as there are classes and a sum of one"
    )]
    NoClasses,
    /// A class that the circuit does not have.
    #[error("there is no class {class}: the circuit has {classes}, numbered from 0")]
    UnknownClass {
        /// The class.
        class: usize,
        /// Classes of the circuit.
        classes: usize,
    },
    /// Labels and rows are not as many.
    #[error("{given} labels were given for {rows} rows; give one for each row")]
    LabelCount {
        /// Labels given.
        given: usize,
        /// Rows of the data.
        rows: usize,
    },
    /// A label that names no class.
    #[error(
        "row {row} has the label {label}, the circuit has {classes} classes; labels are numbers from 0 up to but below that"
    )]
    Label {
        /// Row, 0 the first.
        row: usize,
        /// The label.
        label: usize,
        /// Classes of the circuit.
        classes: usize,
    },

    // Queries.
    /// A variable that the circuit does not have.
    #[error("variable {variable} is not in the circuit's scope {scope}")]
    UnknownVariable {
        /// The variable.
        variable: usize,
        /// The circuit's scope.
        scope: Scope,
    },
    /// Marginalising everything leaves no circuit.
    #[error("all {variables} variables would be marginalised; at least one must remain")]
    NothingLeft {
        /// The number of variables.
        variables: usize,
    },
    /// A learning step before any data were seen.
    #[error("no statistics were gathered since the last step; call accumulate with data first")]
    NoStatistics,

    // Backends.
    /// A backend cannot do what was asked.
    #[error("backend {backend}: {problem}")]
    Backend {
        /// Name of the backend.
        backend: String,
        /// What is wrong, and what to do about it.
        problem: String,
    },
}

impl Error {
    /// The same error with the row that it names replaced by `number(row)`: for backends, and callers of backends, that get a part
    /// of the data and have to name a row of the whole.
    pub fn map_row(self, number: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Error::OutsideSupport { row, variable, value, family, support } => {
                Error::OutsideSupport { row: number(row), variable, value, family, support }
            }
            Error::ImpossibleEvidence { row } => Error::ImpossibleEvidence { row: number(row) },
            Error::TooFar { row } => Error::TooFar { row: number(row) },
            other => other,
        }
    }
}

/// An error where `value` is zero.
pub(crate) fn positive(what: &'static str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::Zero { what }) } else { Ok(()) }
}
