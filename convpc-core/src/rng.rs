//! Random numbers as a function of (seed, row, node, use), so that a sample depends neither on batch size nor on threads
//! nor on the backend. Philox4x32-10 of Salmon et al. (2011) turns the counter into bits.

use rand_philox::philox4x32_10;

/// What a random number is for; part of the counter, so that no two uses share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Use {
    /// Choosing an edge at a sum.
    Edge = 0,
    /// Drawing a value at a leaf.
    Value = 1,
    /// Making up the initial parameters of a layer, once: weights, or whatever its leaves begin as.
    Initial = 2,
    /// The order of the training data in an epoch.
    Shuffle = 3,
    /// Which rows are held out for validation.
    Split = 4,
    /// Making channels differ that were one.
    Grow = 5,
    /// Choosing the rows that leaves are fitted to.
    LeafRows = 6,
}

/// Two independent uniforms in the open interval (0, 1). `node` numbers the place in the circuit.
pub fn uniforms(seed: u64, row: u64, node: u32, what: Use) -> [f64; 2] {
    #[cfg(test)]
    recording::note((seed, row, node, what));
    let key = [seed as u32, (seed >> 32) as u32];
    let bits = philox4x32_10([row as u32, (row >> 32) as u32, node, what as u32], key);
    let unit = |high: u32, low: u32| {
        let word = (u64::from(high) << 20) | u64::from(low >> 12); // 52 bits
        (word as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    };
    [unit(bits[0], bits[1]), unit(bits[2], bits[3])]
}

/// A random order of `0..n`, each as probable as any other (Fisher and Yates). `node` numbers the order.
pub fn permutation(n: usize, seed: u64, node: u32, what: Use) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let u = uniforms(seed, last as u64, node, what)[0];
        order.swap(last, ((u * (last + 1) as f64) as usize).min(last));
    }
    order
}

/// Index drawn with probabilities proportional to `weights`, by inversion with the uniform `u`. Never an index of weight
/// zero, unless all are.
pub fn pick(weights: impl Iterator<Item = f64> + Clone, u: f64) -> usize {
    let target = u * weights.clone().sum::<f64>();
    let (mut below, mut last) = (0.0, 0);
    for (i, w) in weights.enumerate() {
        if w > 0.0 {
            below += w;
            last = i;
            if target < below {
                break;
            }
        }
    }
    last
}

/// Index of the first largest value.
pub fn arg_max(values: impl Iterator<Item = f64>) -> usize {
    let (mut best, mut at) = (f64::NEG_INFINITY, 0);
    for (i, v) in values.enumerate() {
        if v > best {
            (best, at) = (v, i);
        }
    }
    at
}

/// Which counters this thread has used, for tests that no two purposes share one.
#[cfg(test)]
pub(crate) mod recording {
    use std::cell::RefCell;

    use super::Use;

    /// Seed, row, node and use.
    pub(crate) type Counter = (u64, u64, u32, Use);

    thread_local! {
        static USED: RefCell<Option<Vec<Counter>>> = const { RefCell::new(None) };
    }

    pub(super) fn note(counter: Counter) {
        USED.with_borrow_mut(|used| used.iter_mut().for_each(|used| used.push(counter)));
    }

    /// The counters that `f` uses, in order.
    pub(crate) fn counters(f: impl FnOnce()) -> Vec<Counter> {
        USED.set(Some(vec![]));
        f();
        USED.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_depend_on_every_part_of_the_counter() {
        let base = uniforms(1, 2, 3, Use::Edge);
        for other in [
            uniforms(9, 2, 3, Use::Edge),
            uniforms(1 << 40 | 1, 2, 3, Use::Edge),
            uniforms(1, 9, 3, Use::Edge),
            uniforms(1, 1 << 40 | 2, 3, Use::Edge),
            uniforms(1, 2, 9, Use::Edge),
            uniforms(1, 2, 3, Use::Value),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, uniforms(1, 2, 3, Use::Edge));
    }

    #[test]
    fn permutations_are_uniform_and_depend_on_seed_and_number() {
        let mut seen = std::collections::HashMap::new();
        for number in 0..2400 {
            *seen.entry(permutation(4, 7, number, Use::Shuffle)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 24);
        // 100 expected, standard deviation 10.
        assert!(seen.values().all(|n| (55..145).contains(n)), "{seen:?}");
        let one = permutation(50, 1, 2, Use::Shuffle);
        let mut sorted = one.clone();
        sorted.sort();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(one, permutation(50, 1, 2, Use::Shuffle));
        assert!([permutation(50, 2, 2, Use::Shuffle), permutation(50, 1, 3, Use::Shuffle)].iter().all(|o| *o != one));
        assert_eq!(permutation(0, 1, 1, Use::Split), Vec::<usize>::new());
    }

    #[test]
    fn pick_inverts_the_distribution_function() {
        let w = [0.0, 2.0, 0.0, 6.0, 0.0];
        assert_eq!(pick(w.into_iter(), 1e-9), 1);
        assert_eq!(pick(w.into_iter(), 0.2499), 1);
        assert_eq!(pick(w.into_iter(), 0.2501), 3);
        assert_eq!(pick(w.into_iter(), 1.0), 3);
    }
}
