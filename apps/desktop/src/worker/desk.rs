//! The thread that has the model. Whatever takes longer than a moment is done by another, which reports here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use pocketlm::{Cancel, DeviceInfo, Engine, Error, Kind, Model, Pace, Result, models};

use super::answer;
use super::live::Sessions;
use super::{Command, Loaded, Measured, News, Request, Said, Source, Tell, fetch};
use crate::device::{self, Drawing};
use crate::energy::Energy;
use crate::store::Store;

/// What comes to the desk.
pub(super) enum Inbox {
    /// From the window.
    Command(Command),
    /// The model of this load is there, or not.
    Made(u64, Result<Box<Running>>),
    /// The answer at this node of a conversation has ended.
    Ended(String, usize, Said),
    /// The window is closed.
    Close,
}

/// How often the device is looked at while it computes.
const LOOK: Duration = Duration::from_millis(100);
/// How often an answer under way is saved.
const SAVE: Duration = Duration::from_secs(1);

/// A model, and what makes it compute.
pub(super) struct Running {
    pub(super) model: Model,
    pub(super) engine: Engine,
    pub(super) loaded: Loaded,
    /// Ticks until it is dropped.
    pub(super) _ticks: pocketlm::Worker,
}

/// The answer under way.
struct Answering {
    conversation: String,
    node: usize,
    cancel: Cancel,
    saved: Instant,
}

pub(super) struct Desk {
    store: Store,
    drawing: Option<Drawing>,
    tell: Tell,
    inbox: Sender<Inbox>,
    devices: Vec<DeviceInfo>,
    // Sessions go before the model does.
    sessions: Sessions,
    answering: Option<Answering>,
    running: Option<Box<Running>>,
    pulls: HashMap<String, Arc<AtomicBool>>,
    loading: Option<Arc<AtomicBool>>,
    /// Loads so far.
    loads: u64,
    budget: Option<f64>,
    /// Slices that have been told of.
    slices: u64,
}

impl Desk {
    pub(super) fn new(store: Store, drawing: Option<Drawing>, tell: Tell, inbox: Sender<Inbox>) -> Self {
        Self {
            store,
            drawing,
            tell,
            inbox,
            devices: Vec::new(),
            sessions: Sessions::default(),
            answering: None,
            running: None,
            pulls: HashMap::new(),
            loading: None,
            loads: 0,
            budget: None,
            slices: 0,
        }
    }

