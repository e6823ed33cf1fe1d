//! A loaded model: what is immutable about it, and the runner behind a lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Caps;
use crate::backend::fault::Harm;
use crate::base::Bytes;
use crate::error::{Error, Kind, Result};
use crate::model::Lowered;
use crate::sample::Chain;
use crate::text::{ChatTemplate, Decoder, Guide, Lexicon, Tokenizer};

use super::answer::Answer;
use super::compute::Wanted;
use super::costs::Slices;
use super::draft::Drafter;
use super::estimate::Estimate;
use super::event::Queue;
use super::identity::Hash;
use super::keep::Kept;
use super::options::{GenerateOptions, Sampling};
use super::runner::{Progress, Request, Runner, SessionId};
use super::saved::{Saved, Unfinished};
use super::session::Session;
use super::tools::joined;
use super::trim::{Trim, Trimmed};
use super::worker::Signal;

/// How long a tick lets those pass who wait for the runner.
const COURTESY: Duration = Duration::from_millis(5);

/// A model on a device: shared, immutable, cheap to clone. The file must not change while it is loaded: its pages
/// are read when they are needed.
#[derive(Clone, Debug)]
pub struct Model {
    core: Arc<Core>,
}

/// What is known of a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Where it was loaded from.
    pub path: PathBuf,
    /// What the file calls it.
    pub name: String,
    /// The architecture.
    pub arch: String,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Positions of a session.
    pub context: u32,
    /// Positions it was trained for.
    pub trained_context: u32,
    /// Weights, by count.
    pub parameters: u64,
    /// Bytes of the weights in the file.
    pub weight_bytes: u64,
    /// The device.
    pub device: Caps,
    /// Why this device.
    pub reason: String,
    /// What it was estimated to take before it was loaded.
    pub estimate: Estimate,
    /// From the call to the first possible prompt.
    pub load_time: Duration,
}

/// How a model has fared on its device.
#[derive(Clone, Debug)]
pub struct Health {
    /// The device that computes now.
    pub device: Caps,
    /// Why this one.
    pub reason: String,
    /// Devices that took the place of a lost one.
    pub recoveries: u32,
    /// What the device was given at a time.
    pub slices: Slices,
}

/// What sessions and streams share.
pub(super) struct Core {
    pub(super) info: ModelInfo,
    pub(super) template: Option<ChatTemplate>,
    pub(super) signal: Arc<Signal>,
    tokenizer: Option<Arc<Tokenizer>>,
    /// Made when the first constraint is given.
    lexicon: OnceLock<Lexicon>,
    defaults: Sampling,
    /// The model, then its adapters.
    identity: Vec<Hash>,
    runner: Mutex<Runner>,
    /// Who waits for the runner. A lock is not fair: who ticks again and again would have it again before them.
    waiting: AtomicUsize,
    /// Sessions that were dropped and not yet closed: dropping must not wait for the runner.
    left: Mutex<Vec<SessionId>>,
}

