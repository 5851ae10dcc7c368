//! Leaves that are fitted to data, against their documented rule: eight rows, and all rows as a prior that weighs one.

use convpc::{ConvPc, Family, fit_leaves};
use ndarray::Array2;

/// Rows that a channel is fitted to, and with the prior.
const ROWS: f64 = 8.0;
const TOTAL: f64 = ROWS + 1.0;

fn assert_whole(what: &str, x: f64) {
    assert!((x - x.round()).abs() < 1e-9, "{what}: {x} is no whole number");
}

/// Value 3 is rare, value 4 is in no row; each value has a tenth of a count besides.
#[test]
fn tables_hold_eight_rows_and_the_frequencies_of_all() {
    const VALUES: usize = 5;
    let circuit = ConvPc::new(1, 2, 1, Family::categorical(VALUES)).leaf_channels(20).depth(1).build(1).unwrap();
    let data = Array2::from_shape_fn((50, 2), |(row, _)| if row == 7 { 3.0 } else { (row % 3) as f32 });
    let frequency: Vec<f64> =
        (0..VALUES).map(|value| data.column(0).iter().filter(|x| **x == value as f32).count() as f64 / 50.0).collect();
    let fitted = fit_leaves(&circuit, data.view(), 3).unwrap();
    let mut without_the_rare_value = 0;
    for channel in 0..20 {
        let p = fitted.leaf_parameters(0, channel, 0);
        let seen: Vec<f64> =
            p.iter().zip(&frequency).map(|(p, f)| p * (TOTAL + 0.1 * VALUES as f64) - f - 0.1).collect();
        seen.iter().for_each(|n| assert_whole("rows with a value", *n));
        assert!((seen.iter().sum::<f64>() - ROWS).abs() < 1e-9 && seen.iter().all(|n| *n > -1e-9), "{seen:?}");
        assert!(seen[4].abs() < 1e-9, "no row has this value");
        without_the_rare_value += usize::from(seen[3].abs() < 1e-9);
    }
    assert!(without_the_rare_value > 0, "some channel must have the rare value from the prior alone");
}

#[test]
fn means_and_deviations_are_those_of_eight_rows_and_of_all_as_one_more() {
    let circuit = ConvPc::new(1, 2, 1, Family::normal()).leaf_channels(12).depth(1).build(1).unwrap();
    let data = Array2::from_shape_fn((40, 2), |(row, _)| (row * row % 31) as f32);
    let moment = |power: i32| data.column(0).iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / 40.0;
    let fitted = fit_leaves(&circuit, data.view(), 3).unwrap();
    for channel in 0..12 {
        let [mean, std] = *fitted.leaf_parameters(1, channel, 0) else { panic!("two parameters") };
        let (sum, squares) = (TOTAL * mean - moment(1), TOTAL * (std * std + mean * mean) - moment(2));
        assert_whole("the sum of eight rows", sum);
        assert_whole("the sum of their squares", squares);
        assert!(squares * ROWS >= sum * sum - 1e-6, "{sum} {squares}");
    }
}
