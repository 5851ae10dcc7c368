use std::time::{Duration, Instant};

use rayon::ThreadPool;

use crate::{
    Cpu,
    simd::{multiply_adds, read},
};

/// Long enough to outweigh the start of the threads, short enough that on a machine with other work some rounds are quiet.
const ROUND: Duration = Duration::from_millis(5);
const ROUNDS: usize = 40;
/// Reading takes tens of milliseconds a round.
const READING_ROUNDS: usize = 8;

/// Bytes that all threads read together, more than the caches of most machines hold, and the least for each of many.
const READ: usize = 256 << 20;
const READ_BY_EACH: usize = 16 << 20;

/// What a machine does at most, all threads of a [`Cpu`] at once: made by [`Cpu::ceilings`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations on f32 a second, in registers alone: a multiply-add is two. `None` for the portable
    /// instruction set, whose registers are the compiler's to choose.
    pub flops_per_second: Option<f64>,
    /// Bytes a second, read from memory one after the other.
    pub bytes_per_second: f64,
}

impl Cpu {
    /// Measures what this machine does at most with the threads of the pool and the instruction set: to say how near a
    /// computation comes. It takes about a second, and 256 MiB of memory (16 MiB a thread where there are more than 16).
    ///
    /// Each is the best of some rounds of milliseconds, so that other work on the machine disturbs little. Caches larger than
    /// the memory that is read would flatter the bandwidth.
    ///
    /// ```
    /// let ceilings = convpc_cpu::Cpu::new(Some(1))?.ceilings();
    /// println!("{:.0} GB/s", ceilings.bytes_per_second / 1e9);
    /// if let Some(flops) = ceilings.flops_per_second {
    ///     println!("{:.0} GFLOP/s", flops / 1e9);
    /// }
    /// # assert!(ceilings.bytes_per_second > 0.0);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn ceilings(&self) -> Ceilings {
        let (pool, isa) = (&self.pool, self.isa);
        let multiply_adds = |_| {
            let (start, mut done) = (Instant::now(), 0.0);
            while start.elapsed() < ROUND {
                done += multiply_adds(isa)?;
            }
            Some(done)
        };
        let each = (READ / self.threads()).max(READ_BY_EACH) / size_of::<f32>();
        // Each thread fills what it reads, so that it lies in the memory near it; zeros would not be filled at all.
        let memory = pool.broadcast(|_| vec![1.0_f32; each]);
        let read = |thread: usize| Some(read(isa, &memory[thread]));
        Ceilings {
            flops_per_second: best(pool, ROUNDS, multiply_adds),
            bytes_per_second: best(pool, READING_ROUNDS, read).unwrap_or(0.0),
        }
    }
}

/// The best rate of some rounds in which every thread, told its number, does some work and says how much it was; `None` where
/// a thread cannot.
fn best(pool: &ThreadPool, rounds: usize, work: impl Fn(usize) -> Option<f64> + Sync) -> Option<f64> {
    let round = || {
        let start = Instant::now();
        let done: Option<f64> = pool.broadcast(|context| work(context.index())).into_iter().sum();
        done.map(|done| done / start.elapsed().as_secs_f64())
    };
    (0..rounds).try_fold(0.0, |best: f64, _| Some(best.max(round()?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::InstructionSet;

    #[test]
    fn every_instruction_set_has_ceilings() {
        for set in InstructionSet::available() {
            let ceilings = Cpu::new(Some(2)).unwrap().with_instruction_set(set).unwrap().ceilings();
            assert_eq!(ceilings.flops_per_second.is_some(), set != InstructionSet::Portable, "{set}");
            for rate in ceilings.flops_per_second.into_iter().chain([ceilings.bytes_per_second]) {
                assert!(rate.is_finite() && rate > 0.0, "{set}: {ceilings:?}");
            }
        }
    }

    #[test]
    fn every_thread_works_in_every_round() {
        let seen = Mutex::new(vec![]);
        let cpu = Cpu::new(Some(3)).unwrap();
        assert_eq!(cpu.threads(), 3);
        let rate = best(&cpu.pool, 2, |thread| {
            seen.lock().unwrap().push(thread);
            Some(1.0)
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1, 2, 2]);
        assert!(rate.is_some_and(|rate| rate > 0.0));
        assert_eq!(best(&cpu.pool, 2, |thread| (thread > 0).then_some(1.0)), None);
    }
}
