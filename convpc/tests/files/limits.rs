//! Files that would take more memory than they may, files without an end, and streams.

use std::path::Path;

use convpc::data::{
    Batch, DataError, Images, Options, read_batches, read_from, read_labels_with, read_mask_with, read_with,
};
use convpc::metrics;
use convpc::model::{self, ModelError};
use image::{DynamicImage, ImageBuffer, Luma};

use crate::tools::{assert_says, gzip, idx, npy, npy_of_sizes, store, zip_of};

fn within(memory: u64) -> Options {
    let mut options = Options::default();
    options.memory = Some(memory);
    options
}

/// Two images of 25 × 40 bytes, which take 8000 bytes of memory, in containers that hardly take any.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let array = npy_of_sizes("|u1", &[2, 25, 40], &[0; 2000]);
    vec![
        ("npz", zip_of(&[("x.npy", &array)])),
        ("npy.gz", gzip(&array)),
        ("idx.gz", gzip(&idx(&[2, 25, 40], &[0; 2000]))),
        ("npy", array),
    ]
}

#[test]
fn an_array_takes_no_more_memory_than_it_may() {
    for (name, file) in bombs() {
        let stored = store(name, &file);
        assert_eq!(read_with(&stored.path, &within(8000)).unwrap().values.dim(), (2, 1000), "{name}");
        let error = read_with(&stored.path, &within(7999)).unwrap_err();
        assert!(matches!(error, DataError::OverLimit { needed: 8000, limit: 7999, .. }), "{name}: {error}");
        assert_says(&error, &[name, "2 x 25 x 40", "needs 8000 bytes", "at most 7999", "Options::memory"]);
    }
    // Axes that are brought into another order are there twice for a moment.
    let colors_first = store("a", &npy_of_sizes("|u1", &[2, 3, 10, 10], &[0; 600]));
    assert!(read_with(&colors_first.path, &within(4800)).is_ok());
    assert!(matches!(read_with(&colors_first.path, &within(4799)), Err(DataError::OverLimit { needed: 4800, .. })));
}

/// Arrays in C order take the memory of a batch, whatever their size.
#[test]
fn batches_are_those_of_the_whole_file_in_less_memory() {
    let values: Vec<u8> = (0..600).map(|at| (at % 251) as u8).collect();
    let fortran = npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 300), }", &values);
    let mut files = vec![("colors first", npy_of_sizes("|u1", &[2, 3, 10, 10], &values)), ("fortran", fortran)];
    files.extend(bombs());
    for (name, file) in files {
        let stored = store("a", &file);
        let whole = read_with(&stored.path, &Options::default()).unwrap();
        for rows in [0, 1, 2, 9] {
            let mut all: Vec<f32> = vec![];
            let mut each = |batch: Batch| -> Result<(), DataError> {
                let images = batch.images;
                assert_eq!((batch.of, images.shape, images.element), (2, whole.shape, whole.element), "{name}");
                assert_eq!(batch.first * images.values.ncols(), all.len(), "{name}");
                assert!(images.values.nrows() <= rows.max(1), "{name}");
                all.extend(images.values);
                Ok(())
            };
            read_batches(&stored.path, &Options::default(), rows, &mut each).unwrap();
            assert_eq!(all, whole.values.as_slice().unwrap(), "{name}, {rows}");
        }
        if name != "colors first" && name != "fortran" {
            let mut one = |_| Ok::<(), DataError>(());
            read_batches(&stored.path, &within(4000), 1, &mut one).unwrap();
            assert!(matches!(read_batches(&stored.path, &within(3999), 1, &mut one), Err(DataError::OverLimit { .. })));
        }
        let stop = &mut |batch: Batch| Err(DataError::NoArray { path: format!("{}", batch.first).into() });
        assert!(matches!(read_batches(&stored.path, &Options::default(), 1, stop), Err(DataError::NoArray { .. })));
    }
}

