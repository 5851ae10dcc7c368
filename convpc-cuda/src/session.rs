//! Batches on their way through the device: memory that grows to what is needed and then stays, plans and graphs kept for
//! the shapes seen, and two slots, so that one batch is copied while another is computed.

mod complete;
mod learn;

use std::collections::HashMap;

use convpc_core::{Form, Precision, Structure};
use ndarray::{ArrayView2, Axis};

pub(crate) use complete::Query;

use crate::{
    choices::Tables,
    compiled::{Compiled, Memory, Outputs, Recorded, Way},
    driver::{Buffer, Mark, Need, Pinned, Queue},
    error::CudaError,
    host::Host,
    learn::Learning,
    model::Model,
    params::{self, ConvpcTranspose},
    plan::{Descents, Limits, Plan, Purpose, computed_rows, stride},
};

/// Rows that are computed at a time where memory allows: enough to fill the device, few enough that the next ones are copied
/// meanwhile.
const MOST_ROWS: usize = 4096;

/// Plans that are kept.
const MOST_PLANS: usize = 32;

/// What part of the free memory a session may take.
const SHARE_OF_FREE_MEMORY: (u64, u64) = (9, 10);

/// A batch's way in and out.
struct Slot {
    /// `[row][column]`, on the host and on the queue: what comes in, and completed rows that go out.
    staged: Pinned<f32>,
    raw: Buffer<f32>,
    /// `[row]`: its class, where it is known, on the host and on the queue.
    staged_labels: Pinned<u32>,
    labels: Buffer<u32>,
    /// The root's values and offsets.
    root: Root,
    /// Set while the device works on the slot.
    running: Option<Running>,
}

/// What the root says of each row: its values, and its offsets.
struct Root {
    values: Pinned<f32>,
    offsets: Pinned<f64>,
}

impl Root {
    /// The log-likelihoods of so many rows.
    fn log_likelihoods(&mut self, rows: usize) -> Result<impl Iterator<Item = f64>, CudaError> {
        let (values, offsets) = (&self.values.values()?[..rows], &self.offsets.values()?[..rows]);
        Ok(values.iter().zip(offsets).map(|(y, offset)| f64::from(*y) + offset))
    }
}

struct Running {
    mark: Mark,
    first_row: usize,
    rows: usize,
}

/// What is kept of a plan.
struct Ready {
    up: Recorded,
    /// Where there is a way down.
    down: Option<Recorded>,
    used: u64,
}

/// Memory of the way down.
struct WayMemory {
    /// The flows of two neighbouring layers.
    flows: [Buffer<f32>; 2],
    /// Counts of the parts of a layer.
    parts: Buffer<f32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    purpose: Purpose,
    rows: usize,
}

impl Key {
    fn new(on: Context, purpose: Purpose, rows: usize) -> Self {
        Key { purpose, rows: computed_rows(on.structure, rows, purpose) }
    }
}

#[derive(Default)]
pub(crate) struct Session {
    data: Option<Buffer<f32>>,
    outputs: HashMap<usize, Outputs>,
    way: Option<WayMemory>,
    slots: Vec<Slot>,
    /// Rows that slots and data have room for.
    room: usize,
    plans: HashMap<Key, Ready>,
    uses: u64,
    /// How choices are made, once they were asked for.
    tables: Option<Tables>,
    /// `[place][row]`
    choices: Option<Buffer<u32>>,
}

/// What a session works with: lent for each call.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) host: &'a Host,
    pub(crate) structure: &'a Structure,
    pub(crate) model: &'a Model,
    pub(crate) precision: Precision,
    pub(crate) limits: Limits,
}

