/// Divides values by their sum; equal shares where the sum is zero.
pub(crate) fn normalize<'a>(values: impl ExactSizeIterator<Item = &'a mut f64>) {
    let values: Vec<&mut f64> = values.collect();
    let (sum, n) = (values.iter().map(|v| **v).sum::<f64>(), values.len() as f64);
    for v in values {
        *v = if sum > 0.0 { *v / sum } else { 1.0 / n };
    }
}
