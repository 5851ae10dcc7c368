//! `.npz`: a ZIP archive of `.npy` arrays.

use std::fs::File;
use std::path::Path;

use super::zip::{self, Entry};
use super::{DataError, Images, npy};

/// The names by which images are known, the first that is there wins.
const NAMES: [&str; 3] = ["x", "data", "images"];

pub(super) fn read(path: &Path, mut file: File, length: u64) -> Result<Images, DataError> {
    let entries = zip::entries(path, &mut file, length)?;
    let entry = choose(path, &entries)?;
    let mut contents = zip::open(path, file, length, entry)?;
    let images = npy::read_images(path, &mut contents, entry.size)?;
    contents.finish(path)?;
    Ok(images)
}

fn choose<'a>(path: &Path, entries: &'a [Entry]) -> Result<&'a Entry, DataError> {
    let path = || path.to_path_buf();
    match entries {
        [] => Err(DataError::NoArray { path: path() }),
        [only] => Ok(only),
        _ => {
            let named = |name: &&str| entries.iter().find(|entry| array_name(entry) == *name);
            NAMES.iter().find_map(named).ok_or_else(|| DataError::AmbiguousArray {
                path: path(),
                names: entries.iter().map(|entry| array_name(entry).to_owned()).collect(),
            })
        }
    }
}

fn array_name(entry: &Entry) -> &str {
    entry.name.strip_suffix(".npy").unwrap_or(&entry.name)
}