impl Session {
    /// The log-likelihood of each row.
    pub(crate) fn log_likelihood(&mut self, on: Context, data: ArrayView2<f32>) -> Result<Vec<f64>, CudaError> {
        let mut all = vec![0.0; data.nrows()];
        let rows = self.rows_at_a_time(on, data.nrows(), Purpose::Root)?;
        for (index, batch) in data.axis_chunks_iter(Axis(0), rows).enumerate() {
            let slot = index % 2;
            self.finish(slot, &mut all)?;
            self.start(on, slot, batch, Purpose::Root, None)?;
            self.fetch_root(on, slot, index * rows, batch.nrows())?;
        }
        self.finish(0, &mut all)?;
        self.finish(1, &mut all)?;
        check_range(on.structure, all.iter().copied().enumerate())?;
        Ok(all)
    }

    /// Computes layers of some rows; returns the distance between channels and what was computed.
    pub(crate) fn layers(
        &mut self,
        on: Context,
        data: ArrayView2<f32>,
        purpose: Purpose,
    ) -> Result<(usize, &HashMap<usize, Outputs>), CudaError> {
        let key = self.start(on, 0, data, purpose, None)?;
        on.queue.upload_after_compute()?;
        Ok((stride(key.rows), &self.outputs))
    }

    /// How many rows a call computes at a time.
    pub(crate) fn rows_at_a_time(&mut self, on: Context, rows: usize, purpose: Purpose) -> Result<usize, CudaError> {
        let ready = |session: &Self, rows| session.plans.contains_key(&Key::new(on, purpose, rows));
        self.rows_that_fit(on, rows.min(MOST_ROWS), ready, |rows| {
            let plan = Plan::new(on.structure, rows, purpose, on.precision, on.limits);
            // Data once by column and twice by row.
            let values = plan.values_per_row(on.structure) + 3 * on.structure.variables();
            let down = purpose.has_flows().then(|| Descents::new(on.structure, &plan, on.precision, on.limits));
            let down = down.map_or(0, |down| down.bytes(on.structure));
            (stride(plan.rows) * values * size_of::<f32>()) as u64 + down
        })
    }

    /// How many of the wanted rows fit, if so many rows need so many bytes. What is held stays where the session is ready for
    /// that number of rows, or where they fit beside it; otherwise it is given back to make room.
    fn rows_that_fit(
        &mut self,
        on: Context,
        wanted: usize,
        ready: impl Fn(&Self, usize) -> bool,
        needed: impl Fn(usize) -> u64,
    ) -> Result<usize, CudaError> {
        if ready(self, wanted) {
            return Ok(wanted);
        }
        let free = on.queue.free_memory()?;
        let beside = free / SHARE_OF_FREE_MEMORY.1 * SHARE_OF_FREE_MEMORY.0;
        let share = beside + self.bytes();
        let mut fits = wanted;
        while fits > 1 && needed(fits) > share {
            fits = fits.div_ceil(2);
        }
        if needed(fits) > share {
            return Err(Need::Rows(fits).unmet(needed(fits), free));
        }
        if needed(fits) > beside && !ready(self, fits) {
            self.give_back(on)?;
        }
        Ok(fits)
    }

    /// Gives back what batches need.
    fn give_back(&mut self, on: Context) -> Result<(), CudaError> {
        on.queue.synchronize()?;
        self.plans.clear();
        self.outputs.clear();
        (self.slots, self.data, self.room) = (Vec::new(), None, 0);
        (self.way, self.choices) = (None, None);
        Ok(())
    }

    /// Bytes of device memory that the session holds.
    fn bytes(&self) -> u64 {
        let outputs: usize = self.outputs.values().map(Outputs::len).sum();
        let slots: usize = self.slots.iter().map(|slot| slot.raw.len()).sum();
        let way = self.way.as_ref().map_or(0, |way| way.flows[0].len() + way.flows[1].len() + way.parts.len());
        let (data, choices) = (self.data.as_ref().map_or(0, Buffer::len), self.choices.as_ref().map_or(0, Buffer::len));
        ((outputs + slots + way + data + choices) * size_of::<f32>()) as u64
    }

