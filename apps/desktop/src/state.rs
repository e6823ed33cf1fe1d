//! What the window knows, and what becomes of it: by what a person does ([`Action`]), and by what the worker tells ([`News`]).
//! Nothing here draws, waits, or touches a device; what is wanted of the worker is handed out ([`State::orders`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pocketlm::models::PullProgress;
use pocketlm::{DeviceInfo, Error, Estimate, Finish, FinishReason, Kind, LoadProgress, Result};

use crate::conversation::{Conversation, End, Facts};
use crate::device::Drawing;
use crate::meters::Meters;
use crate::settings::{Place, Settings};
use crate::worker::{Command, Loaded, News, Request, Said, Shelved, Source};

/// What a person does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begins a conversation.
    New,
    /// Shows a conversation.
    Open(String),
    /// Forgets a conversation, and what was said in it.
    Delete(String),
    /// Says what is written.
    Send,
    /// Stops the answer, or the load.
    Stop,
    /// Wants another answer in place of the one at a node.
    Retry(usize),
    /// Takes a message to say it otherwise.
    Edit(usize),
    /// Says it as it is written now.
    SendEdit,
    /// Leaves it as it was.
    LeaveEdit,
    /// Wants an answer that was interrupted to go on.
    GoOn(usize),
    /// Shows the branch through a node.
    Choose(usize),
    /// Looks for models again.
    FindModels,
    /// Fetches a model.
    Pull(String),
    /// Stops fetching it.
    StopPull(String),
    /// Looks what a model would take.
    Weigh(PathBuf),
    /// Loads a model.
    Load(PathBuf),
    /// Gives its memory back.
    Unload,
    /// Wants to compute elsewhere: the model is loaded again there.
    Compute(Place),
    /// Loses the device.
    Lose,
    /// Takes the sampling that the model's makers recommend.
    ResetSampling,
    /// Puts a notice away.
    Dismiss(usize),
    /// Has changed the settings.
    Chosen,
    /// Tells the model something else before all else.
    Instruct(String),
}

/// Something that a person should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub text: String,
    /// What would work.
    pub hint: Option<String>,
    /// Whether something failed.
    pub is_error: bool,
    /// Whether it was asked for, and is no news.
    pub kind: Option<Kind>,
}

/// An answer under way.
#[derive(Clone, Debug)]
pub struct Answering {
    /// Its conversation.
    pub conversation: String,
    /// Its node.
    pub node: usize,
    /// When it was asked for.
    pub begun: Instant,
    /// Tokens of the prompt read, and all.
    pub read: Option<(u32, u32)>,
    /// When the first text came.
    pub first: Option<Instant>,
    /// Pieces of text since then: about a token each.
    pub pieces: u32,
    /// Whether it was asked to stop.
    pub is_stopping: bool,
    /// When what there is of it was kept last.
    kept: Instant,
}

/// A load under way.
#[derive(Clone, Debug)]
pub struct Loading {
    /// What is loaded.
    pub path: PathBuf,
    /// How far it is.
    pub progress: Option<LoadProgress>,
    /// Whether it was asked to stop.
    pub is_stopping: bool,
}

/// All that the window knows.
#[derive(Debug, Default)]
pub struct State {
    /// What was chosen.
    pub settings: Settings,
    /// The conversations, the latest first.
    pub conversations: Vec<Conversation>,
    /// The one that is shown.
    pub open: Option<String>,
    /// What is being written.
    pub draft: String,
    /// A message that is being said otherwise: its node and the text.
    pub edit: Option<(usize, String)>,
    /// The answer under way.
    pub answering: Option<Answering>,
    /// The models.
    pub shelf: Vec<Shelved>,
    /// Whether they have been looked for.
    pub has_looked: bool,
    /// How far each pull is.
    pub pulls: BTreeMap<String, Option<PullProgress>>,
    /// What models would take.
    pub weighed: Vec<(Source, Result<Box<Estimate>>)>,
    /// A model on its way.
    pub loading: Option<Loading>,
    /// The model that is there.
    pub loaded: Option<Loaded>,
    /// The devices of the system.
    pub devices: Vec<DeviceInfo>,
    /// The device that draws the window.
    pub drawing: Option<Drawing>,
    /// Figures to look at.
    pub meters: Meters,
    /// What should be read, the oldest first.
    pub notices: Vec<Notice>,
    orders: Vec<Command>,
    /// Since when settings are to be kept.
    unkept: Option<Instant>,
}

/// How often what there is of an answer is kept.
const KEEP: Duration = Duration::from_secs(1);

