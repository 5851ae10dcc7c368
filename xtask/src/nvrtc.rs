//! NVRTC, NVIDIA's compiler from CUDA C++ to PTX as a library. It needs no host compiler, no CUDA headers and no GPU.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::Path,
    ptr,
};

use anyhow::{Context, Result, anyhow, bail};
use libloading::{Library, Symbol};

type Program = *mut c_void;
type Status = c_int;
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> Status;
type TextOf = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// The loaded library.
pub(crate) struct Nvrtc {
    library: Library,
    /// Found by libnvrtc under its name, because it is loaded already.
    _builtins: Library,
}

/// A text and the name that `#include` or a message of the compiler gives it.
pub(crate) struct Source {
    /// As in `#include "name"`.
    pub(crate) name: String,
    /// What the file holds.
    pub(crate) text: String,
}

/// What the compiler made of a source: PTX, or only messages.
pub(crate) struct Compiled {
    /// The PTX, where the source is right.
    pub(crate) ptx: Option<String>,
    /// Warnings and errors, with file and line.
    pub(crate) log: String,
}

impl Nvrtc {
    /// Loads the library from the folder of its wheel.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let load = |name: &str| {
            let path = folder.join(name);
            // SAFETY: NVIDIA's library, of a pinned version and hash; its initialisers ask nothing of the caller.
            unsafe { Library::new(&path) }.with_context(|| format!("{} could not be loaded", path.display()))
        };
        Ok(Self { _builtins: load("libnvrtc-builtins.so.12.2")?, library: load("libnvrtc.so.12")? })
    }

    /// Compiles one source; the headers are all that it can include.
    pub(crate) fn compile(&self, source: &Source, headers: &[Source], options: &[String]) -> Result<Compiled> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> Status;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status;
        type Destroy = unsafe extern "C" fn(*mut Program) -> Status;

        let (name, text) = (terminated(&source.name)?, terminated(&source.text)?);
        let header_texts = headers.iter().map(|header| terminated(&header.text)).collect::<Result<Vec<_>>>()?;
        let header_names = headers.iter().map(|header| terminated(&header.name)).collect::<Result<Vec<_>>>()?;
        let options = options.iter().map(|option| terminated(option)).collect::<Result<Vec<_>>>()?;
        let (header_texts, header_names) = (pointers(&header_texts), pointers(&header_names));
        let options = pointers(&options);

        // SAFETY: the type is nvrtcCreateProgram's in nvrtc.h.
        let create: Symbol<'_, Create> = unsafe { self.symbol("nvrtcCreateProgram") }?;
        // SAFETY: likewise.
        let compile: Symbol<'_, Compile> = unsafe { self.symbol("nvrtcCompileProgram") }?;
        // SAFETY: likewise.
        let destroy: Symbol<'_, Destroy> = unsafe { self.symbol("nvrtcDestroyProgram") }?;
        let mut program = ptr::null_mut();
        // SAFETY: all strings end with NUL and live until the end of this function; both arrays have headers.len() entries.
        let created = unsafe {
            create(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                header_texts.as_ptr(),
                header_names.as_ptr(),
            )
        };
        self.succeeded(created)?;
        // SAFETY: the program was just created; the array has options.len() strings that end with NUL.
        let status = unsafe { compile(program, options.len() as c_int, options.as_ptr()) };
        let log = self.text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
        let ptx = (status == 0).then(|| self.text(program, "nvrtcGetPTXSize", "nvrtcGetPTX"));
        // SAFETY: created above, not destroyed yet, not used after.
        unsafe { destroy(&mut program) };
        let (log, ptx) = (log?, ptx.transpose()?);
        if ptx.is_none() && log.trim().is_empty() {
            self.succeeded(status)?;
        }
        Ok(Compiled { ptx, log })
    }

    /// A text that the program holds: its log or its PTX.
    fn text(&self, program: Program, size_name: &str, text_name: &str) -> Result<String> {
        // SAFETY: both ...Size functions have this type in nvrtc.h.
        let size_of: Symbol<'_, SizeOf> = unsafe { self.symbol(size_name) }?;
        // SAFETY: nvrtcGetProgramLog and nvrtcGetPTX have this type.
        let text_of: Symbol<'_, TextOf> = unsafe { self.symbol(text_name) }?;
        let mut size = 0;
        // SAFETY: the program is alive, size a valid place.
        self.succeeded(unsafe { size_of(program, &mut size) })?;
        let mut bytes = vec![0_u8; size];
        // SAFETY: the buffer has the size that the library asked for.
        self.succeeded(unsafe { text_of(program, bytes.as_mut_ptr().cast()) })?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        String::from_utf8(bytes).context("NVRTC returned a text that is not UTF-8")
    }

    /// # Safety
    /// The function of this name must have the type `T`.
    unsafe fn symbol<T>(&self, name: &str) -> Result<Symbol<'_, T>> {
        // SAFETY: the caller's promise.
        unsafe { self.library.get(name.as_bytes()) }.with_context(|| format!("libnvrtc has no {name}"))
    }

    fn succeeded(&self, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the type is nvrtcGetErrorString's in nvrtc.h.
        let describe: Symbol<'_, unsafe extern "C" fn(Status) -> *const c_char> =
            unsafe { self.symbol("nvrtcGetErrorString") }?;
        // SAFETY: it takes any number and returns a string that lives as long as the library.
        let message = unsafe { CStr::from_ptr(describe(status)) };
        bail!("NVRTC: {}", message.to_string_lossy());
    }
}

fn terminated(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| anyhow!("a source text holds a NUL character"))
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}
