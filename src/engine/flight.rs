//! Flights: submissions under way. The device feeds each token back as the next row, so while the same answers go on,
//! their next tokens are asked for before the last ones are seen.
//!
//! Nothing counts before it has landed: a session's history and how much of it is computed know nothing of the tokens in
//! flight. So an answer that ends needs no rewinding; it is [forgotten](Runner::forget), its tokens land unseen, and what
//! they left in its pages lies beyond what is computed. Submissions are computed in order: whatever is written later, by
//! whomever, to pages, rows or page table, comes after them.

use std::time::{Duration, Instant};

use crate::backend::Ticket;
use crate::base::chance::Stages;
use crate::error::{Error, Kind, Result};
use crate::kernel::argmax::NOT_A_TOKEN;
use crate::model::Phase;
use crate::plan::Inputs;
use crate::sample::Sees;

use super::runner::{Runner, SessionId};

/// A submission under way.
#[derive(Clone)]
pub(super) struct Flight {
    ticket: Ticket,
    parts: Vec<Part>,
    begun: Instant,
    /// The slice in which it was submitted.
    slice: u64,
}

/// Rows of one session in a flight.
#[derive(Clone, Copy)]
struct Part {
    /// `None` where nobody waits for them any more.
    id: Option<SessionId>,
    rows: u32,
    /// How the token after them is picked, where the history ends in them.
    pick: Option<Pick>,
}

/// Who picks a token.
#[derive(Clone, Copy)]
pub(super) enum Pick {
    /// The device takes the likeliest.
    Best,
    /// The device draws.
    Draw(Stages),
    /// The host looks at all logits.
    Host,
}

/// What has landed for a session.
pub(super) struct Landed {
    pub(super) id: SessionId,
    pub(super) rows: u32,
    /// The token after them, where it is due.
    pub(super) token: Option<Result<u32>>,
}

impl Runner {
    /// Starts on the next rows of the sessions.
    pub(super) fn launch(&mut self, slices: &[(SessionId, u32)]) -> Result<()> {
        let begun = Instant::now();
        let mut parts = Vec::with_capacity(slices.len());
        let (mut outputs, mut row) = (Vec::new(), 0);
        for &(id, rows) in slices {
            row += rows;
            let ends =
                self.session(id).is_some_and(|state| state.computed + rows == state.history.len() as u32);
            if ends {
                outputs.push(row - 1);
            }
            parts.push(Part { id: Some(id), rows, pick: ends.then(|| self.pick_of(id)) });
        }
        let picks: Vec<Pick> = parts.iter().filter_map(|part| part.pick).collect();
        let draws = picks.iter().any(|pick| matches!(pick, Pick::Draw(_)));
        let chains: Vec<Stages> = if draws { picks.iter().map(Pick::stages).collect() } else { Vec::new() };
        let to = |phase: &Phase| picks.iter().map(|pick| pick.end(phase)).max().unwrap_or(phase.body);
        let ticket = self.submit_rows(slices, &outputs, &chains, to)?;
        // Each row is now the one that follows, in the same place.
        let is_fed = |part: &Part| part.rows == 1 && matches!(part.pick, Some(Pick::Best | Pick::Draw(_)));
        if parts.iter().all(is_fed) {
            self.fed = parts.iter().filter_map(|part| part.id.zip(part.pick)).collect();
        }
        self.flights.push_back(Flight { ticket, parts, begun, slice: self.clock });
        Ok(())
    }

