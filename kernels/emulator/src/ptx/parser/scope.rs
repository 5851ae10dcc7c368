//! Names of registers, variables and labels in nested braces.
//!
//! Inline assembly opens a brace of its own and may declare `%p1` anew, so names are looked up from the innermost
//! brace outward.

use std::collections::HashMap;

use crate::ptx::syntax::{Register, RegisterInfo};
use crate::ptx::types::Type;

/// One pair of braces.
#[derive(Default)]
struct Scope {
    parent: Option<usize>,
    /// Registers that have been used, and those declared one by one.
    registers: HashMap<String, Register>,
    /// `%f<720>` as prefix, type and count.
    ranges: Vec<(String, Type, u32)>,
    labels: HashMap<String, u32>,
}

/// All braces of a function, closed ones included: a branch may go to a label that comes later.
pub(super) struct Scopes {
    scopes: Vec<Scope>,
    current: usize,
}

impl Scopes {
    pub(super) fn new() -> Self {
        Self { scopes: vec![Scope::default()], current: 0 }
    }

    pub(super) fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    /// Closes the innermost brace; false if it was the outermost.
    pub(super) fn close(&mut self) -> bool {
        match self.scopes[self.current].parent {
            Some(parent) => {
                self.current = parent;
                true
            }
            None => false,
        }
    }

    pub(super) fn current(&self) -> usize {
        self.current
    }

    pub(super) fn declare(&mut self, name: &str, ty: Type, infos: &mut Vec<RegisterInfo>) {
        let register = new_register(name, ty, infos);
        self.scopes[self.current].registers.insert(name.to_owned(), register);
    }

    pub(super) fn declare_range(&mut self, prefix: &str, ty: Type, count: u32) {
        self.scopes[self.current].ranges.push((prefix.to_owned(), ty, count));
    }

    /// The register of a name, numbered on its first use.
    pub(super) fn register(&mut self, name: &str, infos: &mut Vec<RegisterInfo>) -> Option<Register> {
        let mut at = Some(self.current);
        while let Some(index) = at {
            let scope = &mut self.scopes[index];
            if let Some(register) = scope.registers.get(name) {
                return Some(*register);
            }
            if let Some(ty) = scope.ranges.iter().find_map(|range| in_range(name, range)) {
                let register = new_register(name, ty, infos);
                scope.registers.insert(name.to_owned(), register);
                return Some(register);
            }
            at = scope.parent;
        }
        None
    }

    /// Binds a label to an instruction; false if it was bound in these braces already.
    pub(super) fn label(&mut self, name: &str, instruction: u32) -> bool {
        self.scopes[self.current].labels.insert(name.to_owned(), instruction).is_none()
    }

    pub(super) fn find_label(&self, scope: usize, name: &str) -> Option<u32> {
        let mut at = Some(scope);
        while let Some(index) = at {
            if let Some(target) = self.scopes[index].labels.get(name) {
                return Some(*target);
            }
            at = self.scopes[index].parent;
        }
        None
    }
}

fn new_register(name: &str, ty: Type, infos: &mut Vec<RegisterInfo>) -> Register {
    infos.push(RegisterInfo { name: name.to_owned(), ty });
    Register(infos.len() as u32 - 1)
}

fn in_range(name: &str, (prefix, ty, count): &(String, Type, u32)) -> Option<Type> {
    let number = name.strip_prefix(prefix.as_str())?;
    (number.parse::<u32>().ok()? < *count).then_some(*ty)
}
