use convpc::{
    Backend, Circuit, ConvPc, Error, Family, Precision,
    bench::{Case, Query},
};

/// The circuits that convpc and its peers are measured on.
pub fn named() -> Vec<Case> {
    Case::NAMES.map(|name| Case::named(name).expect("a name of the list")).into()
}

/// Circuits of other sizes and batches: what limits the speed differs between them.
pub fn sweep() -> Vec<Case> {
    let (sum, sum_conv) = (false, true);
    [
        (28, sum, 64, 1),
        (28, sum, 64, 32),
        (28, sum, 16, 4096),
        (28, sum, 64, 4096),
        (28, sum, 256, 256),
        (28, sum_conv, 16, 256),
        (28, sum_conv, 64, 256),
        (28, sum_conv, 64, 4096),
        (28, sum_conv, 512, 256),
        (64, sum, 32, 256),
        (64, sum_conv, 32, 1024),
        (64, sum_conv, 128, 256),
    ]
    .map(|(size, sum_conv, channels, batch)| {
        let name = format!("{size}x{size}/{}/{channels}ch/batch{batch}", if sum_conv { "sumconv" } else { "sum" });
        let depth = if size == 28 { 5 } else { 6 };
        let shape = ConvPc::new(size, size, 1, Family::normal()).channels(channels).depth(depth);
        Case::new(name, shape.use_sum_conv(sum_conv), batch)
    })
    .into()
}

/// The fewest bytes that a forward pass over a batch moves: every parameter, every value and every log-likelihood once.
pub fn least_bytes(circuit: &Circuit, batch: usize, precision: Precision) -> f64 {
    let weight = if precision == Precision::Bf16 { 2.0 } else { 4.0 };
    weight * circuit.parameter_count() as f64 + 4.0 * (batch * (circuit.variables() + 1)) as f64
}

/// Why a backend cannot answer a query at all, if so: found out on a tiny circuit.
pub fn refused(query: Query, backend: &dyn Backend) -> Option<Error> {
    let answer = || {
        let circuit = tiny().circuit()?;
        query.time(&mut *backend.load(&circuit)?, &circuit, query.images(&circuit, 3)?.view())
    };
    answer().err()
}

pub(crate) fn tiny() -> Case {
    Case::new("tiny", ConvPc::new(4, 4, 1, Family::normal()).channels(2).depth(1), 3)
}

/// Says on standard error that something is not measured, and why.
pub fn skipped(what: &str, backend: &str, why: &Error) {
    eprintln!("{what} on {backend} is skipped: {why}");
}

#[cfg(test)]
mod tests {
    use convpc::Reference;

    use super::*;

    #[test]
    fn the_least_that_is_moved() {
        // Means and standard deviations of 16 pixels in 2 channels; weights; 3 images of 16 pixels and 3 log-likelihoods.
        let numbers = 64.0 + 16.0 + 2.0;
        assert_eq!(least_bytes(&tiny().circuit().unwrap(), 3, Precision::F32), 4.0 * (numbers + 48.0 + 3.0));
        assert_eq!(least_bytes(&tiny().circuit().unwrap(), 3, Precision::Bf16), 2.0 * numbers + 4.0 * (48.0 + 3.0));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = named().into_iter().chain(sweep()).map(|case| case.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn nothing_is_refused_by_the_reference() {
        assert!(Query::ALL.into_iter().all(|query| refused(query, &Reference).is_none()));
    }
}
