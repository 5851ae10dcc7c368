//! Folders of pictures, and folders of class folders.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::{DataError, ImageShape, Images, Options, picture};

/// The pictures of a folder, in order, and the rest.
#[derive(Default)]
struct Listing {
    pictures: Vec<PathBuf>,
    /// The class of each picture, where they lie in class folders.
    labels: Vec<usize>,
    classes: Vec<PathBuf>,
    passed_over: Vec<PathBuf>,
}

/// Reads all pictures of a folder, or of its class folders, in the order of their names.
pub(super) fn read(folder: &Path, options: &Options) -> Result<Images, DataError> {
    let Listing { pictures, passed_over, .. } = list(folder)?;
    Ok(Images { passed_over, ..read_all(folder, &pictures, options)? })
}

/// Reads a single picture as a row.
pub(super) fn read_one(path: &Path, options: &Options) -> Result<Images, DataError> {
    read_all(path, &[path.to_path_buf()], options)
}

/// The class of each picture that [`read`] reads: the number of its class folder.
pub(super) fn read_labels(folder: &Path) -> Result<Vec<usize>, DataError> {
    let listing = list(folder)?;
    if listing.labels.is_empty() {
        return Err(DataError::NoClasses { path: folder.to_path_buf() });
    }
    Ok(listing.labels)
}

/// The names of the class folders that labels are read from, the first being class 0; none unless `path` is such a folder.
///
/// Two folders number their classes alike if these names are the same.
///
/// # Errors
///
/// A [`DataError`] that names the folder and the remedy.
pub fn class_names(path: &Path) -> Result<Vec<String>, DataError> {
    if !path.is_dir() {
        return Ok(vec![]);
    }
    let name = |class: &PathBuf| class.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(list(path)?.classes.iter().map(name).collect())
}

fn read_all(folder: &Path, paths: &[PathBuf], options: &Options) -> Result<Images, DataError> {
    let mut values: Vec<f32> = Vec::new();
    let mut kind = None;
    for path in paths {
        let pixels = picture::read(path, options)?;
        if kind.is_none() {
            // All pictures must be like the first.
            let ImageShape { height, width, colors } = pixels.shape;
            let sizes = [paths.len(), height, width, colors];
            DataError::check_limit(folder, &sizes, size_of::<f32>(), options.memory())?;
            let values_of_all = paths.len().saturating_mul(pixels.values.len());
            values.try_reserve_exact(values_of_all).map_err(|_| DataError::too_large(folder, &sizes))?;
        }
        let this = (pixels.shape, pixels.element);
        let expected = *kind.get_or_insert(this);
        if this != expected {
            let text = |(shape, element)| format!("{shape} of {element}");
            return Err(DataError::PicturesDiffer {
                first: paths[0].clone(),
                first_kind: text(expected),
                other: path.clone(),
                other_kind: text(this),
            });
        }
        values.extend(pixels.values);
    }
    let (shape, element) = kind.ok_or_else(|| DataError::NoPicture { path: folder.to_path_buf() })?;
    let values = Array2::from_shape_vec((paths.len(), values.len() / paths.len()), values)
        .map_err(|error| DataError::corrupt(folder, error.to_string()))?;
    Ok(Images { values, shape: Some(shape), element, passed_over: vec![] })
}

/// The pictures of a folder; those of the folders in it, if it has none itself.
fn list(folder: &Path) -> Result<Listing, DataError> {
    let (pictures, others) = visible(folder)?.into_iter().partition::<Vec<_>, _>(|path| is_picture(path));
    if !pictures.is_empty() {
        return Ok(Listing { pictures, passed_over: others, ..Listing::default() });
    }
    let (classes, passed_over) = others.into_iter().partition::<Vec<_>, _>(|path| path.is_dir());
    let mut listing = Listing { passed_over, ..Listing::default() };
    for (class, folder) in classes.iter().enumerate() {
        let (pictures, others) = visible(folder)?.into_iter().partition::<Vec<_>, _>(|path| is_picture(path));
        if pictures.is_empty() {
            return Err(DataError::NoPicture { path: folder.clone() });
        }
        listing.labels.extend(pictures.iter().map(|_| class));
        listing.pictures.extend(pictures);
        listing.passed_over.extend(others);
    }
    if listing.pictures.is_empty() {
        return Err(DataError::NoPicture { path: folder.to_path_buf() });
    }
    listing.classes = classes;
    Ok(listing)
}

/// What a folder holds, numbers in names counting as numbers: 2.png before 10.png. Hidden files are left out: some systems put a
/// `._name.png` that is no picture beside each `name.png`.
fn visible(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let reading = |error| DataError::reading(folder, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.file_name() != "__MACOSX" {
            paths.push(entry.path());
        }
    }
    // Names that differ in leading zeros alone have an order too.
    paths.sort_by(|a, b| alphanumeric_sort::compare_path(a, b).then_with(|| a.cmp(b)));
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let has_ending = |ending: &std::ffi::OsStr| picture::ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known));
    path.extension().is_some_and(has_ending) && path.is_file()
}