    /// Works until the window is closed.
    pub(super) fn work(&mut self, inbox: &Receiver<Inbox>) {
        loop {
            let patience = if self.answering.is_some() { LOOK } else { Duration::from_secs(3600) };
            match inbox.recv_timeout(patience) {
                Ok(Inbox::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Inbox::Command(command)) => {
                    if let Err(error) = self.obey(command) {
                        self.tell.tell(News::Failed(error));
                    }
                }
                Ok(Inbox::Made(load, made)) if load == self.loads => self.have(made),
                // Another was asked for meanwhile.
                Ok(Inbox::Made(..)) => {}
                Ok(Inbox::Ended(conversation, node, last)) => self.end_answer(conversation, node, last),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look();
        }
        self.stop_all();
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::FindDevices => {
                self.find_devices();
                self.tell.tell(News::Devices(self.devices.clone()));
            }
            Command::FindModels(opened) => {
                let tell = self.tell.clone();
                spawn("find", move || tell.tell(News::Models(fetch::shelf(&opened))))?;
            }
            Command::Pull(name) => self.pull(name)?,
            Command::StopPull(name) => {
                if let Some(stop) = self.pulls.remove(&name) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            Command::Weigh(source) => self.weigh(source)?,
            Command::Load(source) => self.load(source)?,
            Command::StopLoading => {
                if let Some(stop) = &self.loading {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            Command::Unload => {
                self.let_go();
                self.tell.tell(News::Unloaded);
            }
            Command::Answer(request) => self.answer(&request, false),
            Command::Proceed(request) => self.answer(&request, true),
            Command::Stop => {
                if let Some(answering) = &self.answering {
                    answering.cancel.cancel();
                }
            }
            Command::Lose => self.lose()?,
            Command::Pace(budget) => {
                self.budget = budget;
                self.set_pace();
            }
            Command::Keep(conversation) => self.store.keep(&conversation)?,
            Command::Delete(id) => {
                self.sessions.forget(&id);
                self.store.delete(&id)?;
            }
            Command::KeepSettings(settings) => self.store.keep_settings(&settings)?,
        }
        Ok(())
    }

    fn pull(&mut self, name: String) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        self.pulls.insert(name.clone(), stop.clone());
        let tell = self.tell.clone();
        spawn("pull", move || {
            let outcome = models::pull(&name, |progress| {
                tell.tell(News::Pulling(name.clone(), progress));
                go_on(&stop)
            });
            tell.tell(News::Pulled(name, outcome));
        })
    }

    fn weigh(&mut self, source: Source) -> Result<()> {
        self.find_devices();
        let chosen = device::choose(&source.place, self.drawing.as_ref(), &self.devices);
        let tell = self.tell.clone();
        spawn("weigh", move || {
            let weighed = chosen.map_err(unavailable).and_then(|choice| {
                Engine::new(choice.options).estimate(&source.path, &source.load.options())
            });
            tell.tell(News::Weighed(source, weighed.map(Box::new)));
        })
    }

    /// The one before goes first: its memory may be needed.
    fn load(&mut self, source: Source) -> Result<()> {
        if let Some(stop) = self.loading.take() {
            stop.store(true, Ordering::Relaxed);
        }
        self.let_go();
        self.find_devices();
        let choice = match device::choose(&source.place, self.drawing.as_ref(), &self.devices) {
            Ok(choice) => choice,
            Err(why) => {
                self.tell.tell(News::NotLoaded(unavailable(why)));
                return Ok(());
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        self.loading = Some(stop.clone());
        self.loads += 1;
        let (load, tell, inbox) = (self.loads, self.tell.clone(), self.inbox.clone());
        spawn("load", move || {
            let made = fetch::load(&source, choice, |progress| {
                tell.tell(News::Loading(progress));
                go_on(&stop)
            });
            // The desk is gone where the window was closed meanwhile.
            let _closed = inbox.send(Inbox::Made(load, made.map(Box::new)));
        })
    }

    fn have(&mut self, made: Result<Box<Running>>) {
        match made {
            Ok(running) => {
                self.loading = None;
                self.slices = 0;
                self.tell.tell(News::Loaded(Box::new(running.loaded.clone())));
                self.running = Some(running);
                self.set_pace();
                self.measure();
            }
            Err(error) => self.tell.tell(News::NotLoaded(error)),
        }
    }

    fn answer(&mut self, request: &Request, goes_on: bool) {
        let Request { conversation, node, .. } = request;
        match self.begin(request, goes_on) {
            Ok(cancel) => {
                let (conversation, node) = (conversation.clone(), *node);
                self.answering = Some(Answering { conversation, node, cancel, saved: Instant::now() });
            }
            Err(error) => self.tell.tell(News::Said(conversation.clone(), *node, Said::Failed(error))),
        }
    }

    fn begin(&mut self, request: &Request, goes_on: bool) -> Result<Cancel> {
        if self.answering.is_some() {
            return Err(
                Error::new(Kind::SessionBusy, "another answer is under way").hint("stop it, or wait for it")
            );
        }
        let Some(running) = &self.running else {
            return Err(Error::new(Kind::NotFound, "no model is loaded").hint("choose one on the left"));
        };
        let began = answer::begin(&running.model, &mut self.sessions, &self.store, request, goes_on)?;
        let cancel = began.cancel_handle();
        let tell = self.tell.clone();
        let (conversation, node, inbox) = (request.conversation.clone(), request.node, self.inbox.clone());
        let energy = (running.loaded.info.device.backend == "cpu").then(Energy::of_cpu).flatten();
        tell.tell(News::Said(conversation.clone(), node, Said::Begun));
        spawn("answer", move || {
            let last = answer::follow(began, energy, |said| {
                tell.tell(News::Said(conversation.clone(), node, said));
            });
            let _closed = inbox.send(Inbox::Ended(conversation, node, last));
        })?;
        Ok(cancel)
    }

    /// Saves an answer that has ended, and then tells of it: whoever hears may ask for the next.
    fn end_answer(&mut self, conversation: String, node: usize, last: Said) {
        // Where the model was let go meanwhile, it has been saved.
        let is_this =
            |answering: &Answering| answering.conversation == conversation && answering.node == node;
        if self.answering.as_ref().is_some_and(is_this) {
            self.answering = None;
            self.measure();
            let kept = self.sessions.keep(&self.store, &conversation, node);
            self.sessions.tidy(&self.store);
            if let Err(error) = kept {
                self.tell.tell(News::Failed(error));
            }
        }
        self.tell.tell(News::Said(conversation, node, last));
    }

    fn lose(&mut self) -> Result<()> {
        let Some(running) = &self.running else {
            return Err(Error::new(Kind::NotFound, "no model is loaded, so there is no device to lose"));
        };
        let (model, tell) = (running.model.clone(), self.tell.clone());
        spawn("lose", move || {
            if let Err(error) = model.lose_device() {
                tell.tell(News::Failed(error));
            }
        })
    }

    /// Looks at the device, and saves the answer under way.
    fn look(&mut self) {
        let Some(answering) = &mut self.answering else { return };
        if answering.saved.elapsed() >= SAVE {
            answering.saved = Instant::now();
            if let Err(error) = self.sessions.keep(&self.store, &answering.conversation, answering.node) {
                self.tell.tell(News::Failed(error));
            }
        }
        self.measure();
    }

    fn measure(&mut self) {
        let Some(running) = &self.running else { return };
        let health = running.model.health();
        // A device that took another's place begins to count anew nowhere: the model does.
        let new = health.slices.count.saturating_sub(self.slices);
        self.slices = health.slices.count;
        let ms = |time: Duration| time.as_secs_f32() * 1e3;
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        self.tell.tell(News::Measured(Measured {
            slices: health.slices.latest(new).map(ms).collect(),
            p95: ms(health.slices.quantile(0.95)),
            device: health.device.name.clone(),
            reason: health.reason,
            recoveries: health.recoveries,
            held: health.device.meter.bytes(),
        }));
    }

    fn set_pace(&self) {
        let Some(running) = &self.running else { return };
        let is_gpu = running.loaded.info.device.backend != "cpu";
        running.engine.set_pace(match self.budget.filter(|_| is_gpu) {
            Some(ms) => Pace::Frame(Duration::from_secs_f64(ms.clamp(0.5, 1000.0) / 1e3)),
            None => Pace::Full,
        });
    }

    fn find_devices(&mut self) {
        if self.devices.is_empty() {
            self.devices = pocketlm::devices();
        }
    }

    /// Gives the model back; an answer under way is stopped and saved first.
    fn let_go(&mut self) {
        if let Some(Answering { conversation, node, cancel, .. }) = self.answering.take() {
            cancel.cancel();
            if let Err(error) = self.sessions.keep(&self.store, &conversation, node) {
                self.tell.tell(News::Failed(error));
            }
        }
        self.sessions = Sessions::default();
        self.running = None;
    }

    fn stop_all(&mut self) {
        for stop in self.pulls.values().chain(&self.loading) {
            stop.store(true, Ordering::Relaxed);
        }
        self.let_go();
    }
}

fn go_on(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::new(Kind::Cancelled, "stopped")),
        false => Ok(()),
    }
}

fn unavailable(why: String) -> Error {
    Error::new(Kind::DeviceUnavailable, why).hint("choose another device")
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(())
}
