use std::{error::Error, fs, path::Path};

use convpc::{
    Circuit, Executable,
    bench::{Case, Query},
    data, model,
};

/// Writes what a peer needs to do the same: `FOLDER/NAME.safetensors`, the circuit; `FOLDER/NAME.images.npy`, the batch;
/// `FOLDER/NAME.log_likelihoods.npy`, what the executable finds.
///
/// # Errors
/// Where a file cannot be written, or as the log-likelihoods.
pub fn write(
    case: &Case,
    folder: &Path,
    circuit: &Circuit,
    executable: &mut dyn Executable,
) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder).map_err(|error| format!("{} could not be made: {error}", folder.display()))?;
    let file = |ending: &str| folder.join(format!("{}.{ending}", case.name));
    let images = Query::LogLikelihood.images(circuit, case.batch)?;
    model::save(&file("safetensors"), circuit)?;
    data::write_npy_f32(&file("images.npy"), images.view().into_dyn())?;
    data::write_npy_f64(&file("log_likelihoods.npy"), executable.log_likelihood(images.view())?.view())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use convpc::{Backend, Reference};

    use super::*;
    use crate::case::tiny;

    #[test]
    fn what_is_written_is_what_is_measured() {
        let circuit = tiny().circuit().unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(&tiny(), folder.path(), &circuit, &mut *executable).unwrap();

        let file = |ending: &str| folder.path().join(format!("tiny.{ending}"));
        assert_eq!(model::load(&file("safetensors")).unwrap(), circuit);
        let images = Query::LogLikelihood.images(&circuit, 3).unwrap();
        assert_eq!(data::read(&file("images.npy")).unwrap().values, images);
        assert_eq!(fs::read(file("log_likelihoods.npy")).unwrap().len(), 128 + 3 * size_of::<f64>());
    }
}