    /// Makes room and a plan for a number of rows, unless they are there.
    fn prepare(
        &mut self,
        on: Context,
        purpose: Purpose,
        rows: usize,
        learning: Option<&Learning>,
    ) -> Result<Key, CudaError> {
        self.uses += 1;
        let key = Key::new(on, purpose, rows);
        if let Some(ready) = self.plans.get_mut(&key) {
            ready.used = self.uses;
            return Ok(key);
        }
        let plan = Plan::new(on.structure, rows, purpose, on.precision, on.limits);
        let down = learning.map(|_| Descents::new(on.structure, &plan, on.precision, on.limits));
        self.make_room(on, &plan, down.as_ref())?;
        if self.plans.len() >= MOST_PLANS {
            let oldest = self.plans.iter().min_by_key(|(_, ready)| ready.used).map(|(key, _)| *key);
            on.queue.synchronize()?;
            oldest.map(|key| self.plans.remove(&key));
        }
        let data = self.data.as_ref().expect("made room for");
        let memory = Memory { model: on.model, data, outputs: &self.outputs };
        let up = Recorded::new(Compiled::up(on.queue, on.structure, &plan, &memory)?);
        let down = match (&down, &self.way, learning) {
            (Some(down), Some(WayMemory { flows: [even, odd], parts }), Some(learning)) => {
                let way = Way { flows: [even, odd], parts, counts: &learning.counts };
                Some(Recorded::new(Compiled::down(on.queue, on.structure, down, &memory, &way)?))
            }
            _ => None,
        };
        self.plans.insert(key, Ready { up, down, used: self.uses });
        Ok(key)
    }

    /// Grows slots and data to a number of rows. Addresses change with it, so all plans are forgotten.
    fn make_room_for_rows(&mut self, on: Context, rows: usize) -> Result<(), CudaError> {
        if self.room >= rows {
            return Ok(());
        }
        let (columns, need) = (on.structure.variables(), Need::Rows(rows));
        on.queue.synchronize()?;
        (self.slots, self.data, self.room) = (Vec::new(), None, 0);
        self.plans.clear();
        self.data = Some(on.queue.allocate(columns * rows, need)?);
        for _ in 0..2 {
            self.slots.push(Slot {
                staged: on.queue.pinned(columns * rows)?,
                raw: on.queue.allocate(columns * rows, need)?,
                staged_labels: on.queue.pinned(rows)?,
                labels: on.queue.allocate(rows, need)?,
                root: Root { values: on.queue.pinned(rows)?, offsets: on.queue.pinned(rows)? },
                running: None,
            });
        }
        self.room = rows;
        Ok(())
    }

    /// Grows what is too small for a plan. Addresses change with it, so all plans are forgotten.
    fn make_room(&mut self, on: Context, plan: &Plan, down: Option<&Descents>) -> Result<(), CudaError> {
        let rows = plan.stride();
        let need = Need::Rows(rows);
        self.make_room_for_rows(on, rows)?;
        let mut forget = false;
        for launch in &plan.launches {
            let shape = on.structure.shape(launch.output);
            let nodes = shape.repetitions * shape.features();
            let maxima = plan.purpose.has_flows();
            let large_enough = |o: &Outputs| o.offsets.len() >= nodes * rows && (o.maxima.is_some() || !maxima);
            if !self.outputs.get(&launch.output).is_some_and(large_enough) {
                on.queue.synchronize()?;
                self.outputs.remove(&launch.output);
                let values = on.queue.allocate(nodes * shape.channels * rows, need)?;
                let offsets = on.queue.allocate(nodes * rows, need)?;
                let maxima = maxima.then(|| on.queue.allocate(nodes * rows, need)).transpose()?;
                self.outputs.insert(launch.output, Outputs { values, offsets, maxima });
                forget = true;
            }
        }
        if let Some(down) = down {
            let (flow, parts) = (down.flow_values(on.structure) * rows, down.part_values());
            let large_enough = |way: &WayMemory| way.flows[0].len() >= flow && way.parts.len() >= parts;
            if !self.way.as_ref().is_some_and(large_enough) {
                on.queue.synchronize()?;
                self.way = None;
                let flows = [on.queue.allocate(flow, need)?, on.queue.allocate(flow, need)?];
                self.way = Some(WayMemory { flows, parts: on.queue.allocate(parts, need)? });
                forget = true;
            }
        }
        if forget {
            on.queue.synchronize()?;
            self.plans.clear();
        }
        Ok(())
    }

