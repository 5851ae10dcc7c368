//! Missing values filled in: batches go up, where something is observed, and down again.

use convpc_core::{Choice, Semiring};
use ndarray::{ArrayViewMut2, s};

use super::{Context, Key, MOST_ROWS, Running, Session, Slot, check_range};
use crate::{
    choices::{Call, Tables},
    compiled::Memory,
    driver::Need,
    error::CudaError,
    plan::{Plan, Purpose, stride},
};

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Query {
    /// What the way up computes of the evidence; none where there is nothing observed.
    pub(crate) evidence: Option<Semiring>,
    pub(crate) choice: Choice,
    /// The number of the first row in the random numbers' counter.
    pub(crate) first_row: u64,
}

impl Session {
    /// Fills in what is missing in `rows`: all of it where there is no evidence. Returns the first row whose evidence is
    /// impossible, if one is; what `rows` hold then is of no use.
    pub(crate) fn complete(
        &mut self,
        on: Context,
        query: Query,
        mut rows: ArrayViewMut2<f32>,
    ) -> Result<Option<usize>, CudaError> {
        if self.tables.is_none() {
            self.tables = Some(Tables::new(on.queue, on.structure)?);
        }
        let at_a_time = self.completed_at_a_time(on, query, rows.nrows())?;
        let (mut impossible, mut slot) = (None, 0);
        for start in (0..rows.nrows()).step_by(at_a_time) {
            impossible = self.collect(on, slot, query, &mut rows)?;
            if impossible.is_some() {
                break;
            }
            self.complete_batch(on, slot, query, start, rows.slice_mut(s![start.., ..]), at_a_time)?;
            slot = 1 - slot;
        }
        // The older batch first.
        for slot in [slot, 1 - slot] {
            impossible = impossible.or(self.collect(on, slot, query, &mut rows)?);
        }
        Ok(impossible)
    }

    /// How many rows a call completes at a time.
    fn completed_at_a_time(&mut self, on: Context, query: Query, rows: usize) -> Result<usize, CudaError> {
        let (variables, places) = (on.structure.variables(), self.places());
        let purpose = query.evidence.map(Purpose::Tape);
        let ready = |session: &Self, rows| {
            let planned = |purpose| session.plans.contains_key(&Key::new(on, purpose, rows));
            session.has_choices(stride(rows)) && purpose.is_none_or(planned)
        };
        self.rows_that_fit(on, rows.min(MOST_ROWS), ready, |rows| {
            let on_the_way_up = purpose.map_or(0, |purpose| {
                Plan::new(on.structure, rows, purpose, on.precision, on.limits).values_per_row(on.structure)
            });
            // Data once by column and twice by row.
            (stride(rows) * (on_the_way_up + places + 3 * variables) * size_of::<f32>()) as u64
        })
    }

    fn places(&self) -> usize {
        self.tables.as_ref().map_or(0, |tables| tables.places)
    }

    fn has_choices(&self, rows: usize) -> bool {
        self.room >= rows && self.choices.as_ref().is_some_and(|choices| choices.len() >= self.places() * rows)
    }

    /// Starts a batch: as many of the rows as go at a time.
    fn complete_batch(
        &mut self,
        on: Context,
        slot: usize,
        query: Query,
        start: usize,
        rows: ArrayViewMut2<f32>,
        at_a_time: usize,
    ) -> Result<(), CudaError> {
        let count = rows.nrows().min(at_a_time);
        let stride = stride(count);
        if let Some(semiring) = query.evidence {
            self.start(on, slot, rows.slice(s![..count, ..]), Purpose::Tape(semiring), None)?;
            self.fetch_root(on, slot, start, count)?;
        } else {
            self.make_room_for_rows(on, stride)?;
        }
        if !self.has_choices(stride) {
            on.queue.synchronize()?;
            self.choices = None;
            self.choices = Some(on.queue.allocate(self.places() * stride, Need::Rows(stride))?);
        }
        let data = self.data.as_ref().expect("made room for");
        let memory = Memory { model: on.model, data, outputs: &self.outputs };
        let call = Call {
            observed: query.evidence.map(|semiring| (&memory, semiring)),
            choice: query.choice,
            first_row: query.first_row.wrapping_add(start as u64),
            rows: count,
            stride,
            choices: self.choices.as_ref().expect("just allocated"),
            model: on.model,
            to: &self.slots[slot].raw,
        };
        self.tables.as_ref().expect("made at the beginning").launch(on.queue, on.structure, call)?;
        let Slot { staged, raw, running, .. } = &mut self.slots[slot];
        on.queue.download_pinned(raw, staged, 0, count * on.structure.variables())?;
        *running = Some(Running { mark: on.queue.mark()?, first_row: start, rows: count });
        Ok(())
    }

    /// Waits for the batch of a slot, if there is one, and writes its rows to their places. Returns its first row whose
    /// evidence is impossible.
    fn collect(
        &mut self,
        on: Context,
        slot: usize,
        query: Query,
        all: &mut ArrayViewMut2<f32>,
    ) -> Result<Option<usize>, CudaError> {
        let Some(Slot { staged, root, running, .. }) = self.slots.get_mut(slot) else { return Ok(None) };
        let Some(Running { mark, first_row, rows }) = running.take() else { return Ok(None) };
        mark.wait()?;
        if query.evidence.is_some() {
            let found: Vec<f64> = root.log_likelihoods(rows)?.collect();
            check_range(on.structure, found.iter().enumerate().map(|(row, ll)| (first_row + row, *ll)))?;
            let impossible = found.iter().position(|ll| *ll == f64::NEG_INFINITY);
            if let Some(row) = impossible {
                return Ok(Some(first_row + row));
            }
        }
        let values = staged.values()?.chunks_exact(all.ncols());
        let mut all = all.slice_mut(s![first_row..first_row + rows, ..]);
        for (mut to, from) in all.outer_iter_mut().zip(values) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        Ok(None)
    }
}
