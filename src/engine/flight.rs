//! Flights: submissions under way. The device feeds each token back as the next row, so while the same answers go on,
//! their next tokens are asked for before the last ones are seen.
//!
//! Nothing counts before it has landed: a session's history and how much of it is computed know nothing of the tokens in
//! flight. So an answer that ends needs no rewinding; it is [forgotten](Runner::forget), its tokens land unseen, and what
//! they left in its pages lies beyond what is computed. Submissions are computed in order: whatever is written later, by
//! whomever, to pages, rows or page table, comes after them.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::backend::Ticket;
use crate::base::chance::Stages;
use crate::error::{Error, Kind, Result};
use crate::kernel::argmax::NOT_A_TOKEN;
use crate::model::Phase;
use crate::plan::Inputs;
use crate::sample::Sees;

use super::pace::Pace;
use super::pick::Next;
use super::runner::{Runner, SessionId};

/// A submission under way, whole or slice by slice.
#[derive(Clone)]
pub(super) struct Flight {
    /// The cache in which its sessions are.
    cache: usize,
    parts: Vec<Part>,
    inputs: Inputs,
    /// Those that the device has.
    slices: VecDeque<Slice>,
    /// Steps that it does not have yet.
    rest: Range<usize>,
    /// What the slices before took.
    spent: Duration,
}

/// Steps that a device computes without a stop.
#[derive(Clone)]
struct Slice {
    ticket: Ticket,
    steps: Range<usize>,
    begun: Instant,
    /// In which [`Runner::clock`].
    clock: u64,
}

/// Rows of one session in a flight.
#[derive(Clone)]
struct Part {
    /// `None` where nobody waits for them any more.
    id: Option<SessionId>,
    rows: u32,
    /// How the token after them is picked, where the history ends in them.
    pick: Option<Pick>,
    /// Guesses of that token and of those behind it, one in each row but the first of those with a pick.
    guesses: Vec<u32>,
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
    /// How many of the rows hold guesses.
    pub(super) guessed: u32,
    /// The token after them, where it is due, and where guesses were right those after these.
    pub(super) tokens: Vec<Result<Next>>,
}

impl Runner {
    /// Starts on the next rows of sessions in one cache.
    pub(super) fn launch(&mut self, cache: usize, slices: &[(SessionId, u32)]) -> Result<()> {
        let mut parts = Vec::with_capacity(slices.len());
        let (mut outputs, mut row) = (Vec::new(), 0);
        for &(id, rows) in slices {
            row += rows;
            let Some(state) = self.session(id) else { continue };
            // A page that was shared may have taken more away than the slice makes good.
            let guessed = (state.computed + rows).checked_sub(state.seen());
            outputs.extend(guessed.into_iter().flat_map(|guessed| row - 1 - guessed..row));
            let guesses = guessed.map_or(Vec::new(), |count| state.guesses[..count as usize].to_vec());
            parts.push(Part { id: Some(id), rows, pick: guessed.map(|_| self.pick_of(id)), guesses });
        }
        let picks: Vec<Pick> = parts.iter().flat_map(Part::picks).collect();
        let draws = picks.iter().any(|pick| matches!(pick, Pick::Draw(_)));
        let chains: Vec<Stages> = if draws { picks.iter().map(Pick::stages).collect() } else { Vec::new() };
        let inputs = self.write_rows(slices, &outputs, &chains)?;
        let phase = self.phase(cache, inputs).1;
        let end = picks.iter().map(|pick| pick.end(phase)).max().unwrap_or(phase.body);
        self.push(cache, parts.clone(), inputs, end)?;
        // Each row is now the one that follows, in the same place.
        let is_fed = |part: &Part| part.rows == 1 && matches!(part.pick, Some(Pick::Best | Pick::Draw(_)));
        if parts.iter().all(is_fed) {
            self.fed = parts.iter().filter_map(|part| part.id.zip(part.pick)).collect();
        }
        Ok(())
    }

