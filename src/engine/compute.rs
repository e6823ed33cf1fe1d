//! Submissions: rows and page table in, tokens or logits out.

use std::time::{Duration, Instant};

use crate::backend::{Program, Status, Ticket};
use crate::base::chance::Stages;
use crate::error::{Error, Kind, Result};
use crate::kernel::ROW_WORDS;
use crate::model::Phase;
use crate::plan::Inputs;

use super::runner::{Runner, SessionId};

/// No submission takes this long: whoever does not answer within it is lost.
const PATIENCE: Duration = Duration::from_secs(300);

impl Runner {
    /// Computes the next `rows` of one session and gives the logits of the last `wanted` of them.
    pub(super) fn compute_logits(&mut self, id: SessionId, rows: u32, wanted: u32) -> Result<Vec<f32>> {
        let outputs: Vec<u32> = (rows - wanted..rows).collect();
        let ticket = self.submit_rows(&[(id, rows)], &outputs, &[], |phase| {
            if wanted == 0 { phase.body } else { phase.logits }
        })?;
        self.wait(ticket)?;
        let words = self.logits_width();
        let mut logits = vec![0.0f32; wanted as usize * words];
        self.backend.read(self.lowered.ports.logits, 0, bytemuck::cast_slice_mut(&mut logits))?;
        if let Some(at) = logits.iter().position(|logit| logit.is_nan()) {
            let what = format!("the logit of token {} is not a number", at % words);
            return Err(Error::new(Kind::WrongNumbers, what));
        }
        Ok(logits)
    }

    /// Starts on the next rows of the sessions, by their histories; `chains` are those of the outputs, where one draws.
    pub(super) fn submit_rows(
        &mut self,
        slices: &[(SessionId, u32)],
        outputs: &[u32],
        chains: &[Stages],
        to: impl Fn(&Phase) -> usize,
    ) -> Result<Ticket> {
        let mut rows: Vec<u32> = Vec::new();
        let mut kv_len = 0;
        for &(id, count) in slices {
            self.tell_pages(id)?;
            let (state, seat) = self.seated(id)?;
            for position in state.computed..state.computed + count {
                rows.extend([state.history[position as usize], position, seat.sequence, 0]);
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
        self.submit(Inputs { rows: count, outputs: outputs.len() as u32, kv_len }, to)
    }

    /// Starts on the rows that the device has.
    pub(super) fn submit(&mut self, inputs: Inputs, to: impl Fn(&Phase) -> usize) -> Result<Ticket> {
        let (program, phase): (&Program, &Phase) = match inputs.rows <= self.decode.plan.max_rows {
            true => (&self.decode, &self.lowered.decode),
            false => (&self.prefill, &self.lowered.prefill),
        };
        self.backend.submit(program, 0..to(phase), inputs)
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

    /// Waits for a submission and gives its result.
    pub(super) fn wait(&mut self, ticket: Ticket) -> Result<Vec<u32>> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Status::Finished(result) = self.backend.poll(ticket, Duration::from_secs(1))? {
                return Ok(result);
            }
        }
        Err(Error::new(Kind::DeviceLost, format!("no answer from the device within {PATIENCE:?}")))
    }

    /// The token that the session's chain picks from the logits of the last submission: an error of its own where it
    /// cannot, of the device's outside.
    pub(super) fn pick(&mut self, id: SessionId, output: usize) -> Result<Result<u32>> {
        let mut logits = vec![0.0f32; self.logits_width()];
        let at = 4 * output * logits.len();
        self.backend.read(self.lowered.ports.logits, at, bytemuck::cast_slice_mut(&mut logits))?;
        let (Some((chain, step)), Some(state)) = (self.chain(id), self.session(id)) else {
            return Err(Error::internal("a pick for a session without an answer"));
        };
        Ok(chain.pick(&logits, &state.history, step))
    }

    fn logits_width(&self) -> usize {
        match self.lowered.store.item(self.lowered.ports.logits) {
            crate::plan::Item::State { words, .. } => words / self.lowered.options.outputs as usize,
            _ => 0,
        }
    }
}
