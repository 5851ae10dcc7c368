//! SIGINT (Ctrl-C), SIGTERM and SIGHUP (a terminal that closes): `train` ends after its batch, every other command at once. None
//! leaves a part of a file.

/// Returns the signal that asked this process to end, if one has come while the command finishes its work by itself.
pub(crate) fn received() -> Option<Signal> {
    imp::received()
}

/// Begins to watch for signals. From now on a signal ends the process and removes the files that it has begun.
pub(crate) fn watch() {
    imp::watch();
}

/// Makes the first signal leave the end to the command, which asks for it by [`received`]. The second one ends the process.
pub(crate) fn let_work_finish() {
    imp::let_work_finish(true);
}

/// Makes signals end the process at once again.
pub(crate) fn end_at_once() {
    imp::let_work_finish(false);
}

/// A signal that asks a process to end.
#[derive(Clone, Copy)]
pub(crate) struct Signal {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
}

#[cfg(unix)]
mod imp {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
        },
        thread,
    };

    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
        flag,
        iterator::Signals,
        low_level,
    };

    use super::Signal;
    use crate::failure::note;

    static WORK_FINISHES: AtomicBool = AtomicBool::new(false);
    static RECEIVED: AtomicI32 = AtomicI32::new(0);

    pub(super) fn received() -> Option<Signal> {
        match RECEIVED.load(SeqCst) {
            0 => None,
            number => Some(signal(number)),
        }
    }

    pub(super) fn let_work_finish(finishes: bool) {
        WORK_FINISHES.store(finishes, SeqCst);
    }

    /// True if the process that began this one had the signal ignored, as `nohup` does with SIGHUP; known on Linux only.
    fn is_ignored(signal: i32) -> Option<bool> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        Some(u64::from_str_radix(mask.trim(), 16).ok()? >> (signal - 1) & 1 == 1)
    }

    pub(super) fn watch() {
        // With a handler, a file that grows beyond its limit (ulimit -f) is an error of writing, not the end of the process.
        let _ = flag::register(SIGXFSZ, Arc::default());
        // Where signals cannot be watched, they end the process as they always do.
        let hang_up = (is_ignored(SIGHUP) == Some(false)).then_some(SIGHUP);
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM].into_iter().chain(hang_up)) else { return };
        thread::spawn(move || {
            for number in signals.forever() {
                if WORK_FINISHES.load(SeqCst) && RECEIVED.swap(number, SeqCst) == 0 {
                    note("the training stops after this batch; a second signal ends it at once");
                    continue;
                }
                let Signal { number, name } = signal(number);
                let _ended = convpc::atomic::remove_unfinished();
                note(format_args!("ended by {name}"));
                // The main thread may be inside a driver, whose own end it would disturb.
                low_level::exit(128 + i32::from(number));
            }
        });
    }

    fn signal(number: i32) -> Signal {
        let name = match number {
            SIGINT => "SIGINT",
            SIGHUP => "SIGHUP",
            _ => "SIGTERM",
        };
        Signal { number: number as u8, name }
    }
}

/// Elsewhere a signal ends the process as it always does.
#[cfg(not(unix))]
mod imp {
    use super::Signal;

    pub(super) fn received() -> Option<Signal> {
        None
    }

    pub(super) fn watch() {}

    pub(super) fn let_work_finish(_: bool) {}
}
