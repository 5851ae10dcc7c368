use std::fs;

/// Watches how much of the machine's memory this process holds at most. Linux says so; other systems do not.
pub(crate) struct PeakMemory {
    /// Whether the system began to count anew.
    reset: bool,
}

impl PeakMemory {
    /// Begins to watch.
    pub(crate) fn watch() -> Self {
        // proc(5): writing 5 sets the peak to what is held now.
        PeakMemory { reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The most bytes that were held since.
    pub(crate) fn bytes(self) -> Option<u64> {
        peak(&fs::read_to_string("/proc/self/status").ok()?).filter(|_| self.reset)
    }
}

/// The peak of the resident set in bytes, in the text of proc(5)'s status.
fn peak(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    Some(1024 * kilobytes.trim().parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(peak("Name:\tx\nVmPeak:\t    3060 kB\nVmHWM:\t    1708 kB\nVmRSS:\t 1 kB\n"), Some(1708 * 1024));
        for other in ["", "VmRSS:\t 1 kB", "VmHWM:\t x kB", "VmHWM:\t 12"] {
            assert_eq!(peak(other), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_held_for_a_moment_counts_and_what_came_before_does_not() {
        let held = |bytes: usize| std::hint::black_box(vec![1_u8; bytes]).len();
        let (before, large) = (PeakMemory::watch(), 64 << 20);
        held(large);
        let Some(before) = before.bytes() else { return };
        let after = PeakMemory::watch();
        held(1 << 20);
        let after = after.bytes().unwrap();
        assert!(before >= large as u64 && after < before - (large / 2) as u64, "{before}, then {after}");
    }
}
