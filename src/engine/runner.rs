//! The tick: who computes next, on which seat, and what becomes of the results.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Program};
use crate::error::{Error, Kind, Result};
use crate::model::Lowered;
use crate::sample::Chain;

use super::answer::Answer;
use super::event::{Event, Finish, FinishReason, Queue, Timings};
use super::flight::{Flight, Landed, Pick};
use super::kv::{Pool, Seat};
use super::schedule::{Demand, Slice, schedule};

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows computed.
    pub rows: u32,
    /// Answers still under way.
    pub under_way: u32,
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.under_way += other.under_way;
    }
}

/// Names a session of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

/// The sessions of one model on one device.
pub(super) struct Runner {
    pub(super) backend: Box<dyn Backend>,
    pub(super) lowered: Lowered,
    pub(super) decode: Program,
    pub(super) prefill: Program,
    sessions: BTreeMap<SessionId, State>,
    pool: Pool,
    /// Counts slices; orders sessions by how recently they computed, and gives each its turn.
    pub(super) clock: u64,
    /// Seconds a row took lately, by phase: decode, prefill.
    pub(super) costs: [f64; 2],
    /// Submissions under way, the oldest first.
    pub(super) flights: VecDeque<Flight>,
    /// Whose next rows the device has written, in order, and how the tokens after them are picked.
    pub(super) fed: Vec<(SessionId, Pick)>,
    /// When the last flight landed.
    pub(super) landed: Option<Instant>,
    /// By adapter.
    weights: Vec<f32>,
}

/// What is known of a session. The history is the truth; the rest can be made again.
#[derive(Default)]
pub(super) struct State {
    pub(super) history: Vec<u32>,
    /// Tokens at the beginning of the history whose keys and values are in the seat's pages.
    pub(super) computed: u32,
    pub(super) seat: Option<Seat>,
    used: u64,
    job: Option<Job>,
    /// Nobody holds the session any more, only its stream.
    closing: bool,
}

/// An answer under way.
struct Job {
    queue: Arc<Queue>,
    chain: Chain,
    answer: Answer,
    prompt_tokens: u32,
    cached_tokens: u32,
    max_tokens: u32,
    ends: Vec<u32>,
    begun: Instant,
    first_token: Option<Duration>,
}

/// What a job is begun with.
pub(super) struct Request {
    pub(super) tokens: Vec<u32>,
    pub(super) chain: Chain,
    pub(super) answer: Answer,
    pub(super) max_tokens: Option<u32>,
    pub(super) ends: Vec<u32>,
}

