use std::{fmt, fs, path::Path};

/// The caches of one core, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caches {
    /// The first level, data.
    pub(crate) first: usize,
    /// The second level.
    pub(crate) second: usize,
}

impl Caches {
    /// Of a machine that does not tell: what most have at least.
    const USUAL: Caches = Caches { first: 32 << 10, second: 256 << 10 };

    /// What the operating system says of the first core.
    pub(crate) fn detect() -> Self {
        Self::read(Path::new("/sys/devices/system/cpu/cpu0/cache"))
    }

    fn read(folder: &Path) -> Self {
        let mut caches = Self::USUAL;
        let text = |index: usize, name: &str| fs::read_to_string(folder.join(format!("index{index}")).join(name));
        for index in 0..8 {
            let (Ok(level), Ok(kind), Ok(size)) = (text(index, "level"), text(index, "type"), text(index, "size"))
            else {
                break;
            };
            let Some(size) = size.trim().strip_suffix('K').and_then(|k| k.parse::<usize>().ok()) else { continue };
            match (level.trim(), kind.trim()) {
                ("1", "Data" | "Unified") => caches.first = size << 10,
                ("2", "Data" | "Unified") => caches.second = size << 10,
                _ => (),
            }
        }
        caches
    }
}

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "caches of a core: {} KiB, {} KiB", self.first >> 10, self.second >> 10)
    }
}
