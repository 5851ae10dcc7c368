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
pub(crate) fn shift_logits<'a, 'b>(
    weights: impl Iterator<Item = &'a mut f64>,
    by: impl IntoIterator<Item = &'b f64>,
    keep: f64,
) {
    let mut logits: Vec<(&mut f64, f64)> = weights
        .zip(by)
        .filter(|(w, _)| **w > 0.0)
        .map(|(w, by)| {
            let logit = keep * w.ln() + by;
            (w, logit)
        })
        .collect();
    let largest = logits.iter().fold(f64::NEG_INFINITY, |a, (_, b)| a.max(*b));
    let mut sum = 0.0;
    for (_, logit) in &mut logits {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.into_iter().for_each(|(w, share)| *w = (share / sum).max(SMALLEST));
}
