//! Operations on streams: each is carried out at once, or recorded if its stream records a graph.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::call::{Failure, Handle, Host, Outcome};
use super::codes::{INVALID_HANDLE, STREAM_CAPTURE_IMPLICIT, STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNSUPPORTED};
use super::order::Use;
use super::state::{Function, State, state};
use crate::launch::{LaunchError, Shape, launch};
use crate::machine::memory::{Buffer, Memory};

/// An operation.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Launch {
        function: Arc<Function>,
        shape: Shape,
        parameters: Vec<u8>,
    },
    ToDevice {
        to: u64,
        from: Host,
        bytes: usize,
    },
    ToHost {
        to: Host,
        from: u64,
        bytes: usize,
    },
    OnDevice {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// `count` times the low `width` bytes of `value`.
    Fill {
        to: u64,
        value: u32,
        width: u64,
        count: u64,
    },
    Call {
        function: extern "C" fn(usize),
        argument: usize,
    },
}

/// Lets a stream do something, now or in the graph that it records.
pub(super) fn submit(stream: Handle, work: Work) -> Outcome {
    let stream = {
        let mut state = state();
        state.check()?;
        let stream = state.stream(stream)?;
        state.check_work(&work)?;
        if work.is_empty() {
            return Ok(());
        }
        if let Some(capture) = state.capture_of(stream)? {
            state.captures.get_mut(capture)?.work.push(work);
            let own = state.streams.get_mut(stream)?;
            own.unjoined = true;
            return Ok(());
        }
        stream
    };
    perform_all(stream, &[work])
}

/// Carries operations out, while no other thread of the host does anything on the stream.
pub(super) fn perform_all(stream: Handle, work: &[Work]) -> Outcome {
    let turn = Arc::clone(&state().streams.get(stream)?.turn);
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    work.iter().try_for_each(|work| perform(stream, work))
}

fn perform(stream: Handle, work: &Work) -> Outcome {
    let (memory, settings) = {
        let mut state = state();
        state.check_fault()?;
        // A graph may have outlived what it works on.
        state.check_work(work)?;
        let uses = work.uses(&state.memory);
        state.note_uses(stream, &uses, work.name())?;
        if let Work::ToHost { to, .. } = work
            && !state.is_pinned(*to)
        {
            // The driver waits for copies to pageable memory.
            state.clocks.host_waits(stream);
        }
        (Arc::clone(&state.memory), state.config.settings)
    };
    match work {
        Work::ToDevice { to, from, bytes } => {
            let (buffer, offset) = range(&memory, *to, *bytes as u64)?;
            buffer.write(offset, from.bytes(*bytes));
        }
        Work::ToHost { to, from, bytes } => {
            let (buffer, offset) = range(&memory, *from, *bytes as u64)?;
            let mut copy = vec![0; *bytes];
            buffer.read(offset, &mut copy);
            to.write(&copy);
        }
        Work::OnDevice { to, from, bytes } => {
            copy(range(&memory, *from, *bytes)?, range(&memory, *to, *bytes)?, *bytes)
        }
        Work::Fill { to, value, width, count } => {
            let (buffer, offset) = range(&memory, *to, width * count)?;
            let pattern = &value.to_le_bytes()[..*width as usize];
            buffer.write(offset, &pattern.repeat(*count as usize));
        }
        Work::Call { function, argument } => function(*argument),
        Work::Launch { function, shape, parameters } => {
            let Function { program, symbols, .. } = &**function;
            let result = launch(program, &memory, &**symbols, parameters, *shape, &settings);
            let mut state = state();
            match result {
                Ok(stats) => state.stats.entry(program.name.clone()).or_default().merge(&stats),
                Err(LaunchError::Refused(message)) => return Err(Failure::invalid(message)),
                Err(LaunchError::Fault(fault)) => {
                    let code = fault.kind.code();
                    state.fault.get_or_insert(code);
                    return Err(Failure::new(code, fault.to_string()));
                }
            }
        }
    }
    Ok(())
}

fn range(memory: &Memory, address: u64, bytes: u64) -> Outcome<(&Buffer, u64)> {
    let (buffer, offset) = memory.range(address, bytes).map_err(|error| Failure::invalid(error.to_string()))?;
    Ok((buffer, offset))
}

/// Copies bytes; those that were never written stay so.
fn copy((from, start): (&Buffer, u64), (to, at): (&Buffer, u64), bytes: u64) {
    let mut copy = vec![0; bytes as usize];
    from.read(start, &mut copy);
    if from.is_written(start, bytes) {
        to.write(at, &copy);
        return;
    }
    for (i, byte) in (0..).zip(copy) {
        if from.is_written(start + i, 1) {
            to.store(at + i, 1, u64::from(byte));
        }
    }
}