    /// A flight whose first slice, or all of it, is on its way.
    fn push(&mut self, cache: usize, parts: Vec<Part>, inputs: Inputs, end: usize) -> Result<()> {
        let mut flight =
            Flight { cache, parts, inputs, slices: VecDeque::new(), rest: 0..end, spent: Duration::ZERO };
        self.send(&mut flight)?;
        self.flights.push_back(flight);
        Ok(())
    }

    /// Gives the device the next slice of a flight.
    fn send(&mut self, flight: &mut Flight) -> Result<()> {
        let begun = Instant::now();
        let Flight { cache, inputs, rest, .. } = flight.clone();
        let end = match self.longest_slice(inputs.rows) {
            None => rest.end,
            Some(most) => {
                let steps = &self.phase(cache, inputs).0.plan.steps;
                self.step_costs.cut(steps, rest.clone(), inputs, most)
            }
        };
        let steps = rest.start..end;
        let ticket = self.submit(cache, inputs, steps.clone())?;
        flight.rest = end..rest.end;
        flight.slices.push_back(Slice { ticket, steps, begun, clock: self.clock });
        Ok(())
    }

    /// Starts on the rows that the device has fed back, as far ahead as is worthwhile, if they are those of `waiting`.
    pub(super) fn go_on(&mut self, waiting: &[SessionId], left: Option<Duration>) -> Result<()> {
        // What follows a flight comes after all of it.
        while self.flights.iter().all(Flight::is_whole)
            && self.flights.len() < self.ahead()
            && self.may_go_on(waiting, left)
        {
            let fed = self.fed.clone();
            let mut kv_len = 0;
            for &(id, _) in &fed {
                self.tell_pages(id)?;
                kv_len = kv_len.max(self.next_position(id) + 1);
            }
            let rows = fed.len() as u32;
            let inputs = Inputs { rows, outputs: rows, kv_len };
            let cache = fed.first().and_then(|&(id, _)| self.session(id)).map_or(0, |state| state.cache);
            let phase = self.phase(cache, inputs).1;
            let end = fed.iter().map(|(_, pick)| pick.end(phase)).max().unwrap_or(phase.body);
            let part = |&(id, pick)| Part { id: Some(id), rows: 1, pick: Some(pick), guesses: Vec::new() };
            let parts = fed.iter().map(part);
            self.push(cache, parts.collect(), inputs, end)?;
        }
        Ok(())
    }

    /// Waits for the oldest flight: what it brings to those who still wait for it, nothing before its last slice.
    pub(super) fn land(&mut self, left: Option<Duration>) -> Result<Vec<Landed>> {
        let Some(mut flight) = self.flights.pop_front() else { return Ok(Vec::new()) };
        if flight.slices.is_empty() {
            self.send(&mut flight)?;
        }
        // Another slice behind it, where the time is there, and the device does not wait for the host.
        let fits = |slice: Duration| left.is_none_or(|left| left >= 2 * slice);
        let is_behind = self.backend.caps().ahead > 1 && flight.slices.len() < 2 && !flight.is_whole();
        if is_behind && self.longest_slice(flight.inputs.rows).is_some_and(fits) {
            self.send(&mut flight)?;
        }
        let Some(slice) = flight.slices.pop_front() else { return Ok(Vec::new()) };
        // While the device computes, the host finds out which tokens may follow.
        let parts = flight.parts.iter().filter(|part| matches!(part.pick, Some(Pick::Host)));
        parts.filter_map(|part| part.id).for_each(|id| self.prepare(id));
        let asked = Instant::now();
        let Some(result) = self.wait(slice.ticket)? else {
            // Abandoned: the engine stands still before anything else is done.
            return Ok(Vec::new());
        };
        let now = Instant::now();
        // Where it had landed long before it was asked for, nobody knows what it took.
        let own = self.backend.caps().meter.took();
        let is_timed =
            own.is_some() || slice.clock == self.clock || asked.elapsed() > Duration::from_micros(100);
        if is_timed {
            let waited = now - self.landed.map_or(slice.begun, |landed| slice.begun.max(landed));
            let took = own.unwrap_or(waited);
            flight.spent += took;
            self.slices.push(took);
            if self.longest_slice(flight.inputs.rows).is_some() {
                let steps = &self.phase(flight.cache, flight.inputs).0.plan.clone().steps[slice.steps];
                self.step_costs.learn(steps, flight.inputs, took);
            }
        }
        self.landed = Some(now);
        if !flight.is_whole() || !flight.slices.is_empty() {
            self.flights.push_front(flight);
            return Ok(Vec::new());
        }
        let Flight { parts, inputs, spent, .. } = flight;
        if is_timed {
            self.learn(inputs.rows, spent);
        }
        let mut all = Vec::with_capacity(parts.len());
        let mut outputs = 0;
        for part in parts {
            let first = outputs;
            outputs += part.picks().count();
            let Some(id) = part.id else { continue };
            let tokens = self.tokens_of(id, &part, &result, first)?;
            all.push(Landed { id, rows: part.rows, guessed: part.guesses.len() as u32, tokens });
        }
        Ok(all)
    }

