//! The tick: who computes next, on which seat, and what becomes of the results.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Program};
use crate::error::{Error, Kind, Result};
use crate::model::Lowered;
use crate::sample::Chain;
use crate::text::Guide;

use super::answer::Answer;
use super::caught::caught;
use super::costs::{Costs, Slices};
use super::draft::Drafter;
use super::event::{Event, Finish, FinishReason, Queue, Timings};
use super::flight::{Flight, Landed, Pick};
use super::kv::{Pool, Seat};
use super::pace::{Control, Pace};
use super::pick::Next;
use super::recover::{Made, Rebuild, Record};
use super::schedule::{Demand, schedule};
use super::view::{Overflow, overflow};

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows computed.
    pub rows: u32,
    /// Slices that the device has finished.
    pub slices: u32,
    /// Answers still under way.
    pub under_way: u32,
    /// How long nothing is to be done, where the pace wants a rest or the engine is suspended.
    pub rest: Option<Duration>,
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.slices += other.slices;
        self.under_way += other.under_way;
        self.rest = self.rest.into_iter().chain(other.rest).min();
    }
}

/// No submission takes this long on any device, and on one in software not this, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_WITH_SOFTWARE: Duration = Duration::from_secs(600);
/// How long who finds an engine suspended looks away.
const STANDSTILL: Duration = Duration::from_millis(100);

/// Names a session of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

/// The sessions of one model on one device.
pub(super) struct Runner {
    pub(super) backend: Box<dyn Backend>,
    pub(super) lowered: Lowered,
    /// By cache: decode, prefill.
    pub(super) programs: Vec<[Program; 2]>,
    pub(super) sessions: BTreeMap<SessionId, State>,
    /// By cache.
    pub(super) pools: Vec<Pool>,
    /// Counts slices; orders sessions by how recently they computed, and gives each its turn.
    pub(super) clock: u64,
    /// Seconds a row took lately, by phase: decode, prefill.
    pub(super) costs: [f64; 2],
    /// What steps take.
    pub(super) step_costs: Costs,
    pub(super) slices: Slices,
    pub(super) control: Arc<Control>,
    pub(super) record: Record,
    /// A submission without an answer for so long is lost.
    pub(super) patience: Duration,
    /// When the next token of each answer is due, where they come no faster than is wanted.
    pub(super) due: Option<Instant>,
    /// Whether the answers know that the engine stands still.
    pub(super) stands: bool,
    /// Submissions under way, the oldest first.
    pub(super) flights: VecDeque<Flight>,
    /// Whose next rows the device has written, in order, and how the tokens after them are picked.
    pub(super) fed: Vec<(SessionId, Pick)>,
    /// When the last flight landed.
    pub(super) landed: Option<Instant>,
    /// By adapter.
    pub(super) weights: Vec<f32>,
}

/// What is known of a session. The history is the truth; the rest can be made again.
#[derive(Default)]
pub(super) struct State {
    pub(super) history: Vec<u32>,
    /// Which cache holds its keys and values.
    pub(super) cache: usize,
    pub(super) overflow: Overflow,
    /// Tokens of the history that are out of sight, a function of its length.
    pub(super) dropped: u32,
    /// Tokens at the beginning of what is seen whose keys and values are in the seat's pages.
    pub(super) computed: u32,
    pub(super) seat: Option<Seat>,
    /// Guesses of the tokens that follow, on their way to the device.
    pub(super) guesses: Vec<u32>,
    pub(super) used: u64,
    pub(super) job: Option<Job>,
    /// Nobody holds the session any more, only its stream.
    pub(super) closing: bool,
}

/// An answer under way.
pub(super) struct Job {
    queue: Arc<Queue>,
    pub(super) chain: Chain,
    answer: Answer,
    /// What holds the answer to its constraint; it knows of the tokens in the history.
    pub(super) guide: Option<Guide>,
    /// What mirostat knows of the tokens in the history, and what it will know once the picked one has landed.
    pub(super) limits: [Option<f64>; 2],
    pub(super) prompt_tokens: u32,
    cached_tokens: u32,
    drafter: Option<Drafter>,
    /// How many of the likeliest tokens are told, where somebody asked.
    pub(super) log_probabilities: Option<u32>,
    max_tokens: u32,
    ends: Vec<u32>,
    begun: Instant,
    first_token: Option<Duration>,
}