impl Work {
    /// Its name in reports.
    fn name(&self) -> &'static str {
        match self {
            Self::Launch { .. } => "a kernel",
            Self::ToDevice { .. } => "a copy to the device",
            Self::ToHost { .. } => "a copy from the device",
            Self::OnDevice { .. } => "a copy within the device",
            Self::Fill { .. } => "a memset",
            Self::Call { .. } => "a call of the host",
        }
    }

    /// Whether it does nothing.
    fn is_empty(&self) -> bool {
        match self {
            Self::ToDevice { bytes, .. } | Self::ToHost { bytes, .. } => *bytes == 0,
            Self::OnDevice { bytes: count, .. } | Self::Fill { count, .. } => *count == 0,
            Self::Launch { .. } | Self::Call { .. } => false,
        }
    }

    /// The memory that it uses.
    fn uses(&self, memory: &Memory) -> Vec<(Use, Range<u64>)> {
        match *self {
            Self::ToDevice { to, bytes, .. } => vec![(Use::Write, to..to + bytes as u64)],
            Self::ToHost { from, bytes, .. } => vec![(Use::Read, from..from + bytes as u64)],
            Self::OnDevice { to, from, bytes } => vec![(Use::Read, from..from + bytes), (Use::Write, to..to + bytes)],
            Self::Fill { to, width, count, .. } => vec![(Use::Write, to..to + width * count)],
            Self::Call { .. } => Vec::new(),
            Self::Launch { ref parameters, .. } => {
                let words = parameters.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_le_bytes));
                let allocations = words.filter_map(|word| Some((word, memory.at(memory.find(word)?)?)));
                allocations.map(|(word, found)| (Use::Kernel, word..found.base + found.bytes)).collect()
            }
        }
    }
}

impl State {
    /// A stream by its handle; `1` is another name of the legacy stream.
    pub(super) fn stream(&self, handle: Handle) -> Outcome<Handle> {
        let handle = if handle == 1 { 0 } else { handle };
        self.streams.get(handle)?;
        Ok(handle)
    }

    /// The recording that a stream takes part in.
    ///
    /// # Errors
    /// A recording that has failed, or one that the legacy stream would have to wait for.
    pub(super) fn capture_of(&mut self, stream: Handle) -> Outcome<Option<Handle>> {
        let Some(capture) = self.streams.get(stream)?.capture else {
            if stream == 0
                && let Some((_, other)) = self.streams.iter().find(|(_, s)| s.capture.is_some() && !s.non_blocking)
                && let Some(capture) = other.capture
            {
                self.captures.get_mut(capture)?.invalid = true;
                return Err(Failure::new(
                    STREAM_CAPTURE_IMPLICIT,
                    "the legacy stream was used while a stream that waits for it records a graph",
                ));
            }
            return Ok(None);
        };
        if self.captures.get(capture)?.invalid {
            return Err(STREAM_CAPTURE_INVALIDATED.into());
        }
        Ok(Some(capture))
    }

    /// Fails, and spoils the recording, if a stream records a graph: `what` cannot be part of one.
    pub(super) fn refuse_capture(&mut self, stream: Handle, what: &str) -> Outcome {
        match self.capture_of(stream)? {
            Some(capture) => self.spoil(capture, what),
            None => Ok(()),
        }
    }

    /// Fails, and spoils the recordings, if any stream records a graph that does not allow what could wait for it.
    pub(super) fn refuse_any_capture(&mut self, what: &str) -> Outcome {
        let strict = self.captures.iter().find(|(_, capture)| capture.strict.binds_me()).map(|(handle, _)| handle);
        strict.map_or(Ok(()), |capture| self.spoil(capture, what))
    }

    fn spoil(&mut self, capture: Handle, what: &str) -> Outcome {
        self.captures.get_mut(capture)?.invalid = true;
        let report = format!("{what} is not allowed while a stream records a graph");
        Err(Failure::new(STREAM_CAPTURE_UNSUPPORTED, report))
    }

    /// Checks that the memory and the module of an operation exist.
    fn check_work(&self, work: &Work) -> Outcome {
        let device = |address, bytes: u64| match bytes {
            0 => Ok(()),
            _ => range(&self.memory, address, bytes).map(|_| ()),
        };
        match work {
            Work::ToDevice { to, from, bytes } => {
                device(*to, *bytes as u64)?;
                self.check_host(*from, *bytes)
            }
            Work::ToHost { to, from, bytes } => {
                device(*from, *bytes as u64)?;
                self.check_host(*to, *bytes)
            }
            Work::OnDevice { to, from, bytes } => {
                device(*from, *bytes)?;
                device(*to, *bytes)
            }
            Work::Fill { to, width, count, .. } => {
                if !to.is_multiple_of(*width) {
                    return Err(Failure::invalid(format!("{to:#x} is not aligned to {width} bytes")));
                }
                device(*to, width * count)
            }
            Work::Call { .. } => Ok(()),
            Work::Launch { function, .. } => match self.modules.get(function.module) {
                Ok(_) => Ok(()),
                Err(_) => Err(Failure::new(INVALID_HANDLE, "the module of the kernel was unloaded")),
            },
        }
    }

    /// Checks that host memory is not null and, if it is page-locked, long enough.
    fn check_host(&self, host: Host, bytes: usize) -> Outcome {
        host.check(bytes)?;
        if let Some((base, layout)) = self.pinned.range(..=host.0).next_back()
            && host.0 < base + layout.size()
            && host.0 + bytes > base + layout.size()
        {
            let (offset, size) = (host.0 - base, layout.size());
            let report = format!("{bytes} bytes at {offset} bytes into page-locked memory of {size}");
            return Err(Failure::invalid(report));
        }
        Ok(())
    }

    /// Whether an address is in page-locked memory.
    pub(super) fn is_pinned(&self, host: Host) -> bool {
        self.pinned.range(..=host.0).next_back().is_some_and(|(base, layout)| host.0 < base + layout.size())
    }
}
