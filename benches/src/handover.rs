use std::{error::Error, fs, path::Path};

use convpc::{Circuit, Executable, data, model};

use crate::case::Case;

impl Case {
    /// Writes what a peer needs to do the same: `FOLDER/NAME.safetensors`, the circuit; `FOLDER/NAME.images.npy`, the batch;
    /// `FOLDER/NAME.log_likelihoods.npy`, what the executable finds.
    ///
    /// # Errors
    /// Where a file cannot be written, or as the log-likelihoods.
    pub fn write(
        &self,
        folder: &Path,
        circuit: &Circuit,
        executable: &mut dyn Executable,
    ) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(folder).map_err(|error| format!("{} could not be made: {error}", folder.display()))?;
        let file = |ending: &str| folder.join(format!("{}.{ending}", self.name));
        let images = self.images();
        model::save(&file("safetensors"), circuit)?;
        data::write_npy_f32(&file("images.npy"), images.view().into_dyn())?;
        data::write_npy_f64(&file("log_likelihoods.npy"), executable.log_likelihood(images.view())?.view())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use convpc::{Backend, Reference};

    use super::*;

    #[test]
    fn what_is_written_is_what_is_measured() {
        let case = Case { name: "tiny".into(), size: 4, sum_conv: false, channels: 2, depth: 1, batch: 3 };
        let circuit = case.circuit().unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), &circuit, &mut *executable).unwrap();

        let file = |ending: &str| folder.path().join(format!("tiny.{ending}"));
        assert_eq!(model::load(&file("safetensors")).unwrap(), circuit);
        assert_eq!(data::read(&file("images.npy")).unwrap().values, case.images());
        assert_eq!(fs::read(file("log_likelihoods.npy")).unwrap().len(), 128 + 3 * size_of::<f64>());
    }
}
