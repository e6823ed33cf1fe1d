//! A loaded model: what is known of it, and its sessions.

use std::sync::Arc;

use crate::error::Result;
use crate::options::{Prompt, Trim};
use crate::session::Session;

/// What is known of a model.
#[derive(Clone, Debug, uniffi::Record)]
pub struct ModelInfo {
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
    /// Whether the file brings a chat template.
    pub can_chat: bool,
    /// Weights, by count.
    pub parameters: u64,
    /// Bytes of the weights in the file.
    pub weight_bytes: u64,
    /// What it was estimated to take of memory.
    pub estimate: Estimate,
    /// From the call to the first possible prompt.
    pub load_seconds: f64,
}

/// How a model has fared on its device.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Health {
    /// The device that computes now.
    pub device: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`.
    pub backend: String,
    /// Whether the numbers come from software pretending to be a GPU.
    pub software: bool,
    /// Why this device.
    pub reason: String,
    /// Devices that took the place of a lost one.
    pub recoveries: u32,
    /// What the device was given at a time, by count.
    pub slices: u64,
    /// How long 95 of 100 of them took at most.
    pub slice_p95_seconds: f64,
}

/// What a model takes of memory, in bytes, and whether that is there.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Estimate {
    /// Whether it can be loaded.
    pub fits: bool,
    /// Where it cannot: why, and what would fit.
    pub why: Option<String>,
    /// The device that it is for.
    pub device: String,
    /// Positions of a session.
    pub context: u32,
    /// The longest context that fits, the other choices as they are.
    pub largest_context: Option<u32>,
    /// Matrices, and the vectors and tables beside them.
    pub weights: u64,
    /// Keys and values of all sessions, full.
    pub kv: u64,
    /// On the device; 0 where that is the CPU.
    pub device_bytes: u64,
    /// On the host.
    pub host_bytes: u64,
    /// Of both, after the load.
    pub total: u64,
    /// Of both, at any moment.
    pub peak: u64,
    /// What this process can have now without pushing others out.
    pub available: Option<u64>,
}

/// Which of a text's positions an embedding is made of.
#[derive(Clone, Copy, Debug, uniffi::Enum)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The last one, which has seen all.
    Last,
    /// The first one, as models with a token for it want it.
    First,
}

/// How likely a continuation is.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Score {
    /// The natural logarithm of the probability of all of it.
    pub total: f64,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The natural logarithm of the probability of each, after the prompt and those before it.
    pub log_probabilities: Vec<f64>,
    /// Whether the model would say exactly this by itself.
    pub is_greedy: bool,
}

/// A model on a device, for as many sessions as one likes.
#[derive(Debug, uniffi::Object)]
pub struct Model {
    pub(crate) model: pocketlm::Model,
}

impl Model {
    pub(crate) fn new(model: pocketlm::Model) -> Arc<Self> {
        Arc::new(Self { model })
    }
}

#[uniffi::export]
impl Model {
    /// What is known of it.
    pub fn info(&self) -> ModelInfo {
        let info = self.model.info();
        ModelInfo {
            name: info.name.clone(),
            arch: info.arch.clone(),
            vocab: info.vocab,
            context: info.context,
            trained_context: info.trained_context,
            can_chat: self.model.can_chat(),
            parameters: info.parameters,
            weight_bytes: info.weight_bytes,
            estimate: info.estimate.clone().into(),
            load_seconds: info.load_time.as_secs_f64(),
        }
    }

    /// How it has fared.
    pub fn health(&self) -> Health {
        let health = self.model.health();
        Health {
            device: health.device.name,
            backend: health.device.backend.to_owned(),
            software: health.device.software,
            reason: health.reason,
            recoveries: health.recoveries,
            slices: health.slices.count,
            slice_p95_seconds: health.slices.quantile(0.95).as_secs_f64(),
        }
    }

    /// A new session without a history.
    pub fn session(&self) -> Arc<Session> {
        Session::new(self.model.session())
    }

    /// The session that `Session.save` wrote to a file, on whatever device it was.
    pub fn restore(&self, path: String) -> Result<Arc<Session>> {
        Ok(Session::new(self.model.restore(path)?))
    }

    /// The session that `Session.to_bytes` gave.
    pub fn restore_bytes(&self, bytes: Vec<u8>) -> Result<Arc<Session>> {
        Ok(Session::new(self.model.restore_bytes(bytes)?))
    }

    /// The tokens of a prompt as a session would compute them.
    pub fn tokens(&self, prompt: Prompt) -> Result<Vec<u32>> {
        Ok(self.model.tokens(&prompt.meant()?)?)
    }

    /// The embedding of a prompt, of length 1.
    pub fn embed(&self, prompt: Prompt, pooling: Pooling) -> Result<Vec<f32>> {
        let pooling = match pooling {
            Pooling::Mean => pocketlm::Pooling::Mean,
            Pooling::Last => pocketlm::Pooling::Last,
            Pooling::First => pocketlm::Pooling::First,
        };
        Ok(self.model.embed(&prompt.meant()?, pooling)?)
    }

    /// How likely `continuation` is after a prompt.
    pub fn score(&self, prompt: Prompt, continuation: String) -> Result<Score> {
        let score = self.model.score(&prompt.meant()?, &continuation)?;
        let total = score.total();
        let pocketlm::Score { tokens, log_probabilities, is_greedy, .. } = score;
        Ok(Score { total, tokens, log_probabilities, is_greedy })
    }

    /// Gives memory back while the model stays loaded; how many bytes.
    pub fn trim(&self, level: Trim) -> Result<u64> {
        let level = match level {
            Trim::Idle => pocketlm::Trim::Idle,
            Trim::Critical => pocketlm::Trim::Critical,
        };
        Ok(self.model.trim(level)?.bytes)
    }

    /// Gives each adapter its weight, in the order in which they were loaded; 0 takes one out.
    pub fn weigh_adapters(&self, weights: Vec<f32>) -> Result<()> {
        Ok(self.model.weigh_adapters(&weights)?)
    }
}

impl From<pocketlm::Estimate> for Estimate {
    fn from(estimate: pocketlm::Estimate) -> Self {
        Self {
            fits: estimate.fits(),
            why: estimate.check().err().map(|error| error.to_string()),
            context: estimate.context,
            largest_context: estimate.largest_context,
            weights: estimate.weights,
            kv: estimate.kv,
            device_bytes: estimate.device_bytes(),
            host_bytes: estimate.host_bytes(),
            total: estimate.total(),
            peak: estimate.peak(),
            available: estimate.budget.available,
            device: estimate.device,
        }
    }
}
