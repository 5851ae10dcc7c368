//! What update rules remember of their steps, in device memory.

use std::{any::Any, fmt, sync::Arc};

use convpc_core::{DeviceMemory, Memory, Parameters, Resident, Structure};

use crate::{driver::Queue, error::CudaError, tensors::Tensors};

/// What a rule remembers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mini-batch EM with momentum: the running mean of the expected counts.
    Running,
    /// Adam: the running means of the gradient and of its square.
    Moments,
}

/// The memory of one executable's steps: one set of tensors, or two.
pub(crate) struct Remembered {
    queue: Arc<Queue>,
    structure: Arc<Structure>,
    kind: Kind,
    tensors: Vec<Tensors>,
}

impl Remembered {
    /// The tensors of a state of this kind, in the memory of this queue's device: those that are there already, unless someone
    /// else has them too; else copies, zeros at first.
    ///
    /// # Errors
    /// Where the memory is that of another rule or circuit, or does not fit into the device. What is remembered is then what it was.
    pub(crate) fn of<'a>(
        memory: &'a mut Memory,
        queue: &Arc<Queue>,
        structure: &Arc<Structure>,
        kind: Kind,
    ) -> convpc_core::Result<&'a [Tensors]> {
        let stays = |memory: &mut Memory| match memory {
            Memory::Device(DeviceMemory(device)) => Arc::get_mut(device)
                .and_then(|device| (device as &mut dyn Any).downcast_mut::<Remembered>())
                .is_some_and(|it| {
                    it.kind == kind && Arc::ptr_eq(&it.queue, queue) && Arc::ptr_eq(&it.structure, structure)
                }),
            _ => false,
        };
        if !stays(memory) {
            // A copy that fails leaves the state alone.
            let mut here = memory.clone();
            let size = match kind {
                Kind::Running => 1 + structure.leaf().family.statistics(),
                Kind::Moments => structure.leaf().family.parameters(),
            };
            let upload = |from: &[_]| -> Result<Tensors, CudaError> {
                let mut tensors = Tensors::new(queue, structure, size)?;
                tensors.upload(queue, structure, from)?;
                Ok(tensors)
            };
            let tensors = match kind {
                Kind::Running => vec![upload(here.running(structure)?)?],
                Kind::Moments => {
                    let (first, second) = here.moments(structure)?;
                    vec![upload(&first.0)?, upload(&second.0)?]
                }
            };
            let remembered = Remembered { queue: queue.clone(), structure: structure.clone(), kind, tensors };
            *memory = Memory::Device(DeviceMemory(Arc::new(remembered)));
        }
        let Memory::Device(DeviceMemory(device)) = memory else { unreachable!("it was made so above") };
        let remembered = (&**device as &dyn Any).downcast_ref::<Remembered>().expect("it was made so above");
        Ok(&remembered.tensors)
    }
}

impl Resident for Remembered {
    fn fetch(&self) -> convpc_core::Result<Memory> {
        let mut tensors = Vec::new();
        for of_device in &self.tensors {
            tensors.push(of_device.download(&self.queue, &self.structure)?);
        }
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_default();
        Ok(match self.kind {
            Kind::Running => Memory::Running(next()),
            Kind::Moments => Memory::Moments { first: Parameters(next()), second: Parameters(next()) },
        })
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Remembered").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        // A step may still write to the memory that is given back now; an error here has surfaced before.
        let _ = self.queue.synchronize();
    }
}
