//! Where the colors are among the axes of an array.

use convpc::data::{AxisOrder, DataError, ImageShape, Images, Options, read_with};
use ndarray::{Array2, Array4};

use crate::tools::{assert_says, idx, npy_of_sizes, store};

/// Reads an array whose values count from 0, as `.npy` and as IDX, which must agree.
fn read(sizes: [usize; 4], axes: Option<AxisOrder>) -> Result<Images, DataError> {
    let data: Vec<u8> = (0..sizes.iter().product()).map(|value: usize| value as u8).collect();
    let mut options = Options::default();
    options.axes = axes;
    let images = read_with(&store("a", &npy_of_sizes("|u1", &sizes, &data)).path, &options);
    let of_idx = read_with(&store("a", &idx(&sizes.map(|size| size as u32), &data)).path, &options);
    assert_eq!(images.as_ref().ok(), of_idx.as_ref().ok());
    images
}

/// What the array means if its axes are in this order.
fn meant([rows, a, b, c]: [usize; 4], order: AxisOrder) -> (Array2<f32>, ImageShape) {
    let array =
        Array4::from_shape_vec((rows, a, b, c), (0..rows * a * b * c).map(|value| value as u8 as f32).collect());
    let (array, [height, width, colors]) = match order {
        AxisOrder::ColorsLast => (array.unwrap(), [a, b, c]),
        AxisOrder::ColorsFirst => (array.unwrap().permuted_axes([0, 2, 3, 1]), [b, c, a]),
    };
    let values: Vec<f32> = array.iter().copied().collect();
    (Array2::from_shape_vec((rows, a * b * c), values).unwrap(), ImageShape { height, width, colors })
}

#[test]
fn colors_are_found_or_the_array_is_refused() {
    use AxisOrder::{ColorsFirst, ColorsLast};
    let cases = [
        ([2, 3, 8, 12], Some(ColorsFirst)),
        ([2, 1, 8, 12], Some(ColorsFirst)),
        ([2, 4, 8, 8], Some(ColorsFirst)),
        ([2, 2, 8, 5], Some(ColorsFirst)),
        ([2, 8, 12, 3], Some(ColorsLast)),
        ([2, 8, 12, 1], Some(ColorsLast)),
        ([2, 5, 1, 4], Some(ColorsLast)),
        // No side can be colors as people know them: the usual order.
        ([2, 8, 8, 12], Some(ColorsLast)),
        // Both can.
        ([2, 3, 4, 4], None),
        ([2, 4, 4, 3], None),
        ([2, 3, 4, 3], None),
        ([2, 3, 3, 3], None),
        ([2, 1, 2, 3], None),
        ([2, 3, 7, 4], None),
    ];
    for (sizes, order) in cases {
        match (read(sizes, None), order) {
            (Ok(images), Some(order)) => {
                let (values, shape) = meant(sizes, order);
                assert_eq!((images.values, images.shape), (values, Some(shape)), "{sizes:?}");
            }
            (Err(error), None) => {
                assert!(matches!(error, DataError::AmbiguousAxes { .. }), "{error}");
                assert_says(&error, &["--layout chw", "--layout hwc", "2 x "]);
            }
            (result, _) => panic!("{sizes:?}: {result:?}"),
        }
        for order in [ColorsFirst, ColorsLast] {
            let (values, shape) = meant(sizes, order);
            let images = read(sizes, Some(order)).unwrap();
            assert_eq!((images.values, images.shape), (values, Some(shape)), "{sizes:?}");
        }
    }
}

#[test]
fn a_value_is_placed_by_the_order_of_the_variables() {
    // Color 2 of the pixel in row 1, column 4, of image 1: (1 * 6 + 4) * 3 + 2.
    for (sizes, index) in [([2, 3, 5, 6], [1, 2, 1, 4]), ([2, 5, 6, 3], [1, 1, 4, 2])] {
        let mut array = Array4::<f64>::zeros(sizes);
        array[index] = 1e39;
        let bytes: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
        let error = crate::tools::read_bytes("a", &npy_of_sizes("<f8", &sizes, &bytes)).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { row: 1, variable: 32, .. }), "{error}");
    }
}
