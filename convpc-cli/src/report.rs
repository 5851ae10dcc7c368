//! What `bench` prints.

use std::fmt;

use convpc::{
    BackendChoice, Precision,
    bench::{Case, Measured, Query},
};

/// What a circuit is measured on.
pub(crate) struct Machine {
    /// The backend, and what it runs on, for people.
    pub(crate) description: String,
    pub(crate) device: BackendChoice,
    pub(crate) precision: Precision,
    /// Of the CPU.
    pub(crate) threads: usize,
    /// What it can do at most, where that is measured.
    #[cfg(feature = "cpu")]
    pub(crate) ceilings: Option<convpc::Ceilings>,
}

impl Machine {
    pub(crate) fn new(description: String, device: BackendChoice, precision: Precision, threads: usize) -> Self {
        Machine {
            description,
            device,
            precision,
            threads,
            #[cfg(feature = "cpu")]
            ceilings: None,
        }
    }

    /// Billions of floating-point operations a second.
    fn peak(&self) -> Option<f64> {
        #[cfg(feature = "cpu")]
        return self.ceilings?.flops_per_second.map(|flops| flops / 1e9);
        #[cfg(not(feature = "cpu"))]
        None
    }

    /// Billions of bytes a second.
    fn bandwidth(&self) -> Option<f64> {
        #[cfg(feature = "cpu")]
        return self.ceilings.map(|ceilings| ceilings.bytes_per_second / 1e9);
        #[cfg(not(feature = "cpu"))]
        None
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.description)?;
        let Some(bandwidth) = self.bandwidth() else {
            return write!(f, "peak and bandwidth: left out, only those of the backend cpu are measured");
        };
        match self.peak() {
            Some(peak) => writeln!(f, "peak       {} GFLOP/s, multiply-adds in registers", digits(peak))?,
            None => writeln!(f, "peak       unknown for this instruction set")?,
        }
        write!(f, "bandwidth  {} GB/s, reading memory", digits(bandwidth))
    }
}

/// One operation on one circuit; displayed as a row of the table.
pub(crate) struct Line<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) case: &'a Case,
    pub(crate) query: Query,
    pub(crate) measured: Measured,
    /// The most bytes that the process held, without the data; `None` where the system does not say.
    pub(crate) memory: Option<u64>,
}

impl Line<'_> {
    /// The head of the table.
    pub(crate) const HEAD: &'static str = "operation        images/s     seconds   GFLOP/s   % of peak   memory, MiB";

    /// What the columns mean.
    pub(crate) const NOTES: &'static str = "\
GFLOP/s: multiplications and additions of the sum layers, every weight as often as it is used, as other programs count.
% of peak: without the weights above nothing but padding, which need no work.
memory: the most that the process held in the machine's own memory, without the images.";

    /// What is needed of the arithmetic, as a fraction of what the machine can do.
    fn peak_fraction(&self) -> Option<f64> {
        Some(self.measured.needed_gflops? / self.machine.peak()?)
    }

    /// The keys that the scripts beside this command print, and this machine's.
    pub(crate) fn json(&self) -> String {
        let Line { machine, case, query, measured, memory } = self;
        let number = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value:.6}"));
        format!(
            r#"{{"circuit": "{}", "peer": "convpc", "op": "{query}", "device": "{}", "precision": "{}", "threads": {}, "batch": {}, "seconds": {:.9}, "images_per_second": {:.3}, "gflops": {}, "peak_fraction": {}, "peak_gflops": {}, "bandwidth_gb_per_second": {}, "memory_bytes": {}}}"#,
            case.name,
            machine.device,
            machine.precision,
            machine.threads,
            case.batch,
            measured.seconds,
            measured.images_per_second,
            number(measured.gflops),
            number(self.peak_fraction()),
            number(machine.peak()),
            number(machine.bandwidth()),
            memory.map_or("null".to_owned(), |bytes| bytes.to_string()),
        )
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |value: Option<f64>| value.map_or("–".to_owned(), digits);
        write!(
            f,
            "{:<14}  {:>9}  {:>10}  {:>8}  {:>10}  {:>12}",
            self.query.name(),
            digits(self.measured.images_per_second),
            digits(self.measured.seconds),
            or_dash(self.measured.gflops),
            or_dash(self.peak_fraction().map(|fraction| 100.0 * fraction)),
            self.memory.map_or("unknown".to_owned(), |bytes| digits(bytes as f64 / f64::from(1 << 20))),
        )
    }
}

/// A positive number with three significant digits, or all those before the point.
fn digits(value: f64) -> String {
    let decimals = if value > 0.0 { (2.0 - value.log10().floor()).clamp(0.0, 9.0) } else { 0.0 };
    format!("{value:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let shown = [0.0, 1.5e-5, 0.001_234, 0.5, 1.0, 9.876, 98.76, 987.6, 98_765.4].map(digits);
        assert_eq!(shown, ["0", "0.0000150", "0.00123", "0.500", "1.00", "9.88", "98.8", "988", "98765"]);
    }

    #[test]
    fn what_is_not_known_is_null_or_a_dash() {
        let machine = Machine::new("none".into(), BackendChoice::Reference, Precision::F32, 1);
        let measured = Measured { seconds: 0.5, images_per_second: 6.0, gflops: None, needed_gflops: None };
        let case = &Case::named("small").unwrap();
        let line = Line { machine: &machine, case, query: Query::Sample, measured, memory: None };
        insta::assert_snapshot!(line.json(), @r#"{"circuit": "small", "peer": "convpc", "op": "sample", "device": "reference", "precision": "f32", "threads": 1, "batch": 256, "seconds": 0.500000000, "images_per_second": 6.000, "gflops": null, "peak_fraction": null, "peak_gflops": null, "bandwidth_gb_per_second": null, "memory_bytes": null}"#);
        assert_eq!(
            line.to_string().split_whitespace().collect::<Vec<_>>(),
            ["sample", "6.00", "0.500", "–", "–", "unknown"]
        );
        assert_eq!(line.to_string().chars().count(), Line::HEAD.len());
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn the_peak_is_compared_with_what_needs_work() {
        let ceilings = convpc::Ceilings { flops_per_second: Some(4e9), bytes_per_second: 5e9 };
        let machine = Machine::new("fast".into(), BackendChoice::Cpu, Precision::F32, 2);
        let machine = Machine { ceilings: Some(ceilings), ..machine };
        let measured = Measured { seconds: 0.5, images_per_second: 6.0, gflops: Some(3.0), needed_gflops: Some(2.0) };
        let case = &Case::named("small").unwrap();
        let line = Line { machine: &machine, case, query: Query::EmStep, measured, memory: Some(3 << 20) };
        assert!(line.json().ends_with(
            r#""gflops": 3.000000, "peak_fraction": 0.500000, "peak_gflops": 4.000000, "bandwidth_gb_per_second": 5.000000, "memory_bytes": 3145728}"#
        ));
        let cells = ["em_step", "6.00", "0.500", "3.00", "50.0", "3.00"];
        assert_eq!(line.to_string().split_whitespace().collect::<Vec<_>>(), cells);
        insta::assert_snapshot!(machine.to_string(), @r"
        fast
        peak       4.00 GFLOP/s, multiply-adds in registers
        bandwidth  5.00 GB/s, reading memory
        ");
    }
}