/// What a job is begun with.
pub(super) struct Request {
    pub(super) tokens: Vec<u32>,
    /// Where an answer goes on: how many of the tokens are its prompt.
    pub(super) prompt_tokens: Option<u32>,
    pub(super) chain: Chain,
    pub(super) answer: Answer,
    pub(super) guide: Option<Guide>,
    pub(super) limit: Option<f64>,
    pub(super) drafter: Option<Drafter>,
    pub(super) log_probabilities: Option<u32>,
    pub(super) max_tokens: Option<u32>,
    pub(super) ends: Vec<u32>,
}

impl Runner {
    /// Sessions on a device; `rebuild` makes it again where it is lost, after `patience` without an answer too.
    pub(super) fn new(
        made: Made,
        rebuild: Option<Rebuild>,
        control: Arc<Control>,
        patience: Option<Duration>,
    ) -> Self {
        let Made { backend, reason, lowered, programs } = made;
        let pools = Pool::of(&lowered);
        let usual = if backend.caps().software { PATIENCE_WITH_SOFTWARE } else { PATIENCE };
        Self {
            step_costs: Costs::default(),
            slices: Slices::default(),
            control,
            record: Record::new(reason, rebuild),
            patience: patience.unwrap_or(usual),
            due: None,
            stands: false,
            backend,
            lowered,
            programs,
            sessions: BTreeMap::new(),
            pools,
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
        self.weights = weights.to_vec();
        // Another device begins with the weights as they are known.
        self.write_weights(weights).or_else(|error| self.recover(error))
    }

    pub(super) fn write_weights(&mut self, weights: &[f32]) -> Result<()> {
        for dial in &self.lowered.ports.dials {
            let words = vec![weights[dial.adapter] * dial.scale; dial.rank as usize];
            self.backend.write(dial.item, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Opens a session without a history.
    pub(super) fn open(&mut self) -> SessionId {
        let id = SessionId(self.sessions.last_key_value().map_or(0, |(id, _)| id.0 + 1));
        self.sessions.insert(id, State::default());
        id
    }

    /// A session without an answer under way.
    pub(super) fn idle_mut(&mut self, id: SessionId) -> Result<&mut State> {
        self.cancel();
        let state = self.sessions.get_mut(&id).ok_or_else(|| Error::internal("the session is not there"))?;
        if state.job.is_some() {
            return Err(Error::new(Kind::SessionBusy, "the session is generating already")
                .hint("wait for the end of the answer, or cancel it"));
        }
        Ok(state)
    }

    /// What becomes of a session that outgrows the context.
    pub(super) fn set_overflow(&mut self, id: SessionId, overflow: Overflow) -> Result<()> {
        let context = self.lowered.options.context;
        overflow.check(context)?;
        let state = self.idle_mut(id)?;
        if state.overflow != overflow {
            // What is in sight changes with the next prompt.
            (state.overflow, state.computed) = (overflow, if state.dropped > 0 { 0 } else { state.computed });
        }
        Ok(())
    }

    /// Forgets a session, as soon as its answer has ended.
    pub(super) fn close(&mut self, id: SessionId) {
        if let Some(state) = self.sessions.get_mut(&id).filter(|state| state.job.is_some()) {
            state.closing = true;
            return;
        }
        if let Some(State { seat: Some(seat), cache, .. }) = self.sessions.remove(&id) {
            self.pools[cache].leave(seat);
        }
    }

    /// Begins an answer; what its tokens share with the session's history is not computed again.
    pub(super) fn begin(&mut self, id: SessionId, request: Request) -> Result<Arc<Queue>> {
        let context = self.lowered.options.context;
        let state = self.idle_mut(id)?;
        let Request { tokens, prompt_tokens, chain, answer, guide, limit, drafter, .. } = request;
        let Request { log_probabilities, max_tokens, ends, .. } = request;
        let known = tokens.len() as u32;
        let dropped = state.overflow.dropped(known, context).ok_or_else(|| overflow(known, context))?;
        state.rewrite(tokens, dropped);
        let prompt_tokens = prompt_tokens.unwrap_or(known);
        let queue = Arc::new(Queue::default());
        state.job = Some(Job {
            queue: queue.clone(),
            chain,
            answer,
            guide,
            limits: [limit; 2],
            prompt_tokens,
            cached_tokens: state.computed.min(prompt_tokens),
            drafter,
            log_probabilities,
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
        let mut progress = Progress::default();
        loop {
            self.cancel();
            if self.control.wishes().suspended.is_some() {
                self.stand_still();
                progress.rest = Some(STANDSTILL);
            } else {
                let left = budget.map(|budget| budget.saturating_sub(begun.elapsed()));
                progress.rest = None;
                progress += self.slice(left, goes_on)?;
            }
            let over = budget.is_none_or(|budget| begun.elapsed() >= budget);
            if progress.rest.is_some() || over || !self.is_at_work() {
                progress.under_way = self.under_way().count() as u32;
                return Ok(progress);
            }
        }
    }

    /// The sessions with an answer under way.
    fn under_way(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(|(_, state)| state.job.is_some()).map(|(&id, _)| id)
    }

    fn is_at_work(&self) -> bool {
        self.under_way().next().is_some()
    }

    /// One slice landed; nothing where nobody waits, or a rest is due.
    fn slice(&mut self, left: Option<Duration>, goes_on: bool) -> Result<Progress> {
        self.clock += 1;
        let waiting: Vec<SessionId> = self.under_way().collect();
        self.go_forth().or_else(|error| self.fail_all(&waiting, error))?;
        let seated: Vec<SessionId> = waiting.into_iter().filter(|&id| self.seat(id)).collect();
        if seated.is_empty() {
            return Ok(Progress::default());
        }
        if let Some(rest) = self.rest_due(&seated) {
            return Ok(Progress { rest: Some(rest), ..Progress::default() });
        }
        let begun = Instant::now();
        match self.fly(&seated, left, goes_on) {
            Ok(landed) => {
                let rows = landed.iter().map(|landed| landed.rows).sum();
                landed.into_iter().for_each(|landed| self.advance(landed));
                let rests = self.control.wishes().pace == Pace::Background && self.is_at_work();
                Ok(Progress { rows, slices: 1, under_way: 0, rest: rests.then(|| begun.elapsed()) })
            }
            Err(error) => match self.recover(error) {
                Ok(()) => Ok(Progress::default()),
                Err(error) => self.fail_all(&seated, error),
            },
        }
    }

    /// Ends all answers under way, whose computation went astray nobody knows how.
    pub(super) fn fail_under_way(&mut self, error: &Error) {
        let ids: Vec<SessionId> = self.under_way().collect();
        self.ground();
        ids.into_iter().for_each(|id| self.fail(id, error.clone()));
    }

    /// What befell the device befell all who compute on it.
    fn fail_all<T>(&mut self, ids: &[SessionId], error: Error) -> Result<T> {
        self.ground();
        for &id in ids {
            self.fail(id, error.clone());
        }
        Err(error)
    }

    /// Tells every answer under way.
    pub(super) fn tell_all(&self, event: &Event) {
        let jobs = self.sessions.values().filter_map(|state| state.job.as_ref());
        jobs.for_each(|job| job.queue.push(Ok(event.clone())));
    }

    /// Keeps the device busy and waits for what comes first.
    fn fly(&mut self, seated: &[SessionId], left: Option<Duration>, goes_on: bool) -> Result<Vec<Landed>> {
        let ahead = left.filter(|_| !goes_on);
        self.go_on(seated, ahead)?;
        if self.flights.is_empty() {
            let (cache, turns) = self.turns(seated);
            let demands: Vec<Demand> =
                turns.iter().map(|id| Demand { pending: self.sessions[id].pending() }).collect();
            let rows = self.rows_within(cache, left);
            let mut slices = schedule(&demands, 0, rows, self.lowered.options.outputs);
            if let ([id], [slice]) = (seated, &mut slices[..]) {
                slice.rows += self.guess(*id, rows);
            }
            let slices = self.with_pages(&turns, &slices);
            self.launch(cache, &slices)?;
            self.go_on(seated, ahead)?;
        }
        self.land(ahead)
    }

    /// Whether the row at `position`, of a token that is not known yet, can be wanted at all.
    pub(super) fn has_room(&self, id: SessionId, position: u32) -> bool {
        let Some(state) = self.sessions.get(&id) else { return false };
        let is_wanted = |job: &Job| position + state.dropped + 1 - job.prompt_tokens < job.max_tokens;
        position + 1 < self.lowered.options.context && state.job.as_ref().is_some_and(is_wanted)
    }

    /// Rows of a session are computed, and perhaps the token that follows its history.
    fn advance(&mut self, landed: Landed) {
        let Landed { id, rows, guessed, tokens } = landed;
        let Some(state) = self.sessions.get_mut(&id) else { return };
        state.used = self.clock;
        state.computed += rows - guessed;
        let computed = state.computed;
        let Some(job) = &mut state.job else { return };
        if state.history.len() as u32 == job.prompt_tokens {
            let (done, total) = (computed + state.dropped, job.prompt_tokens);
            job.queue.push(Ok(Event::Prefill { done, total }));
        }
        if let Some(drafter) = job.drafter.as_mut().filter(|_| !tokens.is_empty()) {
            drafter.landed(tokens.len() as u32);
        }
        let count = tokens.len();
        for (at, token) in tokens.into_iter().enumerate() {
            match token {
                Ok(next) => self.add(id, next),
                Err(error) => return self.fail(id, error),
            }
            // What follows was picked after a guess that was right: its row is computed too.
            if let Some(state) =
                self.sessions.get_mut(&id).filter(|state| at + 1 < count && state.job.is_some())
            {
                state.computed += 1;
            }
        }
        if count > 0 {
            self.add_forced(id);
        }
    }

    /// Adds the tokens that have to follow; their rows are computed together, with the next submission.
    fn add_forced(&mut self, id: SessionId) {
        match self.forced(id) {
            Ok(tokens) => tokens.into_iter().for_each(|token| self.add(id, token.into())),
            Err(error) => self.fail(id, error),
        }
    }

    /// Adds a token to an answer under way.
    fn add(&mut self, id: SessionId, next: Next) {
        let Next { token, chosen } = next;
        let context = self.lowered.options.context;
        let Some(state) = self.sessions.get_mut(&id) else { return };
        let Some(job) = &mut state.job else { return };
        self.record.progress();
        if job.max_tokens == 0 {
            // Nobody wants a token: the prompt was to be computed ahead.
            return self.finish(id, FinishReason::Length);
        }
        state.history.push(token);
        job.limits[0] = job.limits[1];
        job.first_token.get_or_insert_with(|| job.begun.elapsed());
        let ended = job.ends.contains(&token);
        let complete = match &mut job.guide {
            Some(guide) if !ended => caught(|| guide.push(token)),
            _ => Ok(false),
        };
        let complete = match complete {
            Ok(complete) => complete,
            Err(error) => return self.fail(id, error),
        };
        if let Some(chosen) = chosen.filter(|_| !ended) {
            job.queue.push(Ok(Event::Chosen(chosen)));
        }
        let answer = &mut job.answer;
        let added = match caught(|| Ok(answer.push(token))) {
            Ok(added) => added,
            Err(error) => return self.fail(id, error),
        };
        added.events.into_iter().for_each(|event| job.queue.push(Ok(event)));
        let generated = state.history.len() as u32 - job.prompt_tokens;
        if ended || complete || added.stopped {
            self.finish(id, FinishReason::Stop);
        } else if generated >= job.max_tokens {
            self.finish(id, FinishReason::Length);
        } else {
            match state.overflow.dropped(state.history.len() as u32, context) {
                None => self.finish(id, FinishReason::Length),
                Some(dropped) if state.slide(dropped) => self.forget(id),
                Some(_) => {}
            }
        }
    }

    pub(super) fn cancel(&mut self) {
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
        let (has_stops, rest) = (job.answer.has_stops(), job.answer.finish());
        rest.events.into_iter().for_each(|event| job.queue.push(Ok(event)));
        // What was held back may have held a whole stop string.
        let reason = if rest.stopped { FinishReason::Stop } else { reason };
        let (written, text, calls) = job.answer.into_parts();
        // A stop string may cut a text that is not what its constraint asks for yet.
        let is_cut = has_stops
            && reason == FinishReason::Stop
            && !job.guide.is_none_or(|mut guide| guide.accepts(written.as_bytes()).unwrap_or(false));
        let reason = match reason {
            FinishReason::Stop if is_cut => FinishReason::Length,
            FinishReason::Stop if !calls.is_empty() => FinishReason::ToolCalls,
            reason => reason,
        };
        let (prompt, tokens) = state.history.split_at(job.prompt_tokens as usize);
        let total = job.begun.elapsed();
        let guesses = job.drafter.as_ref().map_or([0; 2], |drafter| drafter.tally);
        let timings = Timings {
            prompt_tokens: job.prompt_tokens,
            cached_tokens: job.cached_tokens,
            generated_tokens: tokens.len() as u32,
            guessed_tokens: guesses[0],
            accepted_tokens: guesses[1],
            first_token: job.first_token.unwrap_or(total),
            total,
        };
        let (prompt_tokens, tokens) = (prompt.to_vec(), tokens.to_vec());
        job.queue.push(Ok(Event::Finished(Finish { reason, text, calls, prompt_tokens, tokens, timings })));
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

    /// Guesses what follows the history of a session that decodes, where its drafts pay: how many tokens, which with its next
    /// one are at most `rows`. They are checked in one submission, so all they want is there: outputs, positions, and tokens
    /// that may still follow.
    fn guess(&mut self, id: SessionId, rows: u32) -> u32 {
        let options = &self.lowered.options;
        let Some(state) = self.sessions.get_mut(&id).filter(|state| state.pending() == 1) else { return 0 };
        let (seen, known) = (state.seen(), state.history.len() as u32);
        let Some(job) = &mut state.job else { return 0 };
        let left = job.max_tokens.saturating_sub(known - job.prompt_tokens);
        let most = [rows, options.outputs, options.prefill_rows, left, options.context - seen];
        let most = most.into_iter().min().unwrap_or(0).saturating_sub(1);
        state.guesses.clear();
        if let Some(drafter) = job.drafter.as_mut().filter(|drafter| drafter.is_on() && most > 0) {
            state.guesses = drafter.guess(&state.history, most as usize);
        }
        state.guesses.len() as u32
    }

    /// Whether guesses follow the session's next token, which has to be seen first.
    pub(super) fn is_drafted(&self, id: SessionId) -> bool {
        let job = self.sessions.get(&id).and_then(|state| state.job.as_ref());
        job.and_then(|job| job.drafter.as_ref()).is_some_and(Drafter::is_on)
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&State> {
        self.sessions.get(&id)
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut State> {
        self.sessions.get_mut(&id)
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

    /// The position that the answer's first token has, counted from those it sees now; before the first where it slid by.
    pub(super) fn first_position(&self, id: SessionId) -> Option<u32> {
        let state = self.sessions.get(&id)?;
        Some(state.job.as_ref()?.prompt_tokens.wrapping_sub(state.dropped))
    }

    /// Tokens of the prompt that the session answers.
    pub(super) fn prompt_tokens(&self, id: SessionId) -> Option<u32> {
        Some(self.sessions.get(&id)?.job.as_ref()?.prompt_tokens)
    }
}
