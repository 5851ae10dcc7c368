//! What a kernel takes of a multiprocessor, as `ptxas -v` reports it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};

use crate::workspace::{output, read, stem};

/// The architectures that the table shows: A100 and H100.
pub(crate) const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90"];

/// What one kernel takes on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Registers of a thread.
    pub(crate) registers: u32,
    /// Bytes of static shared memory of a block.
    pub(crate) shared: u32,
    /// Bytes of spill stores and spill loads, those of called functions included.
    pub(crate) spills: u32,
    /// Bytes of a thread's stack: arrays that are not in registers.
    pub(crate) stack: u32,
}

/// One kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Its name in the PTX.
    pub(crate) name: String,
    /// The PTX file, without folder and ending.
    pub(crate) file: String,
    /// The most threads of a block (`.maxntid` or `.reqntid`), where the kernel bounds them.
    pub(crate) max_threads: Option<u32>,
    /// In the order of [`ARCHITECTURES`].
    pub(crate) usage: [Usage; ARCHITECTURES.len()],
}

impl Kernel {
    /// Bytes spilled, the most of all architectures.
    pub(crate) fn spill_bytes(&self) -> u32 {
        self.usage.iter().map(|usage| usage.spills).max().unwrap_or(0)
    }
}

/// Assembles PTX files and reads what the assembler says of each kernel; by file and name.
pub(crate) fn usages(ptxas: &Path, files: &[PathBuf]) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    for path in files {
        let usages = thread::scope(|scope| {
            let running = ARCHITECTURES.map(|architecture| scope.spawn(move || assemble(ptxas, path, architecture)));
            running.map(|thread| thread.join().expect("assembling does not panic"))
        });
        let usages = usages.into_iter().collect::<Result<Vec<_>>>()?;
        let threads = max_threads(&read(path)?);
        for name in usages[0].keys() {
            let mut usage = [Usage::default(); ARCHITECTURES.len()];
            for (slot, found) in usage.iter_mut().zip(&usages) {
                *slot = *found.get(name).with_context(|| format!("ptxas reports {name} for one architecture only"))?;
            }
            kernels.push(Kernel {
                name: name.clone(),
                file: stem(path),
                max_threads: threads.get(name).copied().flatten(),
                usage,
            });
        }
    }
    Ok(kernels)
}

fn assemble(ptxas: &Path, path: &Path, architecture: &str) -> Result<BTreeMap<String, Usage>> {
    let scratch = tempfile::tempdir().context("no temporary folder could be made")?;
    let mut command = Command::new(ptxas);
    command.args(["-v", &format!("-arch={architecture}"), "-o"]).arg(scratch.path().join("cubin")).arg(path);
    parse_report(&output(&mut command)?.1)
}

/// Reads the report of `ptxas -v`: a few lines for each entry function, some for the functions that it calls.
fn parse_report(report: &str) -> Result<BTreeMap<String, Usage>> {
    let mut kernels = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.insert(name.clone(), Usage::default());
            current = Some(name);
            continue;
        }
        let Some(usage) = current.as_ref().and_then(|name| kernels.get_mut(name)) else { continue };
        let number_before = |what: &str| {
            line.split_once(what).and_then(|(before, _)| before.split_whitespace().last()?.parse::<u32>().ok())
        };
        usage.stack += number_before(" bytes stack frame").unwrap_or(0);
        usage.spills += number_before(" bytes spill stores").unwrap_or(0);
        usage.spills += number_before(" bytes spill loads").unwrap_or(0);
        if line.contains(" Used ") {
            usage.registers = number_before(" registers").with_context(|| format!("no registers in: {line}"))?;
            usage.shared = number_before(" bytes smem").unwrap_or(0);
        }
    }
    if let Some((name, _)) = kernels.iter().find(|(_, usage)| usage.registers == 0) {
        bail!("ptxas reports no registers for {name}:\n{report}");
    }
    Ok(kernels)
}

/// The bound on the threads of a block that each entry function of a PTX text declares.
fn max_threads(ptx: &str) -> BTreeMap<String, Option<u32>> {
    let mut bounds = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in ptx.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once(".entry ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || "_$".contains(*c)).collect();
            bounds.insert(name.clone(), None);
            current = Some(name);
        } else if line == "{" {
            current = None;
        } else if let (Some(name), Some(bound)) =
            (&current, line.strip_prefix(".maxntid").or_else(|| line.strip_prefix(".reqntid")))
        {
            let threads = bound.split(',').filter_map(|count| count.trim().parse::<u32>().ok()).product();
            bounds.insert(name.clone(), Some(threads));
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_two_kernels_and_a_called_function() {
        let report = "\
ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'sum' for 'sm_80'
ptxas info    : Function properties for sum
    16 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 2 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 50 registers, used 1 barriers, 9472 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'leaf' for 'sm_80'
ptxas info    : Function properties for leaf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 19 registers, 376 bytes cmem[0]
";
        let kernels = parse_report(report).unwrap();
        assert_eq!(kernels["sum"], Usage { registers: 50, shared: 9472, spills: 18, stack: 24 });
        assert_eq!(kernels["leaf"], Usage { registers: 19, shared: 0, spills: 0, stack: 0 });
        assert_eq!(kernels.len(), 2);
    }

    #[test]
    fn a_report_without_registers_is_refused() {
        let report = "ptxas info    : Compiling entry function 'sum' for 'sm_80'\n";
        assert!(parse_report(report).unwrap_err().to_string().contains("sum"));
    }

    #[test]
    fn bounds_on_threads() {
        let ptx = "\
.visible .entry sum(
\t.param .align 8 .b8 sum_param_0[80]
)
.maxntid 16, 8, 2
.minnctapersm 2
{
\tret;
}
.visible .entry free(
)
{
.maxntid 7
}
";
        let bounds = max_threads(ptx);
        assert_eq!(bounds["sum"], Some(256));
        assert_eq!(bounds["free"], None);
    }
}