    /// Starts on the rows that the device has fed back, as far ahead as is worthwhile, if they are those of `waiting`.
    pub(super) fn go_on(&mut self, waiting: &[SessionId], left: Option<Duration>) -> Result<()> {
        while self.flights.len() < self.backend.caps().ahead && self.may_go_on(waiting, left) {
            let begun = Instant::now();
            let fed = self.fed.clone();
            let mut kv_len = 0;
            for &(id, _) in &fed {
                self.tell_pages(id)?;
                kv_len = kv_len.max(self.next_position(id) + 1);
            }
            let rows = fed.len() as u32;
            let to = |phase: &Phase| fed.iter().map(|(_, pick)| pick.end(phase)).max().unwrap_or(phase.body);
            let ticket = self.submit(Inputs { rows, outputs: rows, kv_len }, to)?;
            let parts = fed.iter().map(|&(id, pick)| Part { id: Some(id), rows: 1, pick: Some(pick) });
            self.flights.push_back(Flight { ticket, parts: parts.collect(), begun, slice: self.clock });
        }
        Ok(())
    }

    /// Waits for the oldest flight: what it brings to those who still wait for it.
    pub(super) fn land(&mut self) -> Result<Vec<Landed>> {
        let Some(&Flight { ticket, begun, slice, .. }) = self.flights.front() else { return Ok(Vec::new()) };
        let asked = Instant::now();
        let result = self.wait(ticket)?;
        let Some(Flight { parts, .. }) = self.flights.pop_front() else { return Ok(Vec::new()) };
        let now = Instant::now();
        // Where it had landed long before it was asked for, nobody knows what it took.
        let is_timed = slice == self.clock || asked.elapsed() > Duration::from_micros(100);
        if is_timed {
            let begun = self.landed.map_or(begun, |landed| begun.max(landed));
            self.learn(parts.iter().map(|part| part.rows).sum(), now - begun);
        }
        self.landed = Some(now);
        let mut all = Vec::with_capacity(parts.len());
        let mut outputs = 0;
        for part in parts {
            let output = outputs;
            outputs += usize::from(part.pick.is_some());
            let Some(id) = part.id else { continue };
            let token = match part.pick {
                None => None,
                Some(Pick::Host) => Some(self.pick(id, output)?),
                Some(Pick::Best | Pick::Draw(_)) => Some(match result.get(output) {
                    Some(&NOT_A_TOKEN) => Err(Error::new(Kind::WrongNumbers, "the logits are not numbers")),
                    Some(&token) => Ok(token),
                    None => return Err(Error::internal("a submission without its result")),
                }),
            };
            all.push(Landed { id, rows: part.rows, token });
        }
        Ok(all)
    }

    /// Nobody waits any more for what is in flight for a session.
    pub(super) fn forget(&mut self, id: SessionId) {
        for part in self.flights.iter_mut().flat_map(|flight| &mut flight.parts) {
            part.id = part.id.filter(|&of| of != id);
        }
        if self.fed.iter().any(|&(of, _)| of == id) {
            self.fed.clear();
        }
        self.flights.retain(|flight| flight.parts.iter().any(|part| part.id.is_some()));
    }

    /// Whether the next tokens of `waiting` can be asked for without a look at the last ones.
    fn may_go_on(&mut self, waiting: &[SessionId], left: Option<Duration>) -> bool {
        let is_same = !self.fed.is_empty()
            && self.fed.len() == waiting.len()
            && self.fed.iter().all(|(id, _)| waiting.contains(id));
        let cost = self.costs[0] * self.fed.len() as f64;
        let in_time =
            |left: Duration| (self.flights.len() + 1) as f64 * cost <= left.as_secs_f64() && cost > 0.0;
        if !is_same || !(self.flights.is_empty() || left.is_none_or(in_time)) {
            return false;
        }
        waiting.iter().all(|&id| {
            let position = self.next_position(id);
            self.has_room(id, position) && self.give_pages(id, position + 1)
        })
    }

    /// The position of a session's next row.
    fn next_position(&self, id: SessionId) -> u32 {
        let parts = self.flights.iter().flat_map(|flight| &flight.parts);
        let under_way: u32 = parts.filter(|part| part.id == Some(id)).map(|part| part.rows).sum();
        self.session(id).map_or(0, |state| state.computed + under_way)
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
