//! From PTX text to programs: [`lexer`], [`parser`] and `decode`.
//!
//! The parser knows the grammar and the scopes of names; it does not know what an instruction does. The decoder turns
//! each instruction into one [`op::Op`] with register numbers in place of names, so that nothing is looked up while a
//! program runs.

mod allocate;
mod decode;
pub mod lexer;
pub mod op;
pub mod parser;
pub mod program;
pub mod syntax;
pub mod types;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use program::Program;
use syntax::Variable;

/// Why a PTX text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// The line of the text, counted from 1.
    pub line: u32,
    /// What is wrong there, with the instruction where there is one.
    pub message: String,
}

impl PtxError {
    /// An error at a line.
    pub fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A loaded PTX text: its kernels, decoded, and its module variables.
#[derive(Debug)]
pub struct Module {
    /// The `.version` directive, for example `(8, 2)`.
    pub version: (u32, u32),
    /// The first word of the `.target` directive, for example `sm_80`.
    pub target: String,
    /// Variables in global and constant memory, in the order of the text.
    pub variables: Vec<Variable>,
    /// Kernels by name.
    pub kernels: HashMap<String, Arc<Program>>,
}

impl Module {
    /// Parses and decodes a whole text.
    ///
    /// # Errors
    ///
    /// The first thing that is not understood, with its line. Every kernel is decoded, so an instruction that the
    /// emulator lacks is found when the module is loaded and not when the kernel first runs.
    ///
    /// ```
    /// let text = ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry nop() { ret; }";
    /// let module = emulator::ptx::Module::parse(text)?;
    /// assert!(module.kernels.contains_key("nop"));
    /// # Ok::<(), emulator::ptx::PtxError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, PtxError> {
        let source = parser::parse(text)?;
        let lines: Arc<[String]> = text.lines().map(|line| line.trim().to_owned()).collect();
        let mut kernels = HashMap::new();
        for entry in &source.entries {
            let program = decode::decode(entry, &source.variables, Arc::clone(&lines))?;
            kernels.insert(entry.name.clone(), Arc::new(program));
        }
        let variables = source.variables.into_iter().filter(|variable| !variable.is_shared()).collect();
        Ok(Self { version: source.version, target: source.target, variables, kernels })
    }

    /// [`Self::parse`], but a text that was parsed a short time ago is not parsed again. A program under test opens its
    /// device, and loads its modules, anew in every test.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`].
    pub fn parse_cached(text: &str) -> Result<Arc<Self>, PtxError> {
        static RECENT: Mutex<Vec<(String, Arc<Module>)>> = Mutex::new(Vec::new());
        let recent = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, module)) = recent().iter().find(|(known, _)| known == text) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(Self::parse(text)?);
        let mut recent = recent();
        if recent.len() >= RECENT_MODULES {
            recent.remove(0);
        }
        recent.push((text.to_owned(), Arc::clone(&module)));
        Ok(module)
    }
}

/// Modules that [`Module::parse_cached`] keeps.
const RECENT_MODULES: usize = 16;
