//! Modules and their functions.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint};
use std::sync::Arc;

use super::call::{Failure, Handle, Out, Outcome, Text, call};
use super::codes::{
    FILE_NOT_FOUND, INVALID_IMAGE, INVALID_PTX, NO_BINARY_FOR_GPU, NOT_FOUND, OUT_OF_MEMORY, UNSUPPORTED_PTX_VERSION,
};
use super::state::{Function, Module, State, state};
use crate::launch::{DEFAULT_SHARED, SymbolTable};
use crate::machine::memory::MemoryError;
use crate::ptx;

/// The directory with PTX files that replace those of the same name; see the README.
const OVERRIDE: &str = "CONVPC_EMULATOR_PTX";

/// The text of a module: the given one or the one that replaces it.
fn replacement(text: &str) -> Option<String> {
    let name = text.lines().next()?.strip_prefix("// convpc ")?.trim();
    let directory = std::env::var_os(OVERRIDE)?;
    std::fs::read_to_string(std::path::Path::new(&directory).join(format!("{name}.ptx"))).ok()
}

/// The newest PTX that a driver of a CUDA version understands. The numbers moved together but for gaps.
fn newest_ptx(driver: i32) -> (u32, u32) {
    match (driver / 1000, driver % 1000 / 10) {
        (..=10, _) => (6, 5),
        (11, minor) => (7, minor as u32),
        (12, minor @ ..=5) => (8, minor as u32),
        (12, 6) => (8, 5),
        (12, minor) => (8, minor as u32 - 1),
        (13, minor) => (9, minor as u32),
        _ => (9, 9),
    }
}

/// The compute capability that a target such as `sm_90a` asks for.
fn capability(target: &str) -> Option<(i32, i32)> {
    let digits = target.strip_prefix("sm_")?.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i32 = digits.parse().ok()?;
    Some((number / 10, number % 10))
}

fn parse(text: &str, driver: i32, device: (i32, i32)) -> Outcome<Arc<ptx::Module>> {
    let module = ptx::Module::parse_cached(text).map_err(|error| Failure::new(INVALID_PTX, error.to_string()))?;
    let (newest, (major, minor)) = (newest_ptx(driver), module.version);
    if module.version > newest {
        let report = format!("PTX ISA {major}.{minor}, but the driver understands {}.{}", newest.0, newest.1);
        return Err(Failure::new(UNSUPPORTED_PTX_VERSION, report));
    }
    let wanted = capability(&module.target);
    let wanted = wanted.ok_or_else(|| Failure::new(INVALID_PTX, format!("target {}", module.target)))?;
    // Code for `sm_90a` runs on 9.0 and nowhere else.
    let is_exact = module.target.ends_with(|c: char| c.is_ascii_alphabetic());
    if wanted > device || is_exact && wanted != device {
        let report =
            format!("target {}, but the device is of compute capability {}.{}", module.target, device.0, device.1);
        return Err(Failure::new(NO_BINARY_FOR_GPU, report));
    }
    Ok(module)
}

impl State {
    /// Gives module variables their memory.
    fn place(&mut self, module: &ptx::Module) -> Outcome<Handle> {
        let mut variables = HashMap::new();
        for variable in &module.variables {
            let bytes = u64::from(variable.bytes);
            let refused = |error: MemoryError| Failure::new(OUT_OF_MEMORY, error.to_string());
            let base = self.memory_mut().allocate(bytes).map_err(refused)?;
            let mut contents = variable.init.clone();
            contents.resize(variable.bytes as usize, 0);
            let (buffer, offset) =
                self.memory.range(base, bytes).map_err(|error| Failure::invalid(error.to_string()))?;
            buffer.write(offset, &contents);
            variables.insert(variable.name.clone(), (base, bytes));
        }
        let symbols = variables.iter().map(|(name, (base, _))| (name.clone(), *base)).collect();
        let symbols = Arc::new(SymbolTable(symbols));
        let handle = self.new_handle();
        Ok(self.modules.insert(handle, Module { kernels: module.kernels.clone(), variables, symbols }))
    }
}

