use std::fmt;

/// The set of variables that a node speaks about.
///
/// ```
/// use convpc_core::Scope;
/// let a: Scope = [4, 1, 2].into_iter().collect();
/// let b: Scope = (2..6).collect();
/// assert_eq!(a.union(&b).to_string(), "{1–5}");
/// assert!(!a.is_disjoint(&b));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope(Vec<usize>);

impl Scope {
    /// The number of variables.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the scope has no variable: the node is a constant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `variable` is in the scope.
    pub fn contains(&self, variable: usize) -> bool {
        self.0.binary_search(&variable).is_ok()
    }

    /// The variables in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// The variables in either scope.
    pub fn union(&self, other: &Scope) -> Scope {
        self.iter().chain(other.iter()).collect()
    }

    /// Whether no variable is in both scopes: the condition for a product (decomposability).
    pub fn is_disjoint(&self, other: &Scope) -> bool {
        self.iter().all(|v| !other.contains(v))
    }
}

impl FromIterator<usize> for Scope {
    fn from_iter<I: IntoIterator<Item = usize>>(variables: I) -> Self {
        let mut v: Vec<usize> = variables.into_iter().collect();
        v.sort_unstable();
        v.dedup();
        Scope(v)
    }
}

impl fmt::Display for Scope {
    /// Runs of variables, as in `{0–3, 8}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match run {
                [one] => write!(f, "{comma}{one}")?,
                [first, .., last] => write!(f, "{comma}{first}–{last}")?,
                [] => {}
            }
        }
        f.write_str("}")
    }
}