    /// The tokens that a part brings, whose first output is the `first` of all: each after guesses that were right.
    fn tokens_of(
        &mut self,
        id: SessionId,
        part: &Part,
        result: &[u32],
        first: usize,
    ) -> Result<Vec<Result<Next>>> {
        let mut tokens = Vec::new();
        for (at, pick) in part.picks().enumerate() {
            let token = match pick {
                Pick::Host => self.pick(id, first + at, &part.guesses[..at])?,
                Pick::Best | Pick::Draw(_) => match result.get(first + at) {
                    Some(&token) if (token as usize) < self.logits_width() => Ok(token.into()),
                    Some(&token) => Err(not_a_token(token)),
                    None => return Err(Error::internal("a submission without its result")),
                },
            };
            let is_right = token.as_ref().is_ok_and(|next| part.guesses.get(at) == Some(&next.token));
            tokens.push(token);
            if !is_right {
                break;
            }
        }
        Ok(tokens)
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

    /// How many submissions are worth having under way: one where the device is to have room for others.
    fn ahead(&self) -> usize {
        let wishes = *self.control.wishes();
        let shares = wishes.pace != Pace::Full || wishes.sustain.is_some();
        if shares { 1 } else { self.backend.caps().ahead }
    }

    /// Whether the next tokens of `waiting` can be asked for without a look at the last ones.
    fn may_go_on(&mut self, waiting: &[SessionId], left: Option<Duration>) -> bool {
        let is_same = !self.fed.is_empty()
            && self.fed.len() == waiting.len()
            && self.fed.iter().all(|(id, _)| waiting.contains(id));
        let cost = self.costs[0] * self.fed.len() as f64;
        let in_time =
            |left: Duration| (self.flights.len() + 1) as f64 * cost <= left.as_secs_f64() && cost > 0.0;
        let guesses = matches!(waiting, [id] if self.is_drafted(*id));
        if !is_same || guesses || !(self.flights.is_empty() || left.is_none_or(in_time)) {
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
        if self.needs_logits(id) {
            return Pick::Host;
        }
        let (Some((chain, _)), Some(first)) = (self.chain(id), self.first_position(id)) else {
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

fn not_a_token(token: u32) -> Error {
    let what = match token {
        NOT_A_TOKEN => {
            "nothing can be picked from the logits: one is NaN or infinite, or none is finite".into()
        }
        _ => format!("the device picked {token}, which is no token"),
    };
    Error::new(Kind::WrongNumbers, what)
}

impl Flight {
    /// Whether the device has all of it.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Part {
    /// Who picks the token after each of its last rows.
    fn picks(&self) -> impl Iterator<Item = Pick> {
        self.pick.into_iter().flat_map(|pick| std::iter::repeat_n(pick, 1 + self.guesses.len()))
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