    /// Copies rows to the queue.
    fn stage(&mut self, on: Context, slot: usize, data: ArrayView2<f32>) -> Result<(), CudaError> {
        let Slot { staged, raw, .. } = &mut self.slots[slot];
        let values = staged.values()?;
        on.host.copy(data, values);
        on.queue.upload_pinned(raw, staged, data.len())
    }

    fn transpose(&self, on: Context, slot: usize, given: usize) -> Result<(), CudaError> {
        let (rows, columns, tile) = (stride(given), on.structure.variables(), params::CONVPC_TRANSPOSE_TILE as usize);
        let arguments = ConvpcTranspose {
            from: self.slots[slot].raw.address(),
            to: self.data.as_ref().expect("made room for").address(),
            columns: columns as u32,
            given: given as u32,
            rows: rows as u32,
        };
        on.queue.launch("transpose", arguments, rows / tile * columns.div_ceil(tile), 0)
    }

    /// Starts the way up of a batch.
    fn start(
        &mut self,
        on: Context,
        slot: usize,
        data: ArrayView2<f32>,
        purpose: Purpose,
        learning: Option<&Learning>,
    ) -> Result<Key, CudaError> {
        let key = self.prepare(on, purpose, data.nrows(), learning)?;
        self.stage(on, slot, data)?;
        on.queue.compute_after_upload()?;
        self.transpose(on, slot, data.nrows())?;
        self.plans.get_mut(&key).expect("just prepared").up.launch(on.queue, slot)?;
        Ok(key)
    }

    /// Starts the copy of the root's values, and marks the slot as running until it has ended.
    fn fetch_root(&mut self, on: Context, slot: usize, first_row: usize, rows: usize) -> Result<(), CudaError> {
        let top = on.structure.layers().len() - 1;
        let Outputs { values, offsets, .. } = &self.outputs[&top];
        let root = &mut self.slots[slot].root;
        on.queue.download_pinned(values, &mut root.values, 0, rows)?;
        on.queue.download_pinned(offsets, &mut root.offsets, 0, rows)?;
        self.slots[slot].running = Some(Running { mark: on.queue.mark()?, first_row, rows });
        Ok(())
    }

    /// Waits for the batch of a slot, if there is one, and writes its log-likelihoods to their places.
    fn finish(&mut self, slot: usize, all: &mut [f64]) -> Result<(), CudaError> {
        let Some(Slot { root, running, .. }) = self.slots.get_mut(slot) else { return Ok(()) };
        let Some(Running { mark, first_row, rows }) = running.take() else { return Ok(()) };
        mark.wait()?;
        let to = all[first_row..first_row + rows].iter_mut();
        to.zip(root.log_likelihoods(rows)?).for_each(|(to, ll)| *to = ll);
        Ok(())
    }
}

/// An error that names the first row whose value of some node, given with it, is infinite or none, where that cannot be: a circuit
/// with Normal leaves gives nothing probability zero.
pub(crate) fn check_range(
    structure: &Structure,
    values: impl IntoIterator<Item = (usize, f64)>,
) -> Result<(), CudaError> {
    if structure.leaf().family.form() != Form::LocationScale {
        return Ok(());
    }
    let far = values.into_iter().filter(|(_, value)| !value.is_finite()).map(|(row, _)| row).min();
    far.map_or(Ok(()), |row| Err(CudaError::TooFar { row }))
}