fn load(module: Out<Handle>, image: &[u8]) -> Outcome {
    let (driver, capability) = {
        let mut state = state();
        state.check()?;
        module.check()?;
        state.refuse_any_capture("loading a module")?;
        (state.config.driver_version, state.config.capability)
    };
    if image.starts_with(b"\x7fELF") || image.starts_with(&0xba55_ed50_u32.to_le_bytes()) {
        return Err(Failure::new(NO_BINARY_FOR_GPU, "a compiled module; the emulator executes PTX text"));
    }
    let text = std::str::from_utf8(image).map_err(|_| Failure::new(INVALID_IMAGE, "the module is not text"))?;
    let replaced = replacement(text);
    let parsed = parse(replaced.as_deref().unwrap_or(text), driver, capability)?;
    let handle = state().place(&parsed)?;
    module.set(handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: Out<Handle>, image: Text) -> c_int {
    call("cuModuleLoadData", || load(module, image.bytes()?))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    module: Out<Handle>,
    image: Text,
    _count: c_uint,
    _options: usize,
    _values: usize,
) -> c_int {
    call("cuModuleLoadDataEx", || load(module, image.bytes()?))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(module: Out<Handle>, path: Text) -> c_int {
    call("cuModuleLoad", || {
        let text = std::fs::read(path.str()?).map_err(|error| Failure::new(FILE_NOT_FOUND, error.to_string()))?;
        load(module, &text)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> c_int {
    call("cuModuleUnload", || {
        let mut state = state();
        state.check_initialised()?;
        let removed = state.modules.remove(module)?;
        for (base, _) in removed.variables.into_values() {
            state.memory_mut().free(base).map_err(|error| Failure::invalid(error.to_string()))?;
        }
        state.functions.retain(|_, function| function.module != module);
        state.check_fault()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(function: Out<Handle>, module: Handle, name: Text) -> c_int {
    call("cuModuleGetFunction", || {
        let mut state = state();
        state.check()?;
        function.check()?;
        let name = name.str()?;
        let Module { kernels, symbols, .. } = state.modules.get(module)?;
        let program = kernels.get(name).ok_or_else(|| Failure::new(NOT_FOUND, format!("no kernel {name}")))?;
        let (program, symbols) = (Arc::clone(program), Arc::clone(symbols));
        if let Some((known, _)) = state.functions.iter().find(|(_, f)| f.module == module && f.program.name == name) {
            return function.set(known);
        }
        let (major, minor) = state.config.capability;
        let new = Function {
            module,
            name: CString::new(name).unwrap_or_default(),
            program,
            symbols,
            shared_limit: DEFAULT_SHARED,
            version: 10 * major + minor,
        };
        let handle = state.new_handle();
        function.set(state.functions.insert(handle, Arc::new(new)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Text) -> c_int {
    call("cuModuleGetGlobal_v2", || {
        let state = state();
        state.check()?;
        let name = name.str()?;
        let variables = &state.modules.get(module)?.variables;
        let found = variables.get(name).ok_or_else(|| Failure::new(NOT_FOUND, format!("no variable {name}")))?;
        address.set_if_wanted(found.0);
        bytes.set_if_wanted(found.1 as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetModule(module: Out<Handle>, function: Handle) -> c_int {
    call("cuFuncGetModule", || {
        let state = state();
        state.check()?;
        module.set(state.functions.get(function)?.module)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetName(name: Out<*const c_char>, function: Handle) -> c_int {
    call("cuFuncGetName", || {
        let state = state();
        state.check()?;
        name.set(state.functions.get(function)?.name.as_ptr())
    })
}

/// The attribute that grants a function shared memory.
const MAX_DYNAMIC_SHARED: c_uint = 8;

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(value: Out<c_int>, attribute: c_uint, function: Handle) -> c_int {
    call("cuFuncGetAttribute", || {
        let state = state();
        state.check()?;
        let function = state.functions.get(function)?;
        let program = &function.program;
        value.set(match attribute {
            0 => program.max_threads.min(1024) as c_int,
            1 => program.static_shared as c_int,
            3 => program.local_bytes as c_int,
            // Registers are for the compiler to count, which there is not; what 1024 threads may have at most.
            4 => 64,
            5 | 6 => function.version,
            MAX_DYNAMIC_SHARED => (function.shared_limit - program.static_shared.min(function.shared_limit)) as c_int,
            9 => -1,
            2 | 7 | 10..=17 => 0,
            _ => return Err(Failure::invalid(format!("function attribute {attribute}"))),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> c_int {
    call("cuFuncSetAttribute", || {
        let mut state = state();
        state.check()?;
        let limit = state.limits().shared_per_block;
        let function = Arc::make_mut(state.functions.get_mut(function)?);
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let fixed = function.program.static_shared;
                let wanted = u32::try_from(value).ok().and_then(|dynamic| dynamic.checked_add(fixed));
                let wanted = wanted.filter(|&wanted| wanted <= limit).ok_or_else(|| {
                    Failure::invalid(format!("{value} bytes of dynamic shared memory beside {fixed}, {limit} allowed"))
                })?;
                function.shared_limit = wanted;
                Ok(())
            }
            9 if (-1..=100).contains(&value) => Ok(()),
            10..=15 => Ok(()),
            _ => Err(Failure::invalid(format!("function attribute {attribute} cannot be set to {value}"))),
        }
    })
}
