//! One submission: rows and page table in, tokens or logits out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::backend::{Program, Status};
use crate::base::chance::Stages;
use crate::error::{Error, Kind, Result};
use crate::kernel::argmax::NOT_A_TOKEN;
use crate::model::Phase;
use crate::plan::Inputs;
use crate::sample::Sees;

use super::runner::{Runner, SessionId};

/// No submission takes this long: whoever does not answer within it is lost.
const PATIENCE: Duration = Duration::from_secs(300);

/// Who picks a token, and how.
enum Pick {
    /// The device takes the likeliest.
    Best,
    /// The device draws.
    Draw(Stages),
    /// The host looks at all logits.
    Host,
}

impl Runner {
    /// Computes the next rows of the sessions and picks a token for each whose history ends in them.
    pub(super) fn compute(
        &mut self,
        slices: &[(SessionId, u32)],
    ) -> Result<BTreeMap<SessionId, Result<u32>>> {
        let mut ends: Vec<(SessionId, u32)> = Vec::new();
        let mut row = 0;
        for &(id, rows) in slices {
            row += rows;
            let ends_here =
                self.session(id).is_some_and(|state| state.computed + rows == state.history.len() as u32);
            if ends_here {
                ends.push((id, row - 1));
            }
        }
        let picks: Vec<Pick> = ends.iter().map(|(id, _)| self.pick_of(*id)).collect();
        let outputs: Vec<u32> = ends.iter().map(|(_, row)| *row).collect();
        if picks.iter().any(|pick| matches!(pick, Pick::Draw(_))) {
            let chains: Vec<Stages> = picks.iter().map(Pick::stages).collect();
            self.backend.write(self.lowered.ports.chains, 0, bytemuck::cast_slice(&chains))?;
        }
        let to = |phase: &Phase| picks.iter().map(|pick| pick.end(phase)).max().unwrap_or(phase.body);
        self.submit(slices, &outputs, to)?;
        ends.iter()
            .zip(&picks)
            .enumerate()
            .map(|(output, ((id, _), pick))| Ok((*id, self.pick(*id, output, pick)?)))
            .collect()
    }

    /// Computes the next `rows` of one session and gives the logits of the last `wanted` of them.
    pub(super) fn compute_logits(&mut self, id: SessionId, rows: u32, wanted: u32) -> Result<Vec<f32>> {
        let outputs: Vec<u32> = (rows - wanted..rows).collect();
        self.submit(&[(id, rows)], &outputs, |phase| if wanted == 0 { phase.body } else { phase.logits })?;
        let words = self.logits_width();
        let mut logits = vec![0.0f32; wanted as usize * words];
        self.backend.read(self.lowered.ports.logits, 0, bytemuck::cast_slice_mut(&mut logits))?;
        if let Some(at) = logits.iter().position(|logit| logit.is_nan()) {
            let what = format!("the logit of token {} is not a number", at % words);
            return Err(Error::new(Kind::WrongNumbers, what));
        }
        Ok(logits)
    }

    fn submit(
        &mut self,
        slices: &[(SessionId, u32)],
        outputs: &[u32],
        to: impl Fn(&Phase) -> usize,
    ) -> Result<()> {
        let mut rows: Vec<u32> = Vec::new();
        let mut kv_len = 0;
        for &(id, count) in slices {
            let state =
                self.session(id).ok_or_else(|| Error::internal("a slice of a session that is not there"))?;
            let seat =
                state.seat.as_ref().ok_or_else(|| Error::internal("a slice of a session without a seat"))?;
            let positions: Range<u32> = state.computed..state.computed + count;
            kv_len = kv_len.max(positions.end);
            for position in positions {
                rows.extend([state.history[position as usize], position, seat.sequence, 0]);
            }
            let at = (seat.sequence * self.lowered.options.pages_per_sequence()) as usize;
            let pages = seat.pages.clone();
            self.backend.write(self.lowered.ports.pages, 4 * at, bytemuck::cast_slice(&pages))?;
        }
        self.backend.write(self.lowered.ports.rows, 0, bytemuck::cast_slice(&rows))?;
        if !outputs.is_empty() {
            self.backend.write(self.lowered.ports.outputs, 0, bytemuck::cast_slice(outputs))?;
        }
        let count = (rows.len() / crate::kernel::ROW_WORDS) as u32;
        let inputs = Inputs { rows: count, outputs: outputs.len() as u32, kv_len };
        let (program, phase): (&Program, &Phase) = match count <= self.decode.plan.max_rows {
            true => (&self.decode, &self.lowered.decode),
            false => (&self.prefill, &self.lowered.prefill),
        };
        let ticket = self.backend.submit(program, 0..to(phase), inputs)?;
        let begun = Instant::now();
        while self.backend.poll(ticket, Duration::from_secs(1))? != Status::Finished {
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(
                    Kind::DeviceLost,
                    format!("no answer from the device within {PATIENCE:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Who picks the session's next token.
    fn pick_of(&self, id: SessionId) -> Pick {
        let (Some((chain, _)), Some(first)) = (self.chain(id), self.prompt_tokens(id)) else {
            return Pick::Best;
        };
        match chain.sees() {
            Sees::Best => Pick::Best,
            Sees::Top(k) if k <= self.lowered.options.top => {
                chain.lower(first).map_or(Pick::Host, Pick::Draw)
            }
            Sees::Top(_) | Sees::All => Pick::Host,
        }
    }

    /// The token that the session's chain picks for an output: an error of its own where it cannot, of the device's
    /// outside.
    fn pick(&mut self, id: SessionId, output: usize, pick: &Pick) -> Result<Result<u32>> {
        let wrong = || Error::new(Kind::WrongNumbers, "the logits are not numbers");
        match pick {
            Pick::Best | Pick::Draw(_) => {
                let mut token = [0u32];
                self.backend.read(
                    self.lowered.ports.token,
                    4 * output,
                    bytemuck::cast_slice_mut(&mut token),
                )?;
                Ok(if token[0] == NOT_A_TOKEN { Err(wrong()) } else { Ok(token[0]) })
            }
            Pick::Host => {
                let width = self.logits_width();
                let mut logits = vec![0.0f32; width];
                let at = 4 * output * width;
                self.backend.read(self.lowered.ports.logits, at, bytemuck::cast_slice_mut(&mut logits))?;
                let (Some((chain, step)), Some(state)) = (self.chain(id), self.session(id)) else {
                    return Ok(Err(wrong()));
                };
                Ok(chain.pick(&logits, &state.history, step))
            }
        }
    }

    fn logits_width(&self) -> usize {
        match self.lowered.store.item(self.lowered.ports.logits) {
            crate::plan::Item::State { words, .. } => words / self.lowered.options.outputs as usize,
            _ => 0,
        }
    }
}

impl Pick {
    /// The end of the steps that it needs.
    fn end(&self, phase: &Phase) -> usize {
        match self {
            Self::Best => phase.argmax,
            Self::Draw(_) => phase.draw,
            Self::Host => phase.logits,
        }
    }

    fn stages(&self) -> Stages {
        match self {
            Self::Draw(stages) => *stages,
            Self::Best | Self::Host => Stages::default(),
        }
    }
}
