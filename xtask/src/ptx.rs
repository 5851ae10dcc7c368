//! `cargo xtask ptx`: CUDA C++ to the PTX that the repository keeps, and the check that both agree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    nvrtc::{Nvrtc, Source},
    ptxas, table,
    tools::Tools,
    workspace::{self, files, read, shown, stem},
};

/// Every GPU since Ampere runs it: the driver compiles PTX for the GPU at hand.
/// Generic lambdas in templates count as host code unless the default is the device.
const OPTIONS: [&str; 3] = ["--gpu-architecture=compute_80", "--std=c++17", "--device-as-default-execution-space"];

/// The compiler knows no system headers; this one is all that the kernels need.
pub(crate) const STDINT: &str = "\
#pragma once
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
";

/// Kernels that may spill registers to memory, each with the reason.
const MAY_SPILL: [(&str, &str); 0] = [];

/// Where the committed PTX lies.
pub(crate) fn committed() -> PathBuf {
    workspace::path("convpc-cuda/ptx")
}

fn table_path() -> PathBuf {
    workspace::path("kernels/ptxas.md")
}

/// Compiles one file of `kernels/` or all, and writes the PTX and the table of registers.
pub(crate) fn write(kernel: Option<&str>, defines: &[String], out: Option<&Path>) -> Result<()> {
    let kernels = workspace::path("kernels");
    let mut sources = files(&kernels, "cu")?;
    if let Some(kernel) = kernel {
        sources.retain(|source| stem(source) == kernel);
        if sources.is_empty() {
            bail!("there is no kernels/{kernel}.cu");
        }
    }
    let tools = Tools::ready()?;
    let folder = out.map_or_else(committed, Path::to_path_buf);
    for (name, ptx) in compile(&tools, &kernels, &sources, defines)? {
        let path = folder.join(format!("{name}.ptx"));
        let same = std::fs::read_to_string(&path).is_ok_and(|before| before == ptx);
        if !same {
            workspace::write(&path, &ptx)?;
        }
        println!("{} {} ({} lines)", if same { "unchanged" } else { "written" }, shown(&path), ptx.lines().count());
    }
    if out.is_none() {
        for stale in stale(&kernels)? {
            std::fs::remove_file(&stale).with_context(|| format!("{} could not be removed", shown(&stale)))?;
            println!("removed {}, which has no source", shown(&stale));
        }
    }

    let usages = ptxas::usages(&tools.ptxas(), &files(&folder, "ptx")?)?;
    let table = table::render(&usages);
    if out.is_some() {
        print!("\n{table}");
    } else {
        workspace::write(&table_path(), &table)?;
        println!("written {}", shown(&table_path()));
    }
    refuse_spills(&usages)
}

/// Fails where the committed PTX is not what the sources compile to, where the table is not what the assembler reports,
/// and where a kernel spills.
pub(crate) fn check() -> Result<()> {
    let kernels = workspace::path("kernels");
    let sources = files(&kernels, "cu")?;
    let mut wrong: Vec<String> =
        stale(&kernels)?.iter().map(|path| format!("{} has no source in kernels/", shown(path))).collect();
    if sources.is_empty() && wrong.is_empty() {
        println!("there are no kernels");
        return Ok(());
    }

    let tools = Tools::ready()?;
    let compiled = compile(&tools, &kernels, &sources, &[])?;
    let mut kept = Vec::new();
    for (name, ptx) in &compiled {
        let path = committed().join(format!("{name}.ptx"));
        match std::fs::read_to_string(&path) {
            Err(_) => wrong.push(format!("{} is missing", shown(&path))),
            Ok(text) => {
                if text != *ptx {
                    let line = workspace::first_difference(&text, ptx);
                    wrong.push(format!("{} is not what kernels/{name}.cu compiles to (line {line})", shown(&path)));
                }
                kept.push(path);
            }
        }
    }
    let usages = ptxas::usages(&tools.ptxas(), &kept)?;
    let table = table::render(&usages);
    let kept_table = std::fs::read_to_string(table_path()).unwrap_or_default();
    if kept_table != table {
        let line = workspace::first_difference(&kept_table, &table);
        wrong.push(format!("{} is not what ptxas reports (line {line})", shown(&table_path())));
    }
    if !wrong.is_empty() {
        bail!("{}\nrun `cargo xtask ptx` and commit what it writes", wrong.join("\n"));
    }
    refuse_spills(&usages)?;
    println!("{} PTX files with {} kernels are up to date", compiled.len(), usages.len());
    Ok(())
}

/// Compiles sources against the headers of `kernels/include`; the name and the PTX of each.
pub(crate) fn compile(
    tools: &Tools,
    kernels: &Path,
    sources: &[PathBuf],
    defines: &[String],
) -> Result<Vec<(String, String)>> {
    // NVRTC would find it or not, depending on the working directory.
    if let Some(header) = [files(kernels, "h")?, files(kernels, "cuh")?].concat().first() {
        bail!("{}: headers belong in kernels/include", shown(header));
    }
    let nvrtc = Nvrtc::open(&tools.nvrtc())?;
    let headers = headers(&kernels.join("include"))?;
    let options: Vec<String> = OPTIONS
        .iter()
        .map(|option| (*option).to_owned())
        .chain(defines.iter().map(|define| format!("--define-macro={define}")))
        .collect();
    sources
        .iter()
        .map(|path| {
            let name = stem(path);
            let source = Source { name: format!("kernels/{name}.cu"), text: read(path)? };
            let compiled = nvrtc.compile(&source, &headers, &options)?;
            let log = compiled.log.trim_end();
            match compiled.ptx {
                None => bail!("kernels/{name}.cu does not compile\n{log}"),
                Some(ptx) => {
                    if !log.is_empty() {
                        eprintln!("{log}");
                    }
                    Ok((name.clone(), format!("// convpc {name}\n{ptx}")))
                }
            }
        })
        .collect()
}

/// All files of the folder and the folders in it, named as the kernels include them.
fn headers(include: &Path) -> Result<Vec<Source>> {
    let mut headers = vec![Source { name: "stdint.h".to_owned(), text: STDINT.to_owned() }];
    let mut folders = if include.is_dir() { vec![include.to_path_buf()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("{} could not be read", shown(&folder)))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "h" || end == "cuh") {
                let name = path.strip_prefix(include).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                headers.push(Source { name, text: read(&path)? });
            }
        }
    }
    headers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(headers)
}

/// Committed PTX without a source.
fn stale(kernels: &Path) -> Result<Vec<PathBuf>> {
    let mut stale = files(&committed(), "ptx")?;
    stale.retain(|path| !kernels.join(stem(path)).with_extension("cu").is_file());
    Ok(stale)
}

fn refuse_spills(usages: &[ptxas::Kernel]) -> Result<()> {
    let spilling: Vec<&str> = usages
        .iter()
        .filter(|usage| usage.spill_bytes() > 0 && !MAY_SPILL.iter().any(|(kernel, _)| *kernel == usage.name))
        .map(|usage| usage.name.as_str())
        .collect();
    if !spilling.is_empty() {
        bail!(
            "registers are spilled to memory in {}: give the kernel smaller tiles or fewer threads a block \
             (or, with the reason, a place in MAY_SPILL of xtask/src/ptx.rs)",
            spilling.join(", ")
        );
    }
    Ok(())
}