impl Model {
    pub(super) fn new(
        info: ModelInfo,
        tokenizer: Option<Tokenizer>,
        template: Option<ChatTemplate>,
        defaults: Sampling,
        identity: Vec<Hash>,
        runner: Runner,
        signal: Arc<Signal>,
    ) -> Self {
        let (runner, left, lexicon) = (Mutex::new(runner), Mutex::default(), OnceLock::new());
        let (waiting, tokenizer) = (AtomicUsize::new(0), tokenizer.map(Arc::new));
        let core =
            Core { info, template, signal, tokenizer, lexicon, defaults, identity, runner, waiting, left };
        Self { core: Arc::new(core) }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// With the time that it took, before anybody else has it.
    pub(super) fn loaded_in(mut self, time: Duration) -> Self {
        if let Some(core) = Arc::get_mut(&mut self.core) {
            core.info.load_time = time;
        }
        self
    }

    /// What is known of it.
    pub fn info(&self) -> &ModelInfo {
        &self.core.info
    }

    /// How it has fared: where it computes now, what befell it, how long its slices were.
    pub fn health(&self) -> Health {
        let runner = self.core.runner();
        Health {
            device: runner.backend.caps().clone(),
            reason: runner.record.reason.clone(),
            recoveries: runner.record.recoveries,
            slices: runner.slices.clone(),
        }
    }

    /// A new session without a history.
    pub fn session(&self) -> Session {
        let id = self.core.runner().open();
        Session::new(self.core.clone(), id)
    }

    /// The session that [`Session::save`] wrote to a file, on whatever device it was.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `BadFile` where it is not to the last bit what was written; `Unsupported` where a newer program
    /// or a session of another model wrote it; `ContextOverflow` where it is longer than the context.
    pub fn restore(&self, path: impl AsRef<Path>) -> Result<Session> {
        let path = path.as_ref();
        self.restore_bytes(Bytes::map(path)?).map_err(|error| error.in_file(path))
    }

    /// The session that [`Session::to_bytes`] gave, [`Self::restore`] otherwise.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_bytes(&self, bytes: impl Into<Bytes>) -> Result<Session> {
        let saved = Saved::read(&bytes.into())?;
        self.core.check(&saved)?;
        let Saved { overflow, kv_type, history, transcript, answer, kv, .. } = saved;
        let kept = Kept { overflow, kv_type, history, answer, kv };
        let id = self.core.runner().put_back(kept, &self.core.identity)?;
        Ok(Session::restored(self.core.clone(), id, transcript, answer))
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// `Unsupported` where the file brings none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.core.tokenizer().map(|tokenizer| &**tokenizer)
    }

    /// Whether the file brings a chat template.
    pub fn can_chat(&self) -> bool {
        self.core.template.is_some()
    }

    /// The tokens of a prompt as a session would compute them.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn tokens(&self, prompt: &super::Prompt) -> Result<Vec<u32>> {
        self.core.tokens(prompt)
    }

    /// The tokens of a prompt as a session would compute them with these options, which may tell of tools.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn tokens_with(&self, prompt: &super::Prompt, options: &GenerateOptions) -> Result<Vec<u32>> {
        self.core.tokens_with(prompt, options.told_tools())
    }

    /// Computes `tokens` and hands the logits of each position from `from` on to `visit`, in order: the logits at
    /// a position predict the token after it.
    ///
    /// # Errors
    /// `ContextOverflow`, `SessionBusy` where all places of the KV cache are generating, what befalls the device,
    /// and what `visit` returns.
    pub fn logits(
        &self,
        tokens: &[u32],
        from: usize,
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let vocab = self.core.info.vocab;
        if let Some(token) = tokens.iter().find(|&&token| token >= vocab) {
            return Err(Error::invalid(format!("token {token} is not in the vocabulary of {vocab}")));
        }
        self.core.runner().visit_rows(Wanted::Logits, tokens, from, &mut visit)
    }

    /// Gives each adapter its weight, in the order of [`super::LoadOptions::adapters`]; 0 takes one out. Sessions keep
    /// their histories and compute them again under the new weights, answers under way included.
    ///
    /// # Errors
    /// `InvalidArgument` where there are not as many finite weights as adapters, what befalls the device.
    pub fn weigh_adapters(&self, weights: &[f32]) -> Result<()> {
        self.core.runner().weigh(weights)
    }

    /// Gives memory back while the model stays loaded, as an app is asked to that is short of it. Histories stay, and so
    /// do the tokens of answers.
    ///
    /// # Errors
    /// What befalls the device.
    pub fn trim(&self, level: Trim) -> Result<Trimmed> {
        self.core.runner().trim(level)
    }

    /// A drill: the device counts as lost from now on, so that a host sees what it makes of [`super::Event::Recovered`]. A GPU that
    /// the engine opened is destroyed; of the host's own ([`super::EngineOptions::shared`]), which goes on drawing, and of the CPU only what
    /// the model has there is given up. Returns when the model is there again: answers under way go on with the tokens that they
    /// would have had. Four in a row without 16 tokens in between lead to the CPU, as real losses do.
    ///
    /// # Errors
    /// What befell the device, where none takes its place.
    pub fn lose_device(&self) -> Result<()> {
        let mut runner = self.core.runner();
        runner.backend.harm(Harm::Lost);
        runner.recover(Error::new(Kind::DeviceLost, "the device was lost: a drill that was asked for"))
    }

    /// Looks at the plans and the store.
    pub fn inspect<T>(&self, look: impl FnOnce(&Lowered) -> T) -> T {
        look(&self.core.runner().lowered)
    }
}