impl State {
    /// What was kept, and nothing loaded.
    pub fn new(settings: Settings, conversations: Vec<Conversation>, drawing: Option<Drawing>) -> Self {
        let open = conversations.first().map(|conversation| conversation.id.clone());
        let budget = settings.keep_frames.then_some(settings.budget_ms);
        let orders = vec![Command::Pace(budget), Command::FindModels(settings.opened.clone())];
        Self { settings, conversations, open, drawing, orders, ..Self::default() }
    }

    /// Wants something of the worker.
    pub fn order(&mut self, command: Command) {
        self.orders.push(command);
    }

    /// What is wanted of the worker since the last time.
    pub fn orders(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.orders)
    }

    /// The conversation that is shown.
    pub fn conversation(&self) -> Option<&Conversation> {
        let open = self.open.as_ref()?;
        self.conversations.iter().find(|conversation| conversation.id == *open)
    }

    /// See [`Self::conversation`].
    pub fn conversation_mut(&mut self) -> Option<&mut Conversation> {
        let open = self.open.as_ref()?;
        self.conversations.iter_mut().find(|conversation| conversation.id == *open)
    }

    /// Whether what is written can be said now; where not, why.
    pub fn can_send(&self) -> Result<(), &'static str> {
        match () {
            () if self.loaded.is_none() => Err("Load a model first"),
            () if self.answering.is_some() => Err("An answer is under way"),
            () if self.draft.trim().is_empty() => Err("Write something first"),
            () => Ok(()),
        }
    }

    /// Does what a person wants.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::New => self.begin(),
            Action::Open(id) => (self.open, self.edit) = (Some(id), None),
            Action::Delete(id) => self.delete(&id),
            Action::Send => self.send(),
            Action::Stop => self.stop(),
            Action::Retry(node) => self.branch(|conversation| conversation.retry(node)),
            Action::Edit(node) => {
                let text = self.conversation().and_then(|conversation| conversation.nodes.get(node));
                self.edit = text.map(|message| (node, message.text.clone()));
            }
            Action::SendEdit => {
                let can = self.loaded.is_some() && self.answering.is_none();
                if let Some((node, text)) = self.edit.take_if(|(_, text)| can && !text.trim().is_empty()) {
                    self.branch(|conversation| conversation.edit(node, text.trim()));
                }
            }
            Action::LeaveEdit => self.edit = None,
            Action::GoOn(node) => self.go_on(node),
            Action::Choose(node) => {
                if let Some(conversation) = self.conversation_mut().filter(|talk| node < talk.nodes.len()) {
                    conversation.choose(node);
                    self.edit = None;
                    self.keep_open();
                }
            }
            Action::FindModels => self.orders.push(Command::FindModels(self.settings.opened.clone())),
            Action::Pull(name) => {
                self.pulls.insert(name.clone(), None);
                self.orders.push(Command::Pull(name));
            }
            Action::StopPull(name) => self.orders.push(Command::StopPull(name)),
            Action::Weigh(path) => self.orders.push(Command::Weigh(self.source(path))),
            Action::Load(path) => self.load(path),
            Action::Unload => self.orders.push(Command::Unload),
            Action::Compute(place) => {
                self.settings.place = place;
                self.weighed.clear();
                self.act(Action::Chosen);
                if let Some(path) = self.loaded.as_ref().map(|loaded| loaded.info.path.clone()) {
                    self.load(path);
                }
            }
            Action::Lose => self.orders.push(Command::Lose),
            Action::ResetSampling => {
                let known = self.loaded.as_ref().and_then(|loaded| loaded.known.clone());
                self.settings.asked.reset(known.as_deref());
                self.act(Action::Chosen);
            }
            Action::Dismiss(at) => {
                if at < self.notices.len() {
                    self.notices.remove(at);
                }
            }
            Action::Chosen => {
                let budget = self.settings.keep_frames.then_some(self.settings.budget_ms);
                self.orders.push(Command::Pace(budget));
                self.unkept = Some(Instant::now());
            }
            Action::Instruct(system) => {
                self.settings.asked.system.clone_from(&system);
                if let Some(conversation) = self.conversation_mut() {
                    conversation.system = system;
                }
                self.unkept = Some(Instant::now());
            }
        }
    }

    /// Keeps what was chosen, once nothing was for a moment: how long until then.
    pub fn settle(&mut self) -> Option<Duration> {
        let since = self.unkept?;
        if let Some(wait) = KEEP.checked_sub(since.elapsed()) {
            return Some(wait);
        }
        self.unkept = None;
        self.orders.push(Command::KeepSettings(Box::new(self.settings.clone())));
        if self.conversation().is_some_and(|conversation| !conversation.nodes.is_empty()) {
            self.keep_open();
        }
        None
    }

    /// Hears what the worker tells.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Devices(devices) => self.devices = devices,
            News::Models(shelf) => (self.shelf, self.has_looked) = (shelf, true),
            News::Pulling(name, progress) => {
                self.pulls.insert(name, Some(progress));
            }
            News::Pulled(name, outcome) => {
                self.pulls.remove(&name);
                match outcome {
                    Ok(_) => self.tell(format!("{name} is here now")),
                    Err(error) => self.fail(&error),
                }
                self.act(Action::FindModels);
            }
            News::Weighed(source, estimate) => {
                self.weighed.retain(|(other, _)| *other != source);
                self.weighed.push((source, estimate));
            }
            News::Loading(progress) => {
                if let Some(loading) = &mut self.loading {
                    loading.progress = Some(progress);
                }
            }
            News::Loaded(loaded) => {
                self.loading = None;
                self.meters = Meters::default();
                self.loaded = Some(*loaded);
            }
            News::NotLoaded(error) => {
                self.loading = None;
                self.fail(&error);
            }
            News::Unloaded => (self.loaded, self.loading) = (None, None),
            News::Said(conversation, node, said) => self.hear_answer(&conversation, node, said),
            News::Measured(measured) => self.meters.hear(measured),
            News::Failed(error) => self.fail(&error),
        }
    }

    /// What the model at `path` would take with the present choices, where that is known.
    pub fn estimate(&self, path: &Path) -> Option<&Result<Box<Estimate>>> {
        let source = self.source(path.to_owned());
        self.weighed.iter().find(|(weighed, _)| *weighed == source).map(|(_, estimate)| estimate)
    }

    fn source(&self, path: PathBuf) -> Source {
        Source { path, place: self.settings.place.clone(), load: self.settings.load.clone() }
    }

    fn begin(&mut self) {
        // An empty one is there already.
        if let Some(empty) = self.conversations.iter().find(|conversation| conversation.nodes.is_empty()) {
            self.open = Some(empty.id.clone());
            return;
        }
        let id = self.fresh_id();
        let conversation = Conversation::new(id.clone(), self.settings.asked.system.clone());
        self.conversations.insert(0, conversation);
        (self.open, self.edit) = (Some(id), None);
    }

    /// Milliseconds since 1970, and no other's.
    fn fresh_id(&self) -> String {
        let mut number = since_1970().as_millis();
        while self.conversations.iter().any(|conversation| conversation.id == number.to_string()) {
            number += 1;
        }
        number.to_string()
    }

    fn delete(&mut self, id: &str) {
        if self.answering.as_ref().is_some_and(|answering| answering.conversation == id) {
            self.stop();
            self.answering = None;
        }
        self.conversations.retain(|conversation| conversation.id != id);
        if self.open.as_deref() == Some(id) {
            self.open = self.conversations.first().map(|conversation| conversation.id.clone());
            self.edit = None;
        }
        self.orders.push(Command::Delete(id.to_owned()));
    }

    fn send(&mut self) {
        if self.can_send().is_err() {
            return;
        }
        if self.conversation().is_none() {
            self.begin();
        }
        let text = std::mem::take(&mut self.draft);
        self.branch(|conversation| conversation.say(text.trim()));
    }

    /// Asks for the answer that `grow` makes room for.
    fn branch(&mut self, grow: impl FnOnce(&mut Conversation) -> usize) {
        if self.loaded.is_none() || self.answering.is_some() {
            return;
        }
        let Some(conversation) = self.conversation_mut() else { return };
        let node = grow(conversation);
        self.edit = None;
        self.ask(node, Command::Answer);
    }

    fn go_on(&mut self, node: usize) {
        if self.loaded.is_none() || self.answering.is_some() {
            return;
        }
        if let Some(message) =
            self.conversation_mut().and_then(|conversation| conversation.nodes.get_mut(node))
        {
            message.end = End::Writing;
            self.ask(node, Command::Proceed);
        }
    }

    fn ask(&mut self, node: usize, command: impl FnOnce(Box<Request>) -> Command) {
        let asked = self.settings.asked.clone();
        let Some(conversation) = self.conversation_mut() else { return };
        let mut path = conversation.path_to(node);
        path.pop();
        let request = Request {
            conversation: conversation.id.clone(),
            node,
            path,
            system: conversation.system.clone(),
            messages: conversation.messages_before(node),
            asked,
        };
        let (conversation, now) = (request.conversation.clone(), Instant::now());
        self.answering = Some(Answering {
            conversation,
            node,
            begun: now,
            read: None,
            first: None,
            pieces: 0,
            is_stopping: false,
            kept: now,
        });
        self.meters.begin();
        self.keep_open();
        self.orders.push(command(Box::new(request)));
    }

    fn stop(&mut self) {
        if let Some(answering) = &mut self.answering {
            answering.is_stopping = true;
            self.orders.push(Command::Stop);
        } else if let Some(loading) = &mut self.loading {
            loading.is_stopping = true;
            self.orders.push(Command::StopLoading);
        }
    }

    fn load(&mut self, path: PathBuf) {
        let is_known = self.shelf.iter().any(|shelved| shelved.path.as_ref() == Some(&path));
        if !is_known {
            self.settings.opened.retain(|opened| *opened != path);
            self.settings.opened.insert(0, path.clone());
            self.act(Action::Chosen);
            self.act(Action::FindModels);
        }
        self.loaded = None;
        self.loading = Some(Loading { path: path.clone(), progress: None, is_stopping: false });
        self.orders.push(Command::Load(self.source(path)));
    }

    fn hear_answer(&mut self, id: &str, node: usize, said: Said) {
        let now = Instant::now();
        let is_this = |answering: &Answering| answering.conversation == id && answering.node == node;
        let mut answering = self.answering.take_if(|answering| is_this(answering));
        let conversation = self.conversations.iter_mut().find(|conversation| conversation.id == id);
        let Some(message) = conversation.and_then(|conversation| conversation.nodes.get_mut(node)) else {
            return;
        };
        match said {
            Said::Begun => message.text.clear(),
            Said::Read(done, total) => {
                if let Some(answering) = &mut answering {
                    answering.read = Some((done, total));
                }
            }
            Said::Text(text) => {
                message.text.push_str(&text);
                if let Some(answering) = &mut answering {
                    answering.first.get_or_insert(now);
                    answering.pieces += 1;
                }
            }
            Said::Recovered(why, device) => {
                let text = format!("The device was lost, and the answer went on on {device}");
                let (hint, kind) = (Some(why.to_string()), Some(why.kind()));
                self.notices.push(Notice { text, hint, is_error: false, kind });
            }
            Said::Finished(finish, joules) => {
                end(message, &finish);
                self.meters.finish(&finish, joules);
                return self.ended(id);
            }
            Said::Failed(error) => {
                message.end = End::Failed(error.to_string());
                return self.ended(id);
            }
        }
        if let Some(answering) = answering {
            self.meters.follow(&answering, now);
            let is_due = answering.kept.elapsed() >= KEEP;
            let kept = if is_due { now } else { answering.kept };
            self.answering = Some(Answering { kept, ..answering });
            if is_due {
                self.keep(id);
            }
        }
    }

    fn ended(&mut self, id: &str) {
        self.meters.rest();
        self.keep(id);
    }

    fn keep_open(&mut self) {
        if let Some(id) = self.open.clone() {
            self.keep(&id);
        }
    }

    /// Keeps a conversation, which is the latest now.
    fn keep(&mut self, id: &str) {
        let Some(at) = self.conversations.iter().position(|conversation| conversation.id == id) else {
            return;
        };
        let mut conversation = self.conversations.remove(at);
        conversation.changed = since_1970().as_secs();
        self.orders.push(Command::Keep(Box::new(conversation.clone())));
        self.conversations.insert(0, conversation);
    }

    fn tell(&mut self, text: String) {
        self.notices.push(Notice { text, hint: None, is_error: false, kind: None });
    }

    /// What somebody asked for is no failure.
    fn fail(&mut self, error: &Error) {
        if error.kind() == Kind::Cancelled {
            return;
        }
        let hint = error.what_would_work().map(str::to_owned);
        let whole = error.to_string();
        let text = hint.as_ref().and_then(|hint| whole.strip_suffix(&format!("; {hint}"))).unwrap_or(&whole);
        let notice = Notice { text: text.to_owned(), hint, is_error: true, kind: Some(error.kind()) };
        if self.notices.last() != Some(&notice) {
            self.notices.push(notice);
        }
    }
}

fn end(message: &mut crate::conversation::Node, finish: &Finish) {
    let timings = finish.timings;
    message.text.clone_from(&finish.text);
    message.end = match finish.reason {
        FinishReason::Stop | FinishReason::ToolCalls => End::Whole,
        FinishReason::Length => End::Length,
        FinishReason::Cancelled => End::Stopped,
    };
    message.facts = Some(Facts {
        prompt_tokens: timings.prompt_tokens,
        cached_tokens: timings.cached_tokens,
        tokens: timings.generated_tokens,
        first_token: timings.first_token.as_secs_f64(),
        rate: timings.decode_rate(),
    });
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
