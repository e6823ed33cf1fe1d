//! The slots: threads that answer, one request each at a time. A [`pocketlm::Worker`] computes what all of them want, together;
//! a slot begins answers, waits for what they say, and passes it on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pocketlm::{Cancel, Event, Finish, GenerateOptions, Model, Pooling, Prompt};
use tokio::sync::mpsc;

use super::fair::Fair;
use super::guard::Client;
use super::kept::Kept;
use super::metrics::{Metrics, Now};
use super::refusal::Refusal;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) news: mpsc::Sender<News>,
    pub(crate) stop: Arc<Stop>,
}

/// What is wanted.
#[derive(Debug)]
pub(crate) enum Work {
    /// Answers, one after the other.
    Answers(Vec<Ask>),
    /// The embeddings of texts.
    Embeddings(Vec<Vec<u32>>, Pooling),
}

/// What an answer is made of.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) tokens: Vec<u32>,
    pub(crate) options: GenerateOptions,
}

/// What a slot says of a job.
#[derive(Debug)]
pub(crate) enum News {
    /// It goes well so far, and takes time from here on.
    Begun,
    /// Of the answer with this number.
    Event(usize, Event),
    Embedding(Vec<f32>),
    /// The last, where something went wrong.
    Failed(Refusal),
    /// The last, where all is told.
    Done,
}

/// Stops a job, whatever has become of it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: AtomicBool,
    cancel: Mutex<Option<Cancel>>,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(cancel) = locked(&self.cancel).as_ref() {
            cancel.cancel();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Stops this too from now on.
    fn watch(&self, cancel: Cancel) {
        *locked(&self.cancel) = Some(cancel);
        if self.is_stopped() {
            self.stop();
        }
    }
}

/// Those who wait, and those who are answered.
#[derive(Debug)]
pub(crate) struct Slots {
    model: Model,
    metrics: Arc<Metrics>,
    count: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Fair<Client, Job>,
    answering: Vec<Arc<Stop>>,
    kept: Kept,
    is_closed: bool,
}

impl Slots {
    pub(crate) fn new(model: Model, metrics: Arc<Metrics>, count: usize, queue: usize) -> Self {
        let waiting = Fair::new(queue);
        let state = State { waiting, answering: Vec::new(), kept: Kept::default(), is_closed: false };
        Self { model, metrics, count, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Lines a job up. One that has to give way for it is told so.
    pub(crate) fn queue(&self, client: Client, job: Job) {
        let mut state = self.state();
        let is_idle = state.answering.len() + state.waiting.len() < self.count;
        let left = match (state.is_closed, is_idle) {
            (true, _) => return refuse(job, Refusal::shutting_down()),
            // Nobody waits where a slot is free: a queue of 0 is none, not a server that answers nobody.
            (false, true) => {
                state.waiting.push_beyond(client, job);
                None
            }
            (false, false) => state.waiting.push(client, job),
        };
        drop(state);
        self.changed.notify_one();
        if let Some(job) = left {
            refuse(job, Refusal::queue_full());
        }
    }

    /// Nobody wants a job any more that may still wait.
    pub(crate) fn leave(&self, stop: &Arc<Stop>) {
        drop(self.state().waiting.take(|job| Arc::ptr_eq(&job.stop, stop)));
    }

    /// Takes no more jobs, and refuses those that wait.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let left = state.waiting.take(|_| true);
        drop(state);
        self.changed.notify_all();
        left.into_iter().for_each(|job| refuse(job, Refusal::shutting_down()));
    }

    /// Stops those who are answered.
    pub(crate) fn stop(&self) {
        self.state().answering.iter().for_each(|stop| stop.stop());
    }

    /// Answering, waiting, slots.
    pub(crate) fn now(&self) -> Now {
        let state = self.state();
        Now {
            answering: state.answering.len(),
            waiting: state.waiting.len(),
            slots: self.count,
            connections: 0,
        }
    }

    /// Answers until the slots are closed.
    pub(crate) fn work(&self) {
        while let Some(Job { work, news, stop }) = self.next() {
            let last = catch_unwind(AssertUnwindSafe(|| self.answer(work, &news, &stop)));
            let last = last.unwrap_or_else(|_| {
                self.metrics.failed();
                News::Failed(Refusal::internal("The server met a bug; its log has more."))
            });
            // Free before the last word: who hears it may ask again at once.
            self.state().answering.retain(|other| !Arc::ptr_eq(other, &stop));
            // Who left need not know.
            let _gone = news.blocking_send(last);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.waiting.pop() {
                state.answering.push(job.stop.clone());
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does what is wanted; the last word on it.
    fn answer(&self, work: Work, news: &mpsc::Sender<News>, stop: &Stop) -> News {
        let told = match work {
            Work::Answers(asks) => {
                asks.into_iter().enumerate().try_for_each(|(number, ask)| self.tell(number, ask, news, stop))
            }
            Work::Embeddings(texts, pooling) => self.embed(texts, pooling, news, stop),
        };
        told.map_or_else(News::Failed, |()| News::Done)
    }

    /// One answer. That nobody listens is no error; what is stopped while somebody does is stopped by the server's end.
    fn tell(&self, number: usize, ask: Ask, news: &mpsc::Sender<News>, stop: &Stop) -> Result<(), Refusal> {
        if stop.is_stopped() {
            return Err(Refusal::shutting_down());
        }
        let mut session = {
            let mut state = self.state();
            let busy = state.answering.len() - 1;
            state.kept.take(&self.model, &ask.tokens, busy, self.count)
        };
        let stream = session.generate(&Prompt::Tokens(ask.tokens), &ask.options)?;
        stop.watch(stream.cancel_handle());
        let mut is_heard = number > 0 || news.blocking_send(News::Begun).is_ok();
        for event in stream {
            let event = match event {
                Ok(Event::Prefill { .. }) => continue,
                Ok(event) => event,
                Err(error) => {
                    self.metrics.failed();
                    return Err(error.into());
                }
            };
            if let Event::Recovered { why, device } = &event {
                log::warn!("{why}; going on with {device}");
            }
            let finish = if let Event::Finished(finish) = &event { Some(finish.clone()) } else { None };
            if !is_heard {
                stop.stop();
            }
            is_heard = is_heard && news.blocking_send(News::Event(number, event)).is_ok();
            if let Some(Finish { prompt_tokens: mut history, tokens, .. }) =
                finish.inspect(|finish| self.metrics.finished(finish))
            {
                history.extend(tokens);
                self.state().kept.put(session, history, self.count);
                return Ok(());
            }
        }
        Err(Refusal::internal("The answer ended without its end."))
    }

    fn embed(
        &self,
        texts: Vec<Vec<u32>>,
        pooling: Pooling,
        news: &mpsc::Sender<News>,
        stop: &Stop,
    ) -> Result<(), Refusal> {
        for tokens in texts {
            if stop.is_stopped() {
                return Err(Refusal::shutting_down());
            }
            let (begun, count) = (Instant::now(), tokens.len());
            let embedding =
                self.model.embed(&Prompt::Tokens(tokens), pooling).inspect_err(|_| self.metrics.failed())?;
            self.metrics.read(count, begun.elapsed());
            if news.blocking_send(News::Embedding(embedding)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn refuse(job: Job, why: Refusal) {
    // Its line is empty, so this does not wait; and who left need not know.
    let _gone = job.news.try_send(News::Failed(why));
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