impl Core {
    pub(super) fn tokenizer(&self) -> Result<&Arc<Tokenizer>> {
        let missing =
            || Error::new(Kind::Unsupported, "the model file has no tokenizer").hint("give tokens as ids");
        self.tokenizer.as_ref().ok_or_else(missing)
    }

    pub(super) fn begin(
        &self,
        id: SessionId,
        tokens: Vec<u32>,
        answer: Option<Unfinished>,
        options: &GenerateOptions,
    ) -> Result<Arc<Queue>> {
        options.check()?;
        let mut sampling = options.sampling.or(&self.defaults);
        sampling.seed = sampling.seed.or(answer.and_then(|answer| answer.seed));
        if let (Some(dry), Some(tokenizer)) = (&mut sampling.dry, &self.tokenizer)
            && dry.breakers.is_empty()
        {
            dry.breakers = tokenizer.tokens_with(&["\n", ":", "\"", "*"]);
        }
        let chain = sampling.chain()?;
        log::debug!("tokens are chosen by {chain}");
        let limit = answer.and_then(|answer| answer.limit);
        let tokenizer = self.tokenizer.as_deref();
        let prompt_tokens = answer.map(|answer| answer.prompt_tokens);
        let prompt = prompt_tokens.map_or(tokens.len(), |tokens| tokens as usize);
        let mut guide = self.guide(options)?;
        let decoder = tokenizer.map(|tokenizer| tokenizer.decoder(tokens[..prompt].last().copied(), false));
        // A guide knows of every byte.
        let decoder = if guide.is_some() { decoder.map(Decoder::as_spelled) } else { decoder };
        let (decoder, reader) = self.listen(decoder, options, prompt as u32);
        let ends = tokenizer.filter(|_| !options.ignore_end).map(Tokenizer::ends).unwrap_or_default();
        let mut answer = Answer::new(decoder, options.stop.clone()).reading(reader);
        let mut said = Vec::new();
        for &token in &tokens[prompt..] {
            let added = answer.push(token);
            said.extend(added.events);
            let complete = guide.as_mut().map_or(Ok(false), |guide| guide.push(token));
            let complete = complete.map_err(|error| {
                Error::invalid("the answer under way is not what the constraint asks for").caused_by(error)
            })?;
            if added.stopped || complete || ends.contains(&token) {
                return Err(Error::invalid("the answer under way has ended, by these stops"));
            }
        }
        let generated = (tokens.len() - prompt) as u32;
        if generated > 0 && options.max_tokens.is_some_and(|most| most <= generated) {
            let what = format!("the answer under way has {generated} tokens already");
            return Err(Error::invalid(what).hint("ask for more than that"));
        }
        // What the next pick depends on beside the history cannot be guessed ahead.
        let is_free = guide.is_none() && !chain.remembers();
        let draft = options.draft.as_ref().filter(|_| is_free);
        let drafter = draft.map(|draft| Drafter::new(draft, self)).transpose()?;
        let max_tokens = options.max_tokens;
        let log_probabilities = options.log_probabilities;
        let request = Request {
            tokens,
            prompt_tokens,
            chain,
            answer,
            guide,
            limit,
            drafter,
            log_probabilities,
            max_tokens,
            ends,
        };
        // Held until the first event is there: a worker may compute the next at once.
        let mut runner = self.runner();
        let queue = runner.begin(id, request)?;
        joined(said).into_iter().for_each(|event| queue.push(Ok(event)));
        drop(runner);
        self.signal.raise();
        Ok(queue)
    }

    /// Computes a prompt that is to be answered later.
    pub(super) fn prewarm(&self, id: SessionId, tokens: Vec<u32>) -> Result<Arc<Queue>> {
        let answer = Answer::new(None, Vec::new());
        let chain = Chain::new(Vec::new(), true, 0)?;
        let (max_tokens, ends) = (Some(0), Vec::new());
        let request = Request {
            tokens,
            prompt_tokens: None,
            chain,
            answer,
            guide: None,
            limit: None,
            drafter: None,
            log_probabilities: None,
            max_tokens,
            ends,
        };
        let queue = self.runner().begin(id, request)?;
        self.signal.raise();
        Ok(queue)
    }

