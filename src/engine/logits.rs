//! All logits of a text, for scores and measurements, or what the head is given, for embeddings.

use crate::error::{Error, Kind, Result};

use super::compute::Wanted;
use super::recover::befell_device;
use super::runner::{Runner, SessionId};
use super::schedule::Slice;

impl Runner {
    /// What is `wanted` of every position of `tokens` from `from` on, in order: `visit(position, values)`.
    pub(super) fn visit_rows(
        &mut self,
        wanted: Wanted,
        tokens: &[u32],
        from: usize,
        visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let options = &self.lowered.options;
        if tokens.is_empty() || tokens.len() > options.context as usize {
            let what =
                format!("{} tokens were given and the context holds {}", tokens.len(), options.context);
            return Err(
                Error::new(Kind::ContextOverflow, what).hint("give fewer, or load with a larger context")
            );
        }
        if self.control.wishes().suspended.is_some() {
            return Err(Error::new(Kind::Suspended, "the engine stands still").hint("resume it first"));
        }
        self.go_forth()?;
        let id = self.open();
        let mut next = from;
        let outcome = loop {
            let from = next;
            let mut refused = None;
            let mut once = |at: usize, values: &[f32]| {
                next = at + 1;
                visit(at, values).inspect_err(|error| refused = Some(error.clone()))
            };
            // On another device, what has been shown is not shown again.
            let outcome = self.rows_of(id, wanted, tokens, from, &mut once);
            match outcome {
                Err(error) if refused.is_none() && befell_device(&error) => {
                    if let Err(error) = self.recover(error) {
                        break Err(error);
                    }
                }
                outcome => break outcome,
            }
        };
        self.close(id);
        outcome
    }

    fn rows_of(
        &mut self,
        id: SessionId,
        what: Wanted,
        tokens: &[u32],
        from: usize,
        visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let busy = || Error::new(Kind::SessionBusy, "every place of the KV cache is generating");
        if let Some(state) = self.sessions.get_mut(&id) {
            state.history = tokens.to_vec();
        }
        if !self.seat(id) {
            return Err(busy());
        }
        let (prefill_rows, outputs) = (self.lowered.options.prefill_rows, self.lowered.options.outputs);
        let mut at = 0;
        while at < tokens.len() {
            let silent = from.saturating_sub(at).min(prefill_rows as usize);
            let rows = match silent {
                0 => (tokens.len() - at).min(outputs.min(prefill_rows) as usize),
                silent => silent.min(tokens.len() - at),
            };
            let slice = [Slice { demand: 0, rows: rows as u32 }];
            if self.with_pages(&[id], &slice).is_empty() {
                return Err(busy());
            }
            let wanted = if silent == 0 { rows } else { 0 };
            let values = self.compute_rows(id, rows as u32, wanted as u32, what)?;
            let width = values.len() / wanted.max(1);
            for (i, values) in values.chunks_exact(width.max(1)).enumerate() {
                visit(at + i, values)?;
            }
            at += rows;
            if let Some(state) = self.sessions.get_mut(&id) {
                state.computed = at as u32;
            }
        }
        Ok(())
    }
}
