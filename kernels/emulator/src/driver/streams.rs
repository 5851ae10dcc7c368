//! Streams and events.

use std::ffi::{c_int, c_uint};
use std::time::Instant;

use super::call::{Failure, Handle, Out, Outcome, call};
use super::codes::{CAPTURED_EVENT, INVALID_HANDLE, STREAM_CAPTURE_ISOLATION, STREAM_CAPTURE_MERGE};
use super::state::{Event, State, Stream, current, state};
use super::work::{Work, submit};

/// The flag of a stream that does not wait for the legacy stream.
const NON_BLOCKING: c_uint = 1;
/// The flag of an event that is not for measuring time.
const DISABLE_TIMING: c_uint = 2;

fn create_stream(stream: Out<Handle>, flags: c_uint, priority: c_int) -> Outcome {
    let mut state = state();
    state.check()?;
    stream.check()?;
    if flags > NON_BLOCKING {
        return Err(Failure::invalid(format!("stream flags {flags:#x}")));
    }
    let handle = state.new_handle();
    let new = Stream { non_blocking: flags == NON_BLOCKING, priority: priority.clamp(-5, 0), ..Stream::default() };
    stream.set(state.streams.insert(handle, new))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Out<Handle>, flags: c_uint) -> c_int {
    call("cuStreamCreate", || create_stream(stream, flags, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: Out<Handle>, flags: c_uint, priority: c_int) -> c_int {
    call("cuStreamCreateWithPriority", || create_stream(stream, flags, priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> c_int {
    call("cuStreamDestroy_v2", || {
        let mut state = state();
        state.check_initialised()?;
        if stream <= 2 {
            return Err(Failure::new(INVALID_HANDLE, "the stream was not created"));
        }
        let removed = state.streams.remove(stream)?;
        state.clocks.forget(stream);
        // A recording dies with the stream on which it began.
        if let Some(capture) = removed.capture
            && state.captures.get(capture).is_ok_and(|capture| capture.origin == stream)
        {
            state.end_capture(capture)?;
        }
        state.check_fault()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> c_int {
    call("cuStreamSynchronize", || {
        let mut state = state();
        state.check()?;
        let stream = state.stream(stream)?;
        state.refuse_capture(stream, "cuStreamSynchronize")?;
        state.clocks.host_waits(stream);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: Handle) -> c_int {
    call("cuStreamQuery", || {
        let mut state = state();
        state.check()?;
        let stream = state.stream(stream)?;
        state.refuse_capture(stream, "cuStreamQuery")?;
        state.clocks.host_waits(stream);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(stream: Handle, priority: Out<c_int>) -> c_int {
    call("cuStreamGetPriority", || {
        let state = state();
        state.check()?;
        priority.set(state.streams.get(state.stream(stream)?)?.priority)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(stream: Handle, flags: Out<c_uint>) -> c_int {
    call("cuStreamGetFlags", || {
        let state = state();
        state.check()?;
        flags.set(c_uint::from(state.streams.get(state.stream(stream)?)?.non_blocking))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(stream: Handle, context: Out<Handle>) -> c_int {
    call("cuStreamGetCtx", || {
        let state = state();
        state.check()?;
        state.stream(stream)?;
        context.set(current())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: Handle, function: Option<extern "C" fn(usize)>, argument: usize) -> c_int {
    call("cuLaunchHostFunc", || {
        let function = function.ok_or_else(|| Failure::invalid("a null pointer where a function belongs"))?;
        submit(stream, Work::Call { function, argument })
    })
}

impl State {
    /// Lets a stream wait for an event, which may take it into a recording.
    fn wait(&mut self, stream: Handle, event: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        let Event { recorded, captured, .. } = self.events.get(event)?;
        let (recorded, captured) = (recorded.clone(), *captured);
        let own = self.capture_of(stream)?;
        match (own, captured.filter(|(capture, _)| self.captures.get(*capture).is_ok())) {
            (None, None) => {
                if let Some((_, clock)) = recorded {
                    self.clocks.wait(stream, &clock);
                }
                Ok(())
            }
            (None, Some((capture, _))) => {
                self.streams.get_mut(stream)?.capture = Some(capture);
                self.streams.get_mut(stream)?.unjoined = true;
                Ok(())
            }
            (Some(own), Some((capture, _))) if own != capture => {
                self.captures.get_mut(own)?.invalid = true;
                Err(Failure::new(STREAM_CAPTURE_MERGE, "the event belongs to another recording"))
            }
            (Some(_), Some((_, from))) => {
                if from != stream
                    && let Ok(from) = self.streams.get_mut(from)
                {
                    from.unjoined = false;
                }
                Ok(())
            }
            (Some(own), None) if recorded.is_some() => {
                self.captures.get_mut(own)?.invalid = true;
                let report = "a stream that records a graph waits for an event that was recorded outside";
                Err(Failure::new(STREAM_CAPTURE_ISOLATION, report))
            }
            (Some(_), None) => Ok(()),
        }
    }

    fn record(&mut self, event: Handle, stream: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        self.events.get(event)?;
        let capture = self.capture_of(stream)?;
        let clock = self.clocks.of(stream).clone();
        let event = self.events.get_mut(event)?;
        event.captured = capture.map(|capture| (capture, stream));
        if capture.is_none() {
            event.recorded = Some((Instant::now(), clock));
        }
        Ok(())
    }

    /// When an event was recorded, after waiting for it.
    fn finish(&mut self, event: Handle) -> Outcome {
        let Event { recorded, captured, .. } = self.events.get(event)?;
        if captured.is_some() {
            return Err(Failure::new(CAPTURED_EVENT, "the event was recorded into a graph"));
        }
        if let Some((_, clock)) = recorded {
            let clock = clock.clone();
            self.clocks.host.join(&clock);
        }
        Ok(())
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> c_int {
    call("cuStreamWaitEvent", || {
        let mut state = state();
        state.check()?;
        state.wait(stream, event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Out<Handle>, flags: c_uint) -> c_int {
    call("cuEventCreate", || {
        let mut state = state();
        state.check()?;
        event.check()?;
        if flags > 7 {
            return Err(Failure::invalid(format!("event flags {flags:#x}")));
        }
        let handle = state.new_handle();
        let new = Event { timing: flags & DISABLE_TIMING == 0, recorded: None, captured: None };
        event.set(state.events.insert(handle, new))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> c_int {
    call("cuEventRecord", || {
        let mut state = state();
        state.check()?;
        state.record(event, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: Handle, stream: Handle, _flags: c_uint) -> c_int {
    call("cuEventRecordWithFlags", || {
        let mut state = state();
        state.check()?;
        state.record(event, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> c_int {
    call("cuEventSynchronize", || {
        let mut state = state();
        state.check()?;
        state.finish(event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> c_int {
    call("cuEventQuery", || {
        let mut state = state();
        state.check()?;
        state.finish(event)
    })
}

fn elapsed(milliseconds: Out<f32>, start: Handle, end: Handle) -> Outcome {
    let state = state();
    state.check()?;
    let time = |event: Handle| {
        let event = state.events.get(event)?;
        match &event.recorded {
            Some((time, _)) if event.timing && event.captured.is_none() => Ok(*time),
            _ => Err(Failure::new(INVALID_HANDLE, "an event without timing, or one that was never recorded")),
        }
    };
    let (start, end) = (time(start)?, time(end)?);
    let span = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f32() * 1e3;
    milliseconds.set(span(start, end) - span(end, start))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle, end: Handle) -> c_int {
    call("cuEventElapsedTime", || elapsed(milliseconds, start, end))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle, end: Handle) -> c_int {
    call("cuEventElapsedTime_v2", || elapsed(milliseconds, start, end))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> c_int {
    call("cuEventDestroy_v2", || {
        let mut state = state();
        state.check_initialised()?;
        state.events.remove(event)?;
        state.check_fault()
    })
}
