use cudarc::driver::{CudaGraph, sys};

use super::{device::failed, queue::Queue};
use crate::error::CudaError;

/// A sequence of launches that the driver replays at the cost of one.
pub(crate) struct Graph(CudaGraph);

// SAFETY: a graph may be used from any thread, from one at a time: it is not Sync, and its owner is behind a lock.
unsafe impl Send for Graph {}

impl Queue {
    /// Records what `launches` starts, without running it.
    pub(crate) fn capture(&self, launches: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.compute().begin_capture(mode).map_err(failed("record a graph"))?;
        let launched = launches();
        // The recording must end whatever happened in it.
        let graph = self.compute().end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed("record a graph"));
        launched?;
        let empty = CudaError::Driver { what: "record a graph", code: "it is empty".into() };
        let graph = graph?.ok_or(empty)?;
        graph.upload().map_err(failed("prepare a graph"))?;
        Ok(Graph(graph))
    }
}

impl Graph {
    /// Runs the launches.
    pub(crate) fn launch(&self) -> Result<(), CudaError> {
        self.0.launch().map_err(failed("launch a graph"))
    }
}
