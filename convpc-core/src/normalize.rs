/// Divides values by their sum; equal shares where the sum is zero.
pub(crate) fn normalize<'a>(values: impl ExactSizeIterator<Item = &'a mut f64>) {
    let values: Vec<&mut f64> = values.collect();
    let (sum, n) = (values.iter().map(|v| **v).sum::<f64>(), values.len() as f64);
    for v in values {
        *v = if sum > 0.0 { *v / sum } else { 1.0 / n };
    }
}

/// The smallest weight that learning leaves where there was a positive one, so that no edge becomes impossible for ever; f32
/// holds it.
pub const SMALLEST_WEIGHT: f64 = 1e-30;

/// Returns `new`, the new weight of an edge that had the weight `old`, raised to [`SMALLEST_WEIGHT`] if the edge was possible: it
/// stays possible.
pub fn kept_possible(new: f64, old: f64) -> f64 {
    if old > 0.0 { new.max(SMALLEST_WEIGHT) } else { new }
}

/// The softmax of `keep · log w + by`, in place. A weight of zero stays, none becomes zero.
pub(crate) fn shift_logits(weights: &mut [f64], by: &[f64], keep: f64) {
    // exp(keep log w + by) = w exp((keep − 1) log w + by): where nothing decays there is no need of logarithms.
    let decayed = |w: f64, by: f64| if keep == 1.0 { by } else { (keep - 1.0) * w.ln() + by };
    let by: Vec<f64> = weights.iter().zip(by).map(|(w, by)| decayed(*w, *by)).collect();
    let possible = |(w, _): &(&mut f64, &f64)| **w > 0.0;
    let largest = weights.iter_mut().zip(&by).filter(possible).fold(f64::NEG_INFINITY, |a, (_, b)| a.max(*b));
    let mut sum = 0.0;
    for (w, by) in weights.iter_mut().zip(&by).filter(possible) {
        let share = *w * (by - largest).exp();
        sum += share;
        *w = share.max(f64::MIN_POSITIVE);
    }
    weights.iter_mut().filter(|w| **w > 0.0).for_each(|w| *w = (*w / sum).max(SMALLEST_WEIGHT));
}
