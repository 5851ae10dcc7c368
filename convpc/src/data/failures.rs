//! Constructors of errors about data files.

use std::io;
use std::path::Path;

use super::DataError;

impl DataError {
    /// Sorts an error that came up while reading `path`.
    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path },
            // Decompressors report damaged data with these kinds.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::corrupt(&path, source.to_string()),
            io::ErrorKind::UnexpectedEof => Self::corrupt(&path, "it ends in the middle"),
            _ => Self::Read { path, source },
        }
    }

    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), reason: reason.into() }
    }

    /// An error if the values of an array would take more memory than they may.
    pub(super) fn check_limit(path: &Path, shape: &[usize], bytes_of_a_value: usize, limit: u64) -> Result<(), Self> {
        match needed(shape, bytes_of_a_value) {
            Some(needed) if needed <= limit => Ok(()),
            _ => Err(Self::over_limit(path, shape, bytes_of_a_value, limit)),
        }
    }

    /// The error of an array whose values would take more memory than they may.
    pub(super) fn over_limit(path: &Path, shape: &[usize], bytes_of_a_value: usize, limit: u64) -> Self {
        match needed(shape, bytes_of_a_value) {
            Some(needed) => Self::OverLimit { path: path.to_path_buf(), shape: shape.to_vec(), needed, limit },
            None => Self::too_large(path, shape),
        }
    }

    pub(super) fn too_large(path: &Path, shape: &[usize]) -> Self {
        Self::TooLarge { path: path.to_path_buf(), shape: shape.to_vec() }
    }
}

/// The bytes of the values of an array in memory; `None` if they cannot be counted.
fn needed(shape: &[usize], bytes_of_a_value: usize) -> Option<u64> {
    shape.iter().try_fold(bytes_of_a_value as u64, |needed, &size| needed.checked_mul(size as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A superuser may read everything, so a refusal cannot be staged with real files.
    #[test]
    fn a_refusal_of_the_system_is_told_apart_from_damage() {
        let sort = |kind: io::ErrorKind| DataError::reading(Path::new("a.npy"), kind.into());
        assert!(matches!(sort(io::ErrorKind::PermissionDenied), DataError::PermissionDenied { .. }));
        assert!(matches!(sort(io::ErrorKind::NotFound), DataError::NotFound { .. }));
        assert!(matches!(sort(io::ErrorKind::InvalidData), DataError::Corrupt { .. }));
        assert!(matches!(sort(io::ErrorKind::TimedOut), DataError::Read { .. }));
    }

    #[test]
    fn texts_name_the_file_and_the_remedy() {
        let text = DataError::reading(Path::new("a.npy"), io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(text.contains("'a.npy'") && text.contains("make it readable"), "{text}");
        let text = DataError::too_large(Path::new("b.npy"), &[3, 4]).to_string();
        assert!(text.contains("3 x 4") && text.contains("split it"), "{text}");
    }
}
