//! How numbers are printed.

/// A number with so many decimals. What rounds to zero has no sign.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let is_zero = text.bytes().all(|byte| b"-0.".contains(&byte));
    if is_zero { text.trim_start_matches('-').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_no_sign_and_nothing_else_changes() {
        let shown = [-0.0, -1e-9, 1e-9, -0.00006, -10.0, f64::NEG_INFINITY].map(|value| fixed(value, 4));
        assert_eq!(shown, ["0.0000", "0.0000", "0.0000", "-0.0001", "-10.0000", "-inf"]);
        assert_eq!(["0", "-1"], [-0.2, -0.7].map(|value| fixed(value, 0)));
    }
}
