//! The engine: a choice of device, and loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pocketlm::{Error, Kind, LoadProgress, Suspend};

use crate::error::{ListenerError, PocketlmError, Result, invalid};
use crate::model::{Estimate, Model};
use crate::options::{EngineOptions, LoadOptions, Pace};
use crate::wait::off;

/// A stage of a load, in order.
#[derive(Clone, Copy, Debug, uniffi::Enum)]
pub enum LoadStage {
    /// Reading names, shapes and settings.
    Reading,
    /// Starting the device.
    Opening,
    /// Moving weights to the device.
    Uploading,
    /// Making what is left of the device's programs.
    Compiling,
    /// Waiting for what is not yet held against the manifest.
    Verifying,
}

/// Hears how far a load is, in a thread of the library's.
#[uniffi::export(with_foreign)]
pub trait LoadListener: Send + Sync {
    /// So much of a stage is done, 0 to 1. `false` stops the load, and so does what is thrown.
    fn on_progress(&self, stage: LoadStage, fraction: f32) -> std::result::Result<bool, ListenerError>;
}

/// Stops a load from any thread, for languages whose tasks do not do so themselves.
#[derive(Debug, Default, uniffi::Object)]
pub struct Cancellation {
    is_cancelled: AtomicBool,
}

#[uniffi::export]
impl Cancellation {
    /// One that has not been used.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Stops what it was given to.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

/// A choice of device, and the models loaded on it.
#[derive(Debug, uniffi::Object)]
pub struct Engine {
    engine: pocketlm::Engine,
}

#[uniffi::export]
impl Engine {
    /// An engine with these options. Touches no device before a model is loaded.
    #[uniffi::constructor]
    pub fn new(options: EngineOptions) -> Arc<Self> {
        Arc::new(Self { engine: pocketlm::Engine::new(options.meant()) })
    }

    /// Loads a model from a file or a folder. Who no longer awaits it stops it, and so does `cancellation`.
    #[uniffi::method(default(listener = None, cancellation = None))]
    pub async fn load(
        &self,
        path: String,
        options: LoadOptions,
        listener: Option<Arc<dyn LoadListener>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Model>> {
        /// Cancels what is no longer awaited.
        struct Awaited(Arc<Cancellation>);
        impl Drop for Awaited {
            fn drop(&mut self) {
                self.0.cancel();
            }
        }
        let engine = self.engine.clone();
        let awaited = Awaited(Arc::default());
        let cancellations = [Some(awaited.0.clone()), cancellation];
        off(move || load(&engine, &path, options, listener, cancellations)).await
    }

    /// As `load`; the calling thread waits.
    #[uniffi::method(default(listener = None, cancellation = None))]
    pub fn load_and_wait(
        &self,
        path: String,
        options: LoadOptions,
        listener: Option<Arc<dyn LoadListener>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Model>> {
        load(&self.engine, &path, options, listener, [cancellation, None])
    }

    /// What a model would take of memory with these options, whether that is there, and what would fit where it is not.
    pub fn estimate(&self, path: String, options: LoadOptions) -> Result<Estimate> {
        Ok(self.engine.estimate(path, &options.meant()?)?.into())
    }

    /// Shares the device from now on as `pace` says.
    pub fn set_pace(&self, pace: Pace) -> Result<()> {
        self.engine.set_pace(match pace {
            Pace::Full => pocketlm::Pace::Full,
            Pace::Background => pocketlm::Pace::Background,
            Pace::Frame { milliseconds } if (0.1..=1e4).contains(&milliseconds) => {
                pocketlm::Pace::Frame(Duration::from_secs_f64(milliseconds / 1e3))
            }
            Pace::Frame { milliseconds } => {
                return Err(invalid(&format!("a frame of {milliseconds} ms is none")));
            }
        });
        Ok(())
    }

    /// Generates no more than so many tokens a second for each answer; nothing as many as it can.
    pub fn sustain(&self, tokens_per_second: Option<f64>) -> Result<()> {
        Ok(self.engine.sustain(tokens_per_second)?)
    }

    /// Stops submitting, as an app that goes to the background must. Answers wait until `resume`. Returns after `within_ms` at
    /// the latest, whether all stands still by then. `release` gives the memory of the device back.
    #[uniffi::method(default(within_ms = 50, release = false))]
    pub fn suspend(&self, within_ms: u32, release: bool) -> bool {
        self.engine.suspend(Suspend { within: Duration::from_millis(within_ms.into()), release })
    }

    /// Goes on after `suspend`.
    pub fn resume(&self) {
        self.engine.resume();
    }
}

/// The version of the library.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn load(
    engine: &pocketlm::Engine,
    path: &str,
    options: LoadOptions,
    listener: Option<Arc<dyn LoadListener>>,
    cancellations: [Option<Arc<Cancellation>>; 2],
) -> Result<Arc<Model>> {
    let stopped = || Error::new(Kind::Cancelled, "the caller stopped the load");
    let mut thrown = None;
    let progress = |LoadProgress { stage, fraction }| {
        if cancellations
            .iter()
            .flatten()
            .any(|cancellation| cancellation.is_cancelled.load(Ordering::Relaxed))
        {
            return Err(stopped());
        }
        let Some(listener) = &listener else { return Ok(()) };
        let stage = match stage {
            pocketlm::LoadStage::Reading => LoadStage::Reading,
            pocketlm::LoadStage::Opening => LoadStage::Opening,
            pocketlm::LoadStage::Uploading => LoadStage::Uploading,
            pocketlm::LoadStage::Compiling => LoadStage::Compiling,
            pocketlm::LoadStage::Verifying => LoadStage::Verifying,
        };
        match listener.on_progress(stage, fraction) {
            Ok(true) => Ok(()),
            Ok(false) => Err(stopped()),
            Err(error) => {
                thrown = Some(error);
                Err(stopped())
            }
        }
    };
    let loaded = engine.load(path, &options.meant()?, progress);
    let model = loaded.map_err(|error| thrown.map_or_else(|| error.into(), PocketlmError::from))?;
    Ok(Model::new(model))
}
