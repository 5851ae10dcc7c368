//! Graphs, which streams record.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::call::{Failure, Handle, Out, Outcome, call};
use super::codes::{
    INVALID_HANDLE, STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNJOINED, STREAM_CAPTURE_UNMATCHED,
    STREAM_CAPTURE_UNSUPPORTED,
};
use super::state::{Capture, State, Stream, Strict, state};
use super::work::{Work, perform_all};

/// The modes of a recording: no thread may disturb it, the one that began it may not, or all may.
const GLOBAL: c_uint = 0;
const THREAD_LOCAL: c_uint = 1;
const RELAXED: c_uint = 2;

impl State {
    /// Takes all streams out of a recording.
    pub(super) fn end_capture(&mut self, capture: Handle) -> Outcome<Capture> {
        for (_, stream) in self.streams.iter_mut() {
            if stream.capture == Some(capture) {
                stream.capture = None;
                stream.unjoined = false;
            }
        }
        self.captures.remove(capture)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> c_int {
    call("cuStreamBeginCapture_v2", || {
        let mut state = state();
        state.check()?;
        let stream = state.stream(stream)?;
        let strict = match mode {
            GLOBAL => Strict::Everyone,
            THREAD_LOCAL => Strict::Thread(std::thread::current().id()),
            RELAXED => Strict::Nobody,
            _ => return Err(Failure::invalid(format!("capture mode {mode}"))),
        };
        if stream == 0 {
            return Err(Failure::new(STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot record a graph"));
        }
        state.refuse_capture(stream, "another recording")?;
        let handle = state.new_handle();
        state.captures.insert(handle, Capture { origin: stream, strict, work: Vec::new(), invalid: false });
        state.streams.get_mut(stream)?.capture = Some(handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: Handle, graph: Out<Handle>) -> c_int {
    call("cuStreamEndCapture", || {
        let mut state = state();
        state.check()?;
        let stream = state.stream(stream)?;
        let Some(capture) = state.streams.get(stream)?.capture else {
            return Err(Failure::invalid("the stream records no graph"));
        };
        if state.captures.get(capture)?.origin != stream {
            state.captures.get_mut(capture)?.invalid = true;
            return Err(STREAM_CAPTURE_UNMATCHED.into());
        }
        let is_loose = |(handle, s): (Handle, &Stream)| handle != stream && s.capture == Some(capture) && s.unjoined;
        let unjoined = state.streams.iter().any(is_loose);
        let ended = state.end_capture(capture)?;
        graph.set(0)?;
        if ended.invalid {
            return Err(STREAM_CAPTURE_INVALIDATED.into());
        }
        if unjoined {
            return Err(Failure::new(STREAM_CAPTURE_UNJOINED, "a stream that joined the recording was not waited for"));
        }
        let handle = state.new_handle();
        graph.set(state.graphs.insert(handle, ended.work.into()))
    })
}

fn status(state: &State, stream: Handle) -> Outcome<(c_uint, u64)> {
    let stream = state.stream(stream)?;
    Ok(match state.streams.get(stream)?.capture {
        None => (0, 0),
        Some(capture) if state.captures.get(capture)?.invalid => (2, capture as u64),
        Some(capture) => (1, capture as u64),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: Handle, out: Out<c_uint>) -> c_int {
    call("cuStreamIsCapturing", || {
        let state = state();
        state.check()?;
        out.set(status(&state, stream)?.0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: Handle,
    out: Out<c_uint>,
    id: Out<u64>,
    graph: Out<Handle>,
    dependencies: Out<usize>,
    count: Out<usize>,
) -> c_int {
    call("cuStreamGetCaptureInfo_v2", || {
        let state = state();
        state.check()?;
        let (status, capture) = status(&state, stream)?;
        id.set_if_wanted(capture);
        graph.set_if_wanted(0);
        dependencies.set_if_wanted(0);
        count.set_if_wanted(0);
        out.set(status)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Out<c_uint>) -> c_int {
    call("cuThreadExchangeStreamCaptureMode", || mode.set(0))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphCreate(graph: Out<Handle>, flags: c_uint) -> c_int {
    call("cuGraphCreate", || {
        let mut state = state();
        state.check()?;
        graph.check()?;
        if flags != 0 {
            return Err(Failure::invalid("flags must be 0"));
        }
        let handle = state.new_handle();
        graph.set(state.graphs.insert(handle, Arc::new([])))
    })
}

/// Flags of an executable graph.
mod flags {
    pub(super) const AUTO_FREE_ON_LAUNCH: u64 = 1;
    pub(super) const DEVICE_LAUNCH: u64 = 4;
    pub(super) const ALL: u64 = 15;
}

fn instantiate(executable: Out<Handle>, graph: Handle, flags: u64) -> Outcome {
    let mut state = state();
    state.check()?;
    executable.check()?;
    let exclusive = flags::AUTO_FREE_ON_LAUNCH | flags::DEVICE_LAUNCH;
    if flags & !flags::ALL != 0 || flags & exclusive == exclusive {
        return Err(Failure::invalid(format!("graph flags {flags:#x}")));
    }
    let work = Arc::clone(state.graphs.get(graph)?);
    let handle = state.new_handle();
    executable.set(state.executables.insert(handle, work))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(executable: Out<Handle>, graph: Handle, flags: u64) -> c_int {
    call("cuGraphInstantiateWithFlags", || instantiate(executable, graph, flags))
}

/// The parameters of `cuGraphInstantiateWithParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    flags: u64,
    upload: Handle,
    error_node: Handle,
    result: c_uint,
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithParams(
    executable: Out<Handle>,
    graph: Handle,
    parameters: super::call::Array<Parameters>,
) -> c_int {
    call("cuGraphInstantiateWithParams", || {
        let Parameters { flags, .. } = parameters.at(0)?;
        instantiate(executable, graph, flags)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: Handle, _nodes: Out<Handle>, count: Out<usize>) -> c_int {
    call("cuGraphGetNodes", || {
        let state = state();
        state.check()?;
        count.set(state.graphs.get(graph)?.len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(executable: Handle, stream: Handle) -> c_int {
    call("cuGraphUpload", || {
        let state = state();
        state.check()?;
        state.stream(stream)?;
        state.executables.get(executable).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> c_int {
    call("cuGraphLaunch", || {
        let (stream, work): (Handle, Arc<[Work]>) = {
            let mut state = state();
            state.check()?;
            let stream = state.stream(stream)?;
            state.refuse_capture(stream, "a graph in a graph (not modelled)")?;
            (stream, Arc::clone(state.executables.get(executable)?))
        };
        perform_all(stream, &work)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: Handle) -> c_int {
    call("cuGraphExecDestroy", || {
        let mut state = state();
        state.check_initialised()?;
        state.executables.remove(executable)?;
        state.check_fault()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> c_int {
    call("cuGraphDestroy", || {
        let mut state = state();
        state.check_initialised()?;
        if graph == 0 {
            return Err(INVALID_HANDLE.into());
        }
        state.graphs.remove(graph)?;
        state.check_fault()
    })
}
