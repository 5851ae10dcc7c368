/// Visits the boundaries `k − ½` between the values `k − 1` and `k`, from the mean upwards and then downwards: k, `t_k`,
/// `σ(t_k)` and `σ(−t_k)`, both with all their digits.
///
/// One boundary's exponential is the next one's times e^(−1/s), so that they cost a multiplication each; an error of
/// rounding grows by one unit in the last place a boundary.
pub(super) fn each_boundary(levels: usize, mean: f64, scale: f64, mut visit: impl FnMut(usize, f64, f64, f64)) {
    /// Below it an exponential is nothing beside 1, and soon a number that processors take long for.
    const NOTHING: f64 = 1e-290;
    let inverse = 1.0 / scale;
    let (ratio, t) = ((-inverse).exp(), |k: usize| (k as f64 - 0.5 - mean) * inverse);
    let first = (mean + 0.5).ceil().clamp(1.0, levels as f64) as usize;
    let further = |small: f64| if small > NOTHING { small * ratio } else { 0.0 };
    let mut small = (-t(first)).exp();
    for k in first..levels {
        let near = 1.0 / (1.0 + small);
        visit(k, t(k), near, small * near);
        small = further(small);
    }
    let mut small = t(first - 1).exp();
    for k in (1..first).rev() {
        let near = 1.0 / (1.0 + small);
        visit(k, t(k), small * near, near);
        small = further(small);
    }
}