    /// What holds an answer to the constraint of its options.
    fn guide(&self, options: &GenerateOptions) -> Result<Option<Guide>> {
        let call = self.due_call(options)?;
        let Some(constraint) = options.constraint.as_ref().or(call.as_ref()) else { return Ok(None) };
        let lexicon = match self.lexicon.get() {
            Some(lexicon) => lexicon,
            None => {
                let made = Lexicon::new(self.tokenizer()?)?;
                self.lexicon.get_or_init(|| made)
            }
        };
        lexicon.guide(constraint, options.ignore_end).map(Some)
    }

    /// Goes on with an answer that was under way.
    pub(super) fn proceed(
        &self,
        id: SessionId,
        answer: Unfinished,
        options: &GenerateOptions,
    ) -> Result<Arc<Queue>> {
        let tokens = self.runner().session(id).map(|state| state.history.clone()).unwrap_or_default();
        self.begin(id, tokens, Some(answer), options)
    }

    /// What of a session is not in its handle.
    pub(super) fn keep(&self, id: SessionId, kv: bool) -> Result<(Hash, Kept)> {
        let kept = self.runner().keep(id, kv, &self.identity);
        let kept = kept.ok_or_else(|| Error::internal("the session is not there"))?;
        Ok((self.identity[0], kept))
    }

    /// Whether a saved session is one of this model, and fits.
    fn check(&self, saved: &Saved) -> Result<()> {
        let ModelInfo { vocab, name, .. } = &self.info;
        if saved.model != self.identity[0] {
            return Err(Error::unsupported(format!("the session is of another model than {name}"))
                .hint("load the model that it was saved with"));
        }
        if let Some(token) = saved.history.iter().find(|&token| token >= vocab) {
            return Err(Error::bad_file(format!(
                "token {token} of the session is not in the vocabulary of {vocab}"
            )));
        }
        Ok(())
    }

    /// One slice, or a short wait where a worker computes or another thread just has.
    pub(super) fn advance(&self, queue: &Queue) -> Result<()> {
        if self.signal.has_worker() {
            queue.wait(Duration::from_millis(100));
            return Ok(());
        }
        let mut runner = self.runner();
        if !queue.is_empty() {
            return Ok(());
        }
        let seen = self.signal.raised();
        // An error that befell this answer is in its queue.
        match runner.tick(None, true) {
            Err(error) if queue.is_empty() => Err(error),
            Ok(Progress { rest: Some(rest), .. }) if queue.is_empty() => {
                drop(runner);
                self.signal.wait(seen, rest);
                Ok(())
            }
            Ok(progress) if progress.under_way == 0 && queue.is_empty() => {
                Err(Error::internal("an answer waits and nothing can be computed"))
            }
            _ => Ok(()),
        }
    }

    /// Takes what is under way from the device, where the tick lets go of it by `end`: whether it did.
    pub(super) fn stand_still(&self, end: Instant) -> bool {
        loop {
            match self.runner.try_lock() {
                Ok(mut runner) => {
                    runner.stand_still();
                    return true;
                }
                Err(TryLockError::Poisoned(poisoned)) => {
                    poisoned.into_inner().stand_still();
                    return true;
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= end => return false,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    pub(super) fn tick(&self, budget: Duration, goes_on: bool) -> Result<Progress> {
        let begun = Instant::now();
        while self.waiting.load(Ordering::SeqCst) > 0 && begun.elapsed() < COURTESY {
            thread::yield_now();
        }
        self.runner().tick(Some(budget), goes_on)
    }

    /// Closes a session soon.
    pub(super) fn leave(&self, id: SessionId) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    pub(super) fn runner(&self) -> MutexGuard<'_, Runner> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.close_left(runner)
    }

    /// The runner, where nobody has it.
    pub(super) fn try_runner(&self) -> Option<MutexGuard<'_, Runner>> {
        match self.runner.try_lock() {
            Ok(runner) => Some(self.close_left(runner)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.close_left(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn close_left<'a>(&self, mut runner: MutexGuard<'a, Runner>) -> MutexGuard<'a, Runner> {
        for id in self.left.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            runner.close(id);
        }
        runner
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("info", &self.info).finish_non_exhaustive()
    }
}
