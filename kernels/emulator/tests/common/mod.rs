//! Running small kernels on the machine, without a driver.

use emulator::launch::{LaunchError, Shape, SymbolTable, launch};
use emulator::machine::memory::Memory;
use emulator::machine::settings::Settings;
use emulator::ptx::Module;
use emulator::stats::KernelStats;

/// A module, its memory, and where its variables lie.
pub(crate) struct Device {
    pub(crate) module: Module,
    pub(crate) memory: Memory,
    pub(crate) symbols: SymbolTable,
}

impl Device {
    /// Loads a text, initialising its variables as a driver does.
    pub(crate) fn new(text: &str) -> Self {
        let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut memory = Memory::new(1 << 30);
        let mut symbols = SymbolTable::default();
        for variable in &module.variables {
            let base = memory.allocate(u64::from(variable.bytes)).unwrap();
            let mut bytes = variable.init.clone();
            bytes.resize(variable.bytes as usize, 0);
            memory.range(base, u64::from(variable.bytes)).unwrap().0.write(0, &bytes);
            symbols.0.insert(variable.name.clone(), base);
        }
        Self { module, memory, symbols }
    }

    /// Allocates and fills.
    pub(crate) fn upload(&mut self, words: &[u32]) -> u64 {
        let base = self.memory.allocate(4 * words.len() as u64).unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.range(base, bytes.len() as u64).unwrap().0.write(0, &bytes);
        base
    }

    pub(crate) fn upload_floats(&mut self, floats: &[f32]) -> u64 {
        let words: Vec<u32> = floats.iter().map(|x| x.to_bits()).collect();
        self.upload(&words)
    }

    pub(crate) fn download(&self, base: u64, words: usize) -> Vec<u32> {
        let (buffer, offset) = self.memory.range(base, 4 * words as u64).unwrap();
        (0..words as u64).map(|i| buffer.load(offset + 4 * i, 4) as u32).collect()
    }

    pub(crate) fn download_floats(&self, base: u64, count: usize) -> Vec<f32> {
        self.download(base, count).into_iter().map(f32::from_bits).collect()
    }

    pub(crate) fn launch(
        &self,
        kernel: &str,
        shape: Shape,
        parameters: &Parameters,
        settings: &Settings,
    ) -> Result<KernelStats, LaunchError> {
        launch(&self.module.kernels[kernel], &self.memory, &self.symbols, &parameters.0, shape, settings)
    }
}

/// A parameter buffer, each value aligned to its size.
#[derive(Default)]
pub(crate) struct Parameters(pub(crate) Vec<u8>);

impl Parameters {
    pub(crate) fn pointer(mut self, pointer: u64) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(pointer.to_le_bytes());
        self
    }

    pub(crate) fn word(mut self, word: u32) -> Self {
        self.0.extend(word.to_le_bytes());
        self
    }
}

/// Numbers in [-1, 1) that look random.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
