use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use crate::{
    Cpu,
    simd::{multiply_adds, read},
};

/// Long enough to outweigh the start of the threads, short enough that on a machine with other work some rounds are quiet.
const ROUND: Duration = Duration::from_millis(1);
const ROUNDS: usize = 500;

/// Values that all threads read together, more than the caches of most machines hold; the least for each of many; and those
/// that one reads at a time.
const READ: usize = 1 << 26;
const READ_BY_EACH: usize = 1 << 22;
const READ_AT_ONCE: usize = 1 << 16;

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
        let each = (READ / self.threads()).max(READ_BY_EACH);
        // Each thread fills what it reads, so that it lies in the memory near it; zeros would not be filled at all.
        let memory = pool.broadcast(|_| (vec![1.0_f32; each], AtomicUsize::new(0)));
        // A thread goes on where it was: what it read a moment ago would lie in a cache.
        let read_on = |thread: usize| {
            let (values, piece) = &memory[thread];
            let begin = piece.fetch_add(1, Ordering::Relaxed) % (each / READ_AT_ONCE) * READ_AT_ONCE;
            Some(read(isa, &values[begin..begin + READ_AT_ONCE]))
        };
        Ceilings {
            flops_per_second: best(pool, |_| multiply_adds(isa)),
            bytes_per_second: best(pool, read_on).unwrap_or(0.0),
        }
    }
}

/// The best rate of some rounds in which all threads, told their numbers, do piece after piece of work and say how much each
/// was; `None` where one cannot. A round lasts from the first thread's begin to the last one's end: neither waking them nor
/// waiting for them is work.
fn best(pool: &ThreadPool, piece: impl Fn(usize) -> Option<f64> + Sync) -> Option<f64> {
    let round = || {
        let end = Instant::now() + ROUND;
        let pieces = |thread: usize| {
            let (start, mut now, mut done) = (Instant::now(), Instant::now(), 0.0);
            while now < end {
                done += piece(thread)?;
                now = Instant::now();
            }
            Some((start, now, done))
        };
        let threads: Vec<_> = pool.broadcast(|context| pieces(context.index())).into_iter().collect::<Option<_>>()?;
        let start = threads.iter().map(|&(start, ..)| start).min()?;
        let end = threads.iter().map(|&(_, end, _)| end).max()?;
        let done: f64 = threads.into_iter().map(|(.., done)| done).sum();
        // A round that no thread began in time did nothing.
        Some(done / (end - start).as_secs_f64().max(f64::MIN_POSITIVE))
    };
    (0..ROUNDS).try_fold(0.0, |best: f64, _| Some(best.max(round()?)))
}

#[cfg(test)]
mod tests {
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
    fn every_thread_works() {
        let cpu = Cpu::new(Some(3)).unwrap();
        assert_eq!(cpu.threads(), 3);
        let done = [0, 1, 2].map(AtomicUsize::new);
        let rate = best(&cpu.pool, |thread| {
            std::thread::sleep(ROUND / 4);
            done[thread].fetch_add(1, Ordering::Relaxed);
            Some(1.0)
        });
        let done = done.map(AtomicUsize::into_inner);
        assert!(done.iter().all(|&pieces| pieces > 2), "{done:?}");
        // No thread does more than four pieces a round.
        assert!(rate.is_some_and(|rate| 0.0 < rate && rate <= 12.0 / ROUND.as_secs_f64()), "{rate:?}");
        assert_eq!(best(&cpu.pool, |thread| (thread > 0).then_some(1.0)), None);
    }
}
