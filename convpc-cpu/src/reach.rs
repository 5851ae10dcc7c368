//! Channels that the root does not reach cost queries nothing: a circuit without them answers.

use std::sync::OnceLock;

use convpc_core::{Executable, Result};

use crate::executable::CpuExecutable;

/// The circuit of the reached channels, where there are others; found out when it is asked for first.
#[derive(Default)]
pub(crate) struct Reach(OnceLock<Result<Option<Box<CpuExecutable>>>>);

impl CpuExecutable {
    /// What answers queries that only read: this circuit, or that of the channels that the root reaches.
    ///
    /// Learning computes all channels, since a step with a pseudocount reaches them again.
    pub(crate) fn reached(&self) -> Result<&CpuExecutable> {
        match self.reach.0.get_or_init(|| self.without_others()) {
            Ok(smaller) => Ok(smaller.as_deref().unwrap_or(self)),
            Err(error) => Err(error.clone()),
        }
    }

    /// The circuit without the channels that the root does not reach; `None` where it reaches all.
    fn without_others(&self) -> Result<Option<Box<CpuExecutable>>> {
        let structure = self.structure();
        let reached = structure.reached_channels(|layer, _, (group, repetition), output, input| {
            let weights = self.model.sums[layer].as_ref().expect("a sum-like layer");
            let matrix = group * weights.repetitions + repetition;
            weights.values()[(matrix * weights.outputs + output) * weights.inputs + input] > 0.0
        });
        let all = |(layer, reached): (usize, &Vec<usize>)| reached.len() == structure.shape(layer).channels;
        if reached.iter().enumerate().all(all) {
            return Ok(None);
        }
        let smaller = self.circuit()?.prune(0.0)?;
        Ok(Some(Box::new(CpuExecutable::new(&smaller, self.pool.clone(), self.model.isa, self.model.bf16))))
    }

    /// Forgets what belongs to the parameters before a step.
    pub(crate) fn moved(&mut self) {
        self.reach = Reach::default();
        self.reset_statistics();
    }
}

#[cfg(test)]
mod tests {
    use convpc_core::{Backend, Circuit, ConvPc, Family, Mpe, Reference, em};
    use ndarray::{Array2, Axis};

    use super::*;
    use crate::Cpu;

    /// A circuit with channels 0 and 3 of its lowest sums' inputs, and channel 1 of the sums above, unreached.
    fn sparse(use_sum_conv: bool, classes: usize) -> Circuit {
        let convpc = ConvPc::new(3, 4, 1, Family::categorical(3)).channels(5).leaf_channels(4).depth(2).repetitions(2);
        let convpc = if classes > 0 { convpc.num_classes(classes) } else { convpc };
        let (structure, mut parameters) = convpc.use_sum_conv(use_sum_conv).build(3).unwrap().into_parts();
        for (layer, gone) in [(2, &[0, 3][..]), (4, &[1])] {
            let axis = Axis(structure.layers()[layer].normalized_axis().unwrap());
            for mut weights in parameters.0[layer].lanes_mut(axis) {
                gone.iter().for_each(|&channel| weights[channel] = 0.0);
                weights /= weights.sum();
            }
        }
        Circuit::new(structure, parameters).unwrap()
    }

    fn executable(circuit: &Circuit) -> CpuExecutable {
        let Cpu { pool, isa, bf16 } = Cpu::new(Some(1)).unwrap();
        CpuExecutable::new(circuit, pool, isa, bf16)
    }

    fn channels(executable: &CpuExecutable) -> Vec<usize> {
        (0..5).map(|layer| executable.structure().shape(layer).channels).collect()
    }

    fn rows() -> Array2<f32> {
        let mut data = Array2::from_shape_fn((9, 12), |(row, v)| ((row * 7 + v * 5) % 3) as f32);
        data.iter_mut().step_by(4).for_each(|x| *x = f32::NAN);
        data
    }

    #[test]
    fn queries_read_only_the_reached_channels() {
        for (circuit, heads) in [(sparse(false, 0), None), (sparse(true, 0), None), (sparse(false, 3), Some(3))] {
            let (cpu, reference) = (executable(&circuit), Reference.load(&circuit).unwrap());
            assert_eq!(channels(cpu.reached().unwrap()), [2, 2, 4, 4, channels(&cpu)[4]]);
            let data = rows();
            let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs() + 1e-4;
            let (given, expected) =
                (cpu.log_likelihood(data.view()).unwrap(), reference.log_likelihood(data.view()).unwrap());
            assert!(given.iter().zip(&expected).all(|(a, b)| near(*a, *b)), "{given} {expected}");
            assert_eq!(cpu.sample(3..40, 5), reference.sample(3..40, 5));
            assert_eq!(cpu.sample_conditional(data.view(), 5, 2), reference.sample_conditional(data.view(), 5, 2));
            for method in [Mpe::Greedy, Mpe::MaxProduct] {
                assert_eq!(cpu.mpe(data.view(), method), reference.mpe(data.view(), method));
            }
            if heads.is_some() {
                let given = cpu.class_log_likelihood(data.view()).unwrap();
                let expected = reference.class_log_likelihood(data.view()).unwrap();
                assert!(given.iter().zip(&expected).all(|(a, b)| near(*a, *b)), "{given} {expected}");
            }
            // The circuit is still the whole one.
            assert_eq!(cpu.parameters().unwrap().slice(4).len(), circuit.parameters().slice(4).len());
        }
    }

    #[test]
    fn where_all_is_reached_nothing_is_copied() {
        let whole = ConvPc::new(3, 4, 1, Family::normal()).channels(5).depth(2).build(1).unwrap();
        // Channels that the first repetition leaves out are reached by the second.
        let (structure, mut parameters) =
            ConvPc::new(3, 4, 1, Family::normal()).channels(5).depth(2).repetitions(2).build(1).unwrap().into_parts();
        let axis = Axis(structure.layers()[2].normalized_axis().unwrap());
        for (at, mut weights) in parameters.0[2].lanes_mut(axis).into_iter().enumerate() {
            if at % 2 == 0 {
                weights[1] = 0.0;
                weights /= weights.sum();
            }
        }
        let half = Circuit::new(structure, parameters).unwrap();
        for circuit in [whole, half] {
            let cpu = executable(&circuit);
            assert!(std::ptr::eq(cpu.reached().unwrap(), &cpu));
        }
    }

    #[test]
    fn a_step_that_reaches_channels_again_is_seen() {
        let mut cpu = executable(&sparse(false, 0));
        assert_eq!(channels(cpu.reached().unwrap())[0], 2);
        cpu.accumulate(rows().view()).unwrap();
        cpu.em_step(&em::Options { pseudocount: 0.1, ..Default::default() }).unwrap();
        assert!(std::ptr::eq(cpu.reached().unwrap(), &cpu));
        let expected = Reference.load(&cpu.circuit().unwrap()).unwrap().log_likelihood(rows().view()).unwrap();
        let given = cpu.log_likelihood(rows().view()).unwrap();
        assert!(given.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3), "{given} {expected}");
        cpu.set_parameters(sparse(false, 0).parameters()).unwrap();
        assert_eq!(channels(cpu.reached().unwrap())[0], 2);
    }
}