impl Runner {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        lowered: Lowered,
        decode: Program,
        prefill: Program,
    ) -> Self {
        let pool = Pool::new(lowered.options.sequences, lowered.options.pages);
        Self {
            backend,
            lowered,
            decode,
            prefill,
            sessions: BTreeMap::new(),
            pool,
            clock: 0,
            costs: [0.0; 2],
            flights: VecDeque::new(),
            fed: Vec::new(),
            landed: None,
            weights: Vec::new(),
        }
    }

    /// Gives each adapter its weight. What was computed under others is forgotten.
    pub(super) fn weigh(&mut self, weights: &[f32]) -> Result<()> {
        let dials = &self.lowered.ports.dials;
        let adapters = dials.iter().map(|dial| dial.adapter + 1).max().unwrap_or(0);
        if weights.len() != adapters || !weights.iter().all(|weight| weight.is_finite()) {
            let what = format!("{weights:?} are not the weights of {adapters} adapters");
            return Err(Error::invalid(what).hint("give each a finite number, in the order of loading"));
        }
        if weights == self.weights {
            return Ok(());
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.forget(id);
            if let Some(state) = self.sessions.get_mut(&id) {
                state.computed = 0;
            }
        }
        // Until all are written, no weights are known to be there.
        self.weights.clear();
        for dial in &self.lowered.ports.dials {
            let words = vec![weights[dial.adapter] * dial.scale; dial.rank as usize];
            self.backend.write(dial.item, 0, bytemuck::cast_slice(&words))?;
        }
        self.weights = weights.to_vec();
        Ok(())
    }

    /// Opens a session without a history.
    pub(super) fn open(&mut self) -> SessionId {
        let id = SessionId(self.sessions.last_key_value().map_or(0, |(id, _)| id.0 + 1));
        self.sessions.insert(id, State::default());
        id
    }

    /// Forgets a session, as soon as its answer has ended.
    pub(super) fn close(&mut self, id: SessionId) {
        if let Some(state) = self.sessions.get_mut(&id).filter(|state| state.job.is_some()) {
            state.closing = true;
            return;
        }
        if let Some(seat) = self.sessions.remove(&id).and_then(|state| state.seat) {
            self.pool.leave(seat);
        }
    }

    /// Begins an answer; what its tokens share with the session's history is not computed again.
    pub(super) fn begin(&mut self, id: SessionId, request: Request) -> Result<Arc<Queue>> {
        self.cancel();
        let context = self.lowered.options.context;
        let state = self.sessions.get_mut(&id).ok_or_else(|| Error::internal("the session is not there"))?;
        if state.job.is_some() {
            return Err(Error::new(Kind::SessionBusy, "the session is generating already")
                .hint("wait for the end of the answer, or cancel it"));
        }
        let Request { tokens, chain, answer, max_tokens, ends } = request;
        let prompt_tokens = tokens.len() as u32;
        if prompt_tokens >= context {
            let what = format!("the prompt has {prompt_tokens} tokens and the context holds {context}");
            return Err(
                Error::new(Kind::ContextOverflow, what).hint("shorten it, or load with a larger context")
            );
        }
        state.rewrite(tokens);
        let queue = Arc::new(Queue::default());
        state.job = Some(Job {
            queue: queue.clone(),
            chain,
            answer,
            prompt_tokens,
            cached_tokens: state.computed,
            max_tokens: max_tokens.unwrap_or(u32::MAX),
            ends,
            begun: Instant::now(),
            first_token: None,
        });
        Ok(queue)
    }

    /// Computes for about `budget`, at least one slice where there is work; exactly one of any size where there is
    /// no budget. The device is left with work to do after it only without a budget, or where `goes_on`.
    pub(super) fn tick(&mut self, budget: Option<Duration>, goes_on: bool) -> Result<Progress> {
        let begun = Instant::now();
        let mut rows = 0;
        loop {
            self.cancel();
            let left = budget.map(|budget| budget.saturating_sub(begun.elapsed()));
            let computed = self.slice(left, goes_on)?;
            rows += computed;
            let over = budget.is_none_or(|budget| begun.elapsed() >= budget);
            if computed == 0 || over {
                let under_way = self.sessions.values().filter(|state| state.job.is_some()).count() as u32;
                return Ok(Progress { rows, under_way });
            }
        }
    }

    /// One submission landed: its rows, 0 where nothing waits.
    fn slice(&mut self, left: Option<Duration>, goes_on: bool) -> Result<u32> {
        self.clock += 1;
        let waiting: Vec<SessionId> =
            self.sessions.iter().filter(|(_, state)| state.job.is_some()).map(|(&id, _)| id).collect();
        let seated: Vec<SessionId> = waiting.into_iter().filter(|&id| self.seat(id)).collect();
        if seated.is_empty() {
            return Ok(0);
        }
        match self.fly(&seated, left, goes_on) {
            Ok(landed) => {
                let rows = landed.iter().map(|landed| landed.rows).sum();
                landed.into_iter().for_each(|landed| self.advance(landed));
                Ok(rows)
            }
            Err(error) => {
                // What befell the device befell all who compute on it.
                for id in seated {
                    self.fail(id, error.clone());
                }
                Err(error)
            }
        }
    }

    /// Keeps the device busy and waits for what comes first.
    fn fly(&mut self, seated: &[SessionId], left: Option<Duration>, goes_on: bool) -> Result<Vec<Landed>> {
        let ahead = left.filter(|_| !goes_on);
        self.go_on(seated, ahead)?;
        if self.flights.is_empty() {
            let demands: Vec<Demand> =
                seated.iter().map(|id| Demand { pending: self.sessions[id].pending() }).collect();
            let turn = (self.clock % seated.len() as u64) as usize;
            let slices = schedule(&demands, turn, self.rows_within(left), self.lowered.options.outputs);
            let slices = self.with_pages(seated, &slices);
            self.launch(&slices)?;
            self.go_on(seated, ahead)?;
        }
        self.land()
    }

    /// Slices whose positions have pages. A session that finds none takes those of idle sessions, then of the
    /// younger answers, which compute again later.
    fn with_pages(&mut self, seated: &[SessionId], slices: &[Slice]) -> Vec<(SessionId, u32)> {
        let mut granted: Vec<(SessionId, u32)> = Vec::new();
        for slice in slices {
            let id = seated[slice.demand];
            while let Some(state) = self.sessions.get_mut(&id) {
                let positions = state.computed + slice.rows;
                // Its seat may have gone to one that came before it in this very slice.
                let Some(seat) = &mut state.seat else { break };
                if self.pool.grow(seat, positions) {
                    granted.push((id, slice.rows));
                    break;
                }
                let keeps: Vec<SessionId> = granted.iter().map(|(id, _)| *id).chain([id]).collect();
                if !self.evict(&keeps, true) {
                    break;
                }
            }
        }
        granted
    }

    /// Whether `id` has a seat, after taking one from an idle session where none is free.
    fn seat(&mut self, id: SessionId) -> bool {
        loop {
            let Some(state) = self.sessions.get_mut(&id) else { return false };
            if state.seat.is_some() {
                return true;
            }
            state.seat = self.pool.sit();
            if state.seat.is_none() && !self.evict(&[id], false) {
                return false;
            }
        }
    }

    /// Takes the seat of the session that computed longest ago; only with `busy` that of one with an answer under
    /// way, the youngest then. Whether there was one.
    fn evict(&mut self, keeps: &[SessionId], busy: bool) -> bool {
        let others =
            || self.sessions.iter().filter(|(id, state)| state.seat.is_some() && !keeps.contains(id));
        let idle = others().filter(|(_, state)| state.job.is_none()).min_by_key(|(_, state)| state.used);
        let youngest = || others().filter(|_| busy).max_by_key(|(id, _)| **id);
        let Some(id) = idle.or_else(youngest).map(|(&id, _)| id) else { return false };
        self.forget(id);
        let Some(state) = self.sessions.get_mut(&id) else { return false };
        state.computed = 0;
        if let Some(seat) = state.seat.take() {
            self.pool.leave(seat);
        }
        true
    }

    /// Whether the session's seat has pages for `positions` now; nobody else's are taken.
    pub(super) fn give_pages(&mut self, id: SessionId, positions: u32) -> bool {
        let seat = self.sessions.get_mut(&id).and_then(|state| state.seat.as_mut());
        seat.is_some_and(|seat| self.pool.grow(seat, positions))
    }

    /// Whether the row at `position`, of a token that is not known yet, can be wanted at all.
    pub(super) fn has_room(&self, id: SessionId, position: u32) -> bool {
        let Some(state) = self.sessions.get(&id) else { return false };
        let is_wanted = |job: &Job| position + 1 - job.prompt_tokens < job.max_tokens;
        position + 1 < self.lowered.options.context && state.job.as_ref().is_some_and(is_wanted)
    }

    /// Rows that take about as long as is left, by what rows cost lately.
    fn rows_within(&self, left: Option<Duration>) -> u32 {
        let most = self.lowered.options.prefill_rows;
        let cost = self.costs[1].max(f64::MIN_POSITIVE);
        match left {
            Some(left) if self.costs[1] > 0.0 => ((left.as_secs_f64() / cost) as u32).clamp(1, most),
            // The first slice under a budget is a small one: it learns the cost.
            Some(_) => most.min(16),
            None => most,
        }
    }

    pub(super) fn learn(&mut self, rows: u32, time: Duration) {
        let phase = usize::from(rows > self.decode.plan.max_rows);
        let now = time.as_secs_f64() / f64::from(rows);
        let cost = &mut self.costs[phase];
        *cost = if *cost == 0.0 { now } else { 0.7 * *cost + 0.3 * now };
        if self.costs[1] == 0.0 {
            self.costs[1] = now;
        }
    }

    /// Rows of a session are computed, and perhaps the token that follows its history.
    fn advance(&mut self, landed: Landed) {
        let Landed { id, rows, token } = landed;
        let context = self.lowered.options.context;
        let Some(state) = self.sessions.get_mut(&id) else { return };
        state.used = self.clock;
        state.computed += rows;
        let computed = state.computed;
        let Some(job) = &mut state.job else { return };
        if computed <= job.prompt_tokens {
            job.queue.push(Ok(Event::Prefill { done: computed, total: job.prompt_tokens }));
        }
        let token = match token {
            None => return,
            Some(Ok(token)) => token,
            Some(Err(error)) => return self.fail(id, error),
        };
        state.history.push(token);
        job.first_token.get_or_insert_with(|| job.begun.elapsed());
        let ended = job.ends.contains(&token);
        let added = job.answer.push(token);
        if !added.text.is_empty() {
            job.queue.push(Ok(Event::Text(added.text)));
        }
        let generated = state.history.len() as u32 - job.prompt_tokens;
        if ended || added.stopped {
            self.finish(id, FinishReason::Stop);
        } else if generated >= job.max_tokens || state.history.len() as u32 >= context {
            self.finish(id, FinishReason::Length);
        }
    }

    fn cancel(&mut self) {
        let cancelled = |state: &State| state.job.as_ref().is_some_and(|job| job.queue.is_cancelled());
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, state)| cancelled(state)).map(|(&id, _)| id).collect();
        for id in ids {
            self.finish(id, FinishReason::Cancelled);
        }
    }

    fn finish(&mut self, id: SessionId, reason: FinishReason) {
        self.forget(id);
        let Some(state) = self.sessions.get_mut(&id) else { return };
        let Some(mut job) = state.job.take() else { return };
        let rest = job.answer.finish();
        if !rest.text.is_empty() {
            job.queue.push(Ok(Event::Text(rest.text)));
        }
        // What was held back may have held a whole stop string.
        let reason = if rest.stopped { FinishReason::Stop } else { reason };
        let (prompt, tokens) = state.history.split_at(job.prompt_tokens as usize);
        let total = job.begun.elapsed();
        let timings = Timings {
            prompt_tokens: job.prompt_tokens,
            cached_tokens: job.cached_tokens,
            generated_tokens: tokens.len() as u32,
            first_token: job.first_token.unwrap_or(total),
            total,
        };
        let (prompt_tokens, tokens) = (prompt.to_vec(), tokens.to_vec());
        let text = job.answer.into_text();
        job.queue.push(Ok(Event::Finished(Finish { reason, text, prompt_tokens, tokens, timings })));
        self.close_if_left(id);
    }

    fn fail(&mut self, id: SessionId, error: Error) {
        self.forget(id);
        let Some(state) = self.sessions.get_mut(&id) else { return };
        // Nobody knows what a failed submission left in the pages.
        state.computed = 0;
        if let Some(job) = state.job.take() {
            job.queue.push(Err(error));
        }
        self.close_if_left(id);
    }

    fn close_if_left(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|state| state.closing) {
            self.close(id);
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&State> {
        self.sessions.get(&id)
    }

    /// A session and its seat.
    pub(super) fn seated(&self, id: SessionId) -> Result<(&State, &Seat)> {
        let state = self.sessions.get(&id);
        let seated = state.and_then(|state| Some((state, state.seat.as_ref()?)));
        seated.ok_or_else(|| Error::internal("a slice of a session without a seat"))
    }

    pub(super) fn seat_mut(&mut self, id: SessionId) -> Option<&mut Seat> {
        self.sessions.get_mut(&id)?.seat.as_mut()
    }

    pub(super) fn chain(&self, id: SessionId) -> Option<(&Chain, u64)> {
        let state = self.sessions.get(&id)?;
        let job = state.job.as_ref()?;
        Some((&job.chain, state.history.len() as u64 - u64::from(job.prompt_tokens)))
    }

    /// Tokens of the prompt that the session answers.
    pub(super) fn prompt_tokens(&self, id: SessionId) -> Option<u32> {
        Some(self.sessions.get(&id)?.job.as_ref()?.prompt_tokens)
    }

    /// The logits of every position of `tokens` from `from` on, in order: `visit(position, logits)`.
    pub(super) fn logits(
        &mut self,
        tokens: &[u32],
        from: usize,
        visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let options = self.lowered.options;
        if tokens.is_empty() || tokens.len() > options.context as usize {
            let what =
                format!("{} tokens were given and the context holds {}", tokens.len(), options.context);
            return Err(
                Error::new(Kind::ContextOverflow, what).hint("give fewer, or load with a larger context")
            );
        }
        let id = self.open();
        let outcome = self.logits_of(id, tokens, from, visit);
        self.close(id);
        outcome
    }

    fn logits_of(
        &mut self,
        id: SessionId,
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
        let options = self.lowered.options;
        let mut at = 0;
        while at < tokens.len() {
            let silent = from.saturating_sub(at).min(options.prefill_rows as usize);
            let rows = match silent {
                0 => (tokens.len() - at).min(options.outputs.min(options.prefill_rows) as usize),
                silent => silent.min(tokens.len() - at),
            };
            let slice = [Slice { demand: 0, rows: rows as u32 }];
            if self.with_pages(&[id], &slice).is_empty() {
                return Err(busy());
            }
            let wanted = if silent == 0 { rows } else { 0 };
            let logits = self.compute_logits(id, rows as u32, wanted as u32)?;
            let vocab = logits.len() / wanted.max(1);
            for (i, logits) in logits.chunks_exact(vocab.max(1)).enumerate() {
                visit(at + i, logits)?;
            }
            at += rows;
            if let Some(state) = self.sessions.get_mut(&id) {
                state.computed = at as u32;
            }
        }
        Ok(())
    }
}

impl State {
    /// Tokens that are not computed yet.
    fn pending(&self) -> u32 {
        self.history.len() as u32 - self.computed
    }

    /// Puts `tokens` in place of the history and keeps what is computed of their common beginning, but for the last
    /// token: its logits are wanted.
    fn rewrite(&mut self, tokens: Vec<u32>) {
        let common = self.history.iter().zip(&tokens).take_while(|(old, new)| old == new).count();
        self.computed = self.computed.min(common as u32).min(tokens.len() as u32 - 1);
        self.history = tokens;
    }
}
