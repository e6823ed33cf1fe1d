//! What takes time is done here, in threads of its own: the window asks ([`Command`]) and is told ([`News`]), and never waits.

mod answer;
mod desk;
mod fetch;
mod live;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use pocketlm::models::PullProgress;
use pocketlm::{DeviceInfo, Error, Estimate, Finish, LoadProgress, ModelInfo, Result};

use crate::conversation::{Conversation, Role};
use crate::device::Drawing;
use crate::settings::{Asked, Load, Place, Settings};
use crate::store::Store;

/// What the window asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Look for devices.
    FindDevices,
    /// Look for models: those with a name, those in the cache, and these files.
    FindModels(Vec<PathBuf>),
    /// Fetch a model by name.
    Pull(String),
    /// Stop fetching it.
    StopPull(String),
    /// What a model would take.
    Weigh(Source),
    /// Load a model in place of the one that is there.
    Load(Source),
    /// Stop loading.
    StopLoading,
    /// Give the model's memory back.
    Unload,
    /// Answer.
    Answer(Box<Request>),
    /// Go on with an answer that was under way when the program ended; where that cannot be, answer anew.
    Proceed(Box<Request>),
    /// Stop the answer.
    Stop,
    /// Lose the device, and see what happens.
    Lose,
    /// Leave a frame its time: the milliseconds that it may wait; none takes all.
    Pace(Option<f64>),
    /// Keep a conversation.
    Keep(Box<Conversation>),
    /// Forget a conversation.
    Delete(String),
    /// Keep the settings.
    KeepSettings(Box<Settings>),
}

/// A model file, and how it is to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file or folder.
    pub path: PathBuf,
    /// Where it is to compute.
    pub place: Place,
    /// With what.
    pub load: Load,
}

/// A question, and where its answer belongs.
#[derive(Clone, Debug)]
pub struct Request {
    /// The conversation.
    pub conversation: String,
    /// The node of the answer.
    pub node: usize,
    /// The nodes before it.
    pub path: Vec<usize>,
    /// What the model is told before all else.
    pub system: String,
    /// What was said.
    pub messages: Vec<(Role, String)>,
    /// How to answer.
    pub asked: Asked,
}

/// What the window is told.
#[derive(Debug)]
pub enum News {
    /// The devices of the system.
    Devices(Vec<DeviceInfo>),
    /// The models.
    Models(Vec<Shelved>),
    /// How far a pull is.
    Pulling(String, PullProgress),
    /// How a pull ended.
    Pulled(String, Result<PathBuf>),
    /// What a model would take.
    Weighed(Source, Result<Box<Estimate>>),
    /// How far a load is.
    Loading(LoadProgress),
    /// A model is there.
    Loaded(Box<Loaded>),
    /// It is not.
    NotLoaded(Error),
    /// The model is gone, as was asked for.
    Unloaded,
    /// Of the answer at a node of a conversation.
    Said(String, usize, Said),
    /// How the device fares.
    Measured(Measured),
    /// Something else did not work.
    Failed(Error),
}

/// What is told of an answer.
#[derive(Debug)]
pub enum Said {
    /// It begins, with no text yet.
    Begun,
    /// Tokens of the prompt that have been read, and all.
    Read(u32, u32),
    /// More of it.
    Text(String),
    /// The device was lost: why, and where the answer goes on.
    Recovered(Error, String),
    /// It is whole, with the joules that it took, where they are known.
    Finished(Box<Finish>, Option<f64>),
    /// It will not be.
    Failed(Error),
}

/// A model on the shelf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelved {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Its licence, where that is known.
    pub licence: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Where it is, if it is here.
    pub path: Option<PathBuf>,
    /// Whether it can be pulled by its name.
    pub is_known: bool,
}

/// A model that is there.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is known of it.
    pub info: ModelInfo,
    /// Its name among the known ones.
    pub known: Option<String>,
    /// Why this device.
    pub reason: String,
    /// Whether it is the device that draws the window.
    pub is_shared: bool,
    /// Whether it has a chat template.
    pub can_chat: bool,
}

/// How the device fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// What the slices since the last time took, in milliseconds.
    pub slices: Vec<f32>,
    /// What 95 % of the latest did not exceed, in milliseconds.
    pub p95: f32,
    /// The device that computes now.
    pub device: String,
    /// Why.
    pub reason: String,
    /// Devices that took the place of a lost one.
    pub recoveries: u32,
    /// Bytes that it holds.
    pub held: u64,
}

/// Tells the window that there is news.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who does what takes time.
#[derive(Debug)]
pub struct Worker {
    commands: Option<Sender<desk::Inbox>>,
    news: Receiver<News>,
    desk: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts it. It touches neither network nor device before it is asked to.
    ///
    /// # Errors
    /// `Io` where the system gives no thread.
    pub fn start(store: Store, drawing: Option<Drawing>, wake: Wake) -> Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (teller, news) = mpsc::channel();
        let tell = Tell { news: teller, wake };
        let mut desk = desk::Desk::new(store, drawing, tell, commands.clone());
        let desk = thread::Builder::new().name("desk".into()).spawn(move || desk.work(&inbox))?;
        Ok(Self { commands: Some(commands), news, desk: Some(desk) })
    }

    /// Asks for something.
    pub fn ask(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A desk that is gone has told why in the log; the window goes on without it.
            let _gone = commands.send(desk::Inbox::Command(command));
        }
    }

    /// What is new; never waits.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }

    /// What is new within some time; for tests.
    pub fn wait(&self, patience: Duration) -> Option<News> {
        self.news.recv_timeout(patience).ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            let _gone = commands.send(desk::Inbox::Close);
        }
        if let Some(desk) = self.desk.take() {
            // What panicked there is in the log.
            let _panicked = desk.join();
        }
    }
}

/// Tells the window, and wakes it.
#[derive(Clone)]
struct Tell {
    news: Sender<News>,
    wake: Wake,
}

impl Tell {
    fn tell(&self, news: News) {
        // A window that was closed hears nothing.
        if self.news.send(news).is_ok() {
            (self.wake)();
        }
    }
}
