//! Submissions: rows and page table in, tokens or logits out.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::backend::{Program, Status, Ticket};
use crate::base::chance::Stages;
use crate::error::{Error, Kind, Result};
use crate::kernel::ROW_WORDS;
use crate::model::Phase;
use crate::plan::{Inputs, ItemId};
use crate::sample::check_logits;

use super::pick::Next;
use super::runner::{Runner, SessionId};

/// How long a device is waited for before its host looks whether it is to stand still.
const GLANCE: Duration = Duration::from_millis(5);

/// What is asked for of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What the head is given.
    Hidden,
    /// The logits.
    Logits,
}

impl Runner {
    /// Computes the next `rows` of one session and gives what is asked for of the last `wanted` of them.
    pub(super) fn compute_rows(
        &mut self,
        id: SessionId,
        rows: u32,
        wanted: u32,
        what: Wanted,
    ) -> Result<Vec<f32>> {
        let outputs: Vec<u32> = (rows - wanted..rows).collect();
        let inputs = self.write_rows(&[(id, rows)], &outputs, &[])?;
        let cache = self.seated(id)?.0.cache;
        let phase = self.phase(cache, inputs).1;
        let end = match what {
            _ if wanted == 0 => phase.body,
            Wanted::Hidden => phase.hidden,
            Wanted::Logits => phase.logits,
        };
        let ticket = self.submit(cache, inputs, 0..end)?;
        if self.wait(ticket)?.is_none() {
            return Err(Error::new(Kind::Suspended, "the engine was suspended").hint("resume it first"));
        }
        let ports = &self.lowered.ports;
        let item = if what == Wanted::Hidden { ports.hidden } else { ports.logits };
        let words = self.width_of(item);
        let mut values = vec![0.0f32; wanted as usize * words];
        self.backend.read(item, 0, bytemuck::cast_slice_mut(&mut values))?;
        match what {
            Wanted::Hidden if values.iter().any(|value| !value.is_finite()) => {
                return Err(Error::new(Kind::WrongNumbers, "what the model makes of a token is not finite"));
            }
            Wanted::Hidden => {}
            Wanted::Logits => {
                let mut rows = values.chunks_exact(words.max(1));
                rows.try_for_each(|row| check_logits((0..).zip(row.iter().copied())))?;
            }
        }
        Ok(values)
    }

    /// Writes the next rows of the sessions, by their histories; `chains` are those of the outputs, where one draws.
    pub(super) fn write_rows(
        &mut self,
        slices: &[(SessionId, u32)],
        outputs: &[u32],
        chains: &[Stages],
    ) -> Result<Inputs> {
        let mut rows: Vec<u32> = Vec::new();
        let mut kv_len = 0;
        for &(id, count) in slices {
            self.tell_pages(id)?;
            let (state, seat) = self.seated(id)?;
            for position in state.computed..state.computed + count {
                rows.extend([state.token(position), position, seat.sequence, 0]);
            }
            kv_len = kv_len.max(state.computed + count);
        }
        // What the device has fed back is gone.
        self.fed.clear();
        self.backend.write(self.lowered.ports.rows, 0, bytemuck::cast_slice(&rows))?;
        if !outputs.is_empty() {
            self.backend.write(self.lowered.ports.outputs, 0, bytemuck::cast_slice(outputs))?;
        }
        if !chains.is_empty() {
            self.backend.write(self.lowered.ports.chains, 0, bytemuck::cast_slice(chains))?;
        }
        let count = (rows.len() / ROW_WORDS) as u32;
        Ok(Inputs { rows: count, outputs: outputs.len() as u32, kv_len })
    }

    /// Starts on steps over the rows that the device has.
    pub(super) fn submit(&mut self, cache: usize, inputs: Inputs, steps: Range<usize>) -> Result<Ticket> {
        let program = self.phase(cache, inputs).0.clone();
        self.backend.submit(&program, steps, inputs)
    }

    /// What computes so many rows of sessions in a cache.
    pub(super) fn phase(&self, cache: usize, inputs: Inputs) -> (&Program, &Phase) {
        let ([decode, prefill], cache) = (&self.programs[cache], &self.lowered.caches[cache]);
        match inputs.rows <= decode.plan.max_rows {
            true => (decode, &cache.decode),
            false => (prefill, &cache.prefill),
        }
    }

    /// Tells the device of the pages that a session's seat has got since it was told.
    pub(super) fn tell_pages(&mut self, id: SessionId) -> Result<()> {
        let line = self.lowered.options.pages_per_sequence();
        let (_, seat) = self.seated(id)?;
        let told = seat.told;
        if told == seat.pages.len() {
            return Ok(());
        }
        let at = (seat.sequence * line) as usize + told;
        let pages = seat.pages[told..].to_vec();
        self.backend.write(self.lowered.ports.pages, 4 * at, bytemuck::cast_slice(&pages))?;
        if let Some(seat) = self.seat_mut(id) {
            seat.told += pages.len();
        }
        Ok(())
    }

    /// Waits for a submission and gives its result; `None` where it is abandoned, because the engine is to stand still.
    pub(super) fn wait(&mut self, ticket: Ticket) -> Result<Option<Vec<u32>>> {
        let begun = Instant::now();
        while begun.elapsed() < self.patience {
            if let Status::Finished(result) = self.backend.poll(ticket, GLANCE.min(self.patience))? {
                return Ok(Some(result));
            }
            if self.control.wishes().is_overdue() {
                return Ok(None);
            }
        }
        self.record.is_hung = true;
        let what = format!("no answer from the device within {:?}", self.patience);
        Err(Error::new(Kind::DeviceLost, what))
    }

    /// The token that the session's chain picks from the logits of the last submission, after the history and `guesses`: an
    /// error of its own where it cannot, of the device's outside.
    pub(super) fn pick(&mut self, id: SessionId, output: usize, guesses: &[u32]) -> Result<Result<Next>> {
        let mut logits = vec![0.0f32; self.logits_width()];
        let at = 4 * output * logits.len();
        self.backend.read(self.lowered.ports.logits, at, bytemuck::cast_slice_mut(&mut logits))?;
        let picked = self.choose(id, &logits, guesses);
        picked.ok_or_else(|| Error::internal("a pick for a session without an answer"))
    }

    pub(super) fn logits_width(&self) -> usize {
        self.width_of(self.lowered.ports.logits)
    }

    /// Words for each output of a state.
    fn width_of(&self, item: ItemId) -> usize {
        match self.lowered.store.item(item) {
            crate::plan::Item::State { words, .. } => words / self.lowered.options.outputs as usize,
            _ => 0,
        }
    }
}
