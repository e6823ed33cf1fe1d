//! Models to test with, and a folder that goes away.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use pocketlm::{Device, Engine, EngineOptions, models};
use pocketlm_desktop::settings::{Asked, Load, Place};
use pocketlm_desktop::store::Store;
use pocketlm_desktop::worker::{Command, Loaded, News, Source, Worker};

/// A model that tells stories, of a megabyte. It has no chat template.
pub(crate) fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/stories260k/stories260K-f32.gguf")
}

/// The real model, SmolLM2-135M-Instruct: `POCKETLM_TEST_MODEL`, else where `pocketlm pull` keeps it.
pub(crate) fn real_model() -> PathBuf {
    let named = env::var_os("POCKETLM_TEST_MODEL").map(PathBuf::from);
    let pulled = || models::by_name(models::DEFAULT).and_then(|known| models::find(known).ok().flatten());
    named.or_else(pulled).expect(
        "the real model is missing; run `pocketlm pull smollm2-135m-instruct`, or name the file in POCKETLM_TEST_MODEL",
    )
}

/// What the window is told of the stories model on the CPU.
pub(crate) fn loaded() -> Loaded {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    let model = engine.load(stories(), &Load::default().options(), |_| Ok(())).expect("the stories load");
    let reason = "you chose the CPU".to_owned();
    Loaded { info: model.info().clone(), known: None, reason, is_shared: false, can_chat: model.can_chat() }
}

/// The likeliest words, and no more than these.
pub(crate) fn greedy(max_tokens: u32) -> Asked {
    Asked { temperature: 0.0, top_p: 1.0, seed: Some(1), max_tokens, ..Asked::default() }
}

/// A worker that nobody draws for.
pub(crate) fn worker(store: &Store) -> Worker {
    Worker::start(store.clone(), None, Arc::new(|| {})).expect("a worker")
}

/// A model on the CPU.
pub(crate) fn load(worker: &Worker, path: PathBuf) -> Box<Loaded> {
    worker.ask(Command::Load(Source { path, place: Place::Cpu, load: Load::default() }));
    until(worker, |news| match news {
        News::Loaded(loaded) => Some(loaded),
        News::NotLoaded(error) => panic!("{error}"),
        _ => None,
    })
}

/// Waits for news.
pub(crate) fn until<T>(worker: &Worker, mut wanted: impl FnMut(News) -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(240) {
        if let Some(found) = worker.wait(Duration::from_secs(1)).and_then(&mut wanted) {
            return found;
        }
    }
    panic!("no such news in four minutes");
}

/// A folder that goes away with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("pocketlm-desktop-{}-{number}", std::process::id()));
        let _absent = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for tests");
        Self(folder)
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.0.clone())
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