#[test]
fn labels_and_masks_take_no_more_memory_than_they_may() {
    let labels = store("y", &npy_of_sizes("|u1", &[1000], &[0; 1000]));
    let bytes = 1000 * size_of::<usize>() as u64;
    assert_eq!(read_labels_with(&labels.path, &within(bytes)).unwrap().len(), 1000);
    assert!(matches!(read_labels_with(&labels.path, &within(bytes - 1)), Err(DataError::OverLimit { .. })));
    let mask = |memory| read_mask_with(&labels.path, 1000, None, &within(memory));
    assert_eq!(mask(1000).unwrap().len(), 1000);
    assert!(matches!(mask(999), Err(DataError::OverLimit { needed: 1000, .. })));
}

#[test]
fn pictures_take_no_more_memory_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let picture = DynamicImage::ImageLuma8(ImageBuffer::<Luma<u8>, _>::new(30, 20));
    for name in ["a.png", "b.png", "c.png"] {
        picture.save(folder.path().join(name)).unwrap();
    }
    // A picture is there as bytes and as floats, all pictures as floats.
    assert!(read_with(&folder.path().join("a.png"), &within(3000)).is_ok());
    let error = read_with(&folder.path().join("a.png"), &within(2999)).unwrap_err();
    assert_says(&error, &["a.png", "20 x 30 x 1", "needs 3000 bytes"]);
    assert!(read_with(folder.path(), &within(7200)).is_ok());
    let error = read_with(folder.path(), &within(7199)).unwrap_err();
    assert_says(&error, &["3 x 20 x 30 x 1", "needs 7200 bytes"]);
}

#[test]
fn arrays_are_read_from_streams() {
    let name = Path::new("standard input");
    let read =
        |bytes: &[u8], memory| -> Result<Images, DataError> { read_from(name, &mut &bytes[..], &within(memory)) };
    for (kind, file) in bombs().split_off(1) {
        let images = read(&file, 8000).unwrap();
        assert_eq!(images, read_with(&store(kind, &file).path, &Options::default()).unwrap(), "{kind}");
        assert!(matches!(read(&file, 7999), Err(DataError::OverLimit { .. })), "{kind}");
    }
    assert_says(&read(b"", 10).unwrap_err(), &["'standard input' is empty"]);
    // A header may claim what never comes: nothing is reserved for it.
    let cut = npy_of_sizes("|u1", &[1 << 40, 1], &[0; 8]);
    assert!(matches!(read(&cut, u64::MAX), Err(DataError::Truncated { found: 8, .. })));
}

#[cfg(unix)]
#[test]
fn files_without_an_end_are_refused() {
    for path in ["/dev/zero", "/dev/random"].map(Path::new) {
        let error = model::load(path).unwrap_err();
        assert!(matches!(error, ModelError::Read { .. }), "{error}");
        assert_says(&error, &[path.to_str().unwrap(), "a device or a pipe; give a regular file"]);
        assert_says(&metrics::read(path).unwrap_err(), &["a device or a pipe"]);
        assert!(matches!(read_with(path, &Options::default()), Err(DataError::NotAFile { .. })));
    }
}

/// A file of a size that no machine has memory for takes no room on the disk as long as it is zeros.
#[cfg(unix)]
#[test]
fn a_model_that_is_larger_than_memory_is_refused() {
    let stored = store("m", b"");
    std::fs::File::options().write(true).open(&stored.path).unwrap().set_len(1 << 43).unwrap();
    assert_says(&model::load(&stored.path).unwrap_err(), &["8796093022208 bytes do not fit"]);
}

/// The same of an array, whose limit is a share of the memory unless another one is given.
#[cfg(unix)]
#[test]
fn an_array_that_is_larger_than_memory_is_refused() {
    let count = 1_usize << 43;
    let header = npy_of_sizes("|u1", &[count / 1024, 1024], &[]);
    let stored = store("a", &header);
    let file = std::fs::File::options().write(true).open(&stored.path).unwrap();
    file.set_len((header.len() + count) as u64).unwrap();
    let error = read_with(&stored.path, &Options::default()).unwrap_err();
    assert!(matches!(error, DataError::OverLimit { needed, .. } if needed == 4 * count as u64), "{error}");
}
