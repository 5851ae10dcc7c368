/// Divides values by their sum; equal shares where the sum is zero.
pub(crate) fn normalize<'a>(values: impl ExactSizeIterator<Item = &'a mut f64>) {
    let values: Vec<&mut f64> = values.collect();
    let (sum, n) = (values.iter().map(|v| **v).sum::<f64>(), values.len() as f64);
    for v in values {
        *v = if sum > 0.0 { *v / sum } else { 1.0 / n };
    }
}

/// The smallest weight that learning leaves where there was one: it can come back, and f32 holds it.
const SMALLEST: f64 = 1e-30;

/// The softmax of `keep · log w + by`, in place. A weight of zero stays, none becomes zero.
pub(crate) fn shift_logits(weights: &mut [f64], by: &[f64], keep: f64) {
    // exp(log w + by) = w exp(by): where nothing decays there is no need of logarithms.
    let decays = keep != 1.0;
    let mut largest = f64::NEG_INFINITY;
    for (w, by) in weights.iter_mut().zip(by).filter(|(w, _)| **w > 0.0) {
        let exponent = if decays { keep * w.ln() + by } else { *by };
        largest = largest.max(exponent);
    }
    let mut sum = 0.0;
    for (w, by) in weights.iter_mut().zip(by).filter(|(w, _)| **w > 0.0) {
        let share = if decays { (keep * w.ln() + by - largest).exp() } else { *w * (by - largest).exp() };
        sum += share;
        *w = share.max(f64::MIN_POSITIVE);
    }
    weights.iter_mut().filter(|w| **w > 0.0).for_each(|w| *w = (*w / sum).max(SMALLEST));
}
