//! What a caller may choose. Plain data; everything has a default that works.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::fault::Faults;
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::SharedDevice;
use crate::error::{Error, Result};
use crate::format::Manifest;
use crate::kernel::{KernelId, KvType};
use crate::sample::{
    Chain, Dry, Filter, FrequencyPenalty, LogitBias, MinP, Mirostat, PresencePenalty, RepeatPenalty,
    Temperature, TopK, TopP, Typical, Xtc,
};
use crate::text::{Constraint, Tool, ToolChoice};

use super::draft::Draft;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A real GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// A GPU, software Vulkan included.
    Gpu,
    /// The CPU.
    Cpu,
    /// The GPU at this place of [`crate::devices`].
    Index(usize),
}

/// How much of a GPU may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// All that it allows.
    #[default]
    Device,
    /// What every WebGPU device has and no more: bindings of 128 MiB, buffers of 256 MiB, 8 of them for a shader, 16 KiB of
    /// workgroup memory, 256 invocations; no f16, no subgroups, no timestamps.
    Floor,
    /// Buffers of at most so many bytes.
    Buffer(u64),
}

/// What an engine is made with.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where to compute.
    pub device: Device,
    /// The host's own device, in place of one that is opened for `device`.
    #[cfg(feature = "wgpu")]
    pub shared: Option<SharedDevice>,
    /// Threads of the CPU backend; `None` takes as many as there are processors.
    pub threads: Option<usize>,
    /// On the CPU: no instructions but those that every processor has, for tests and for doubt.
    pub portable: bool,
    /// f32 activations and f32 keys and values everywhere: slower, and the same tokens on every device.
    pub exact: bool,
    /// Round the input of every matrix to 8 bits, token by token, as the runtimes do that models such as Meta's quantized
    /// Llama 3.2 were made for: their numbers, not faster ones.
    pub int8_activations: bool,
    /// On a GPU: how much of it may be used. Matrices are cut to it.
    pub limits: Limits,
    /// On a GPU: run-time checks of the shaders on, as tests want it.
    pub checked: bool,
    /// On a GPU: a folder to keep what was found out about it. With it, the first load of a model takes up to two seconds
    /// longer to find the fastest form of the kernels that matter, and later ones read it there; without it, the
    /// usual forms are taken. That the numbers are right is checked in any case before they are used, with a folder once
    /// for each driver.
    pub tuning: Option<PathBuf>,
    /// On a GPU: no kernel is compared with its twin before it is used. For tests.
    #[doc(hidden)]
    pub trusted: bool,
    /// On a GPU: variants of kernels that compute half of what they should. For tests.
    #[doc(hidden)]
    pub wrong: Vec<(KernelId, &'static str)>,
    /// Stays on the device: one that is lost and does not come back ends what computes on it with an error, where otherwise
    /// the CPU goes on.
    pub pinned: bool,
    /// A device that has not answered for so long is lost; `None` waits a minute, ten for one in software.
    pub patience: Option<Duration>,
    /// What is to go wrong, for tests.
    #[doc(hidden)]
    pub faults: Option<Arc<Faults>>,
}

/// A LoRA adapter beside a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// A folder of PEFT, the weights in it, or a GGUF file.
    pub path: PathBuf,
    /// What it counts, 1 as it was trained; [`super::Model::weigh_adapters`] changes it.
    pub weight: f32,
}

/// What a model is loaded with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions of a session; `None` takes what the model was trained for, at most 4096.
    pub context: Option<u32>,
    /// Sessions that keep their keys and values at the same time. More sessions can be open: one that is idle
    /// gives its place and computes again when it goes on.
    pub sessions: u32,
    /// The most tokens of a prompt that are computed at once.
    pub prefill: u32,
    /// The most rows of logits that are computed at once.
    pub outputs: u32,
    /// How keys and values are stored; `None` takes f16, and f32 where the engine is exact. Fewer bits take less memory and
    /// lose some of the numbers: `docs/kv.md` has the figures.
    pub kv_type: Option<KvType>,
    /// Places for sessions whose keys and values are stored otherwise, how many of each type, beside [`Self::sessions`]:
    /// [`super::Session::set_kv_type`] takes a session there. Sessions of one type compute together; those of different types take turns.
    pub more_sessions: Vec<(KvType, u32)>,
    /// Whether heads are turned where they are stored in blocks; `None` turns them. To measure what it is worth.
    #[doc(hidden)]
    pub kv_turned: Option<bool>,
    /// What is added to the model: all at the same time, each by its weight.
    pub adapters: Vec<Adapter>,
    /// The most bytes of memory that the model may take, of the host and of the device together, at any moment of the load
    /// and after it. A model that takes more is refused before its weights are read. `None` refuses only what is more than
    /// the whole machine has.
    pub memory: Option<u64>,
    /// What every file that is read must hold, adapters included. A chunk that is not so stops the load, before the first
    /// token, and so does a file that the manifest does not know.
    pub verify: Option<Manifest>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            context: None,
            sessions: 2,
            prefill: 256,
            outputs: 4,
            kv_type: None,
            more_sessions: Vec::new(),
            kv_turned: None,
            adapters: Vec::new(),
            memory: None,
            verify: None,
        }
    }
}

/// What is kept of a session beside its history and its conversation.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// Keys and values of the history, by whole pages of 32 tokens. Large (two numbers for each element of a key, of
    /// each block, of each token), and only for the next start to be quick: without them the history is computed again.
    pub kv: bool,
}

/// How the next token is chosen. A field that is `None` is taken from the model's own generation config, if it has
/// one; see [`Sampling::chain`] for what is left unsaid then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Keeps the k likeliest; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keeps the likeliest that together reach this probability; 1 keeps all.
    pub top_p: Option<f32>,
    /// Keeps those with at least this share of the likeliest's probability; 0 keeps all.
    pub min_p: Option<f32>,
    /// Divides the logits of recent tokens; 1 changes nothing.
    pub repeat_penalty: Option<f32>,
    /// How many recent tokens the penalties look at, those of the prompt included.
    pub repeat_last: Option<usize>,
    /// Is taken from the logit of a recent token each time that it is there; 0 changes nothing.
    pub frequency_penalty: Option<f32>,
    /// Is taken from the logits of recent tokens once; 0 changes nothing.
    pub presence_penalty: Option<f32>,
    /// Keeps those that are as surprising as the text on average, up to this probability; 1 keeps all.
    pub typical_p: Option<f32>,
    /// Tokens and what is added to their logits; −∞ bars one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes what goes on with a repetition less likely. Without breakers of its own, a repetition ends at the tokens with
    /// an end of line, a colon, a quotation mark or an asterisk.
    pub dry: Option<Dry>,
    /// Sometimes takes the likeliest out.
    pub xtc: Option<Xtc>,
    /// Keeps the text as surprising as is wished, in place of top-k, typical, top-p, min-p and XTC.
    pub mirostat: Option<Mirostat>,
    /// The draws are a function of it; `None` takes one that nobody knows.
    pub seed: Option<u64>,
}

impl Sampling {
    /// The fields of `self`, and those of `defaults` where `self` is silent.
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            repeat_penalty: self.repeat_penalty.or(defaults.repeat_penalty),
            repeat_last: self.repeat_last.or(defaults.repeat_last),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            typical_p: self.typical_p.or(defaults.typical_p),
            logit_bias: if self.logit_bias.is_empty() { &defaults.logit_bias } else { &self.logit_bias }
                .clone(),
            dry: self.dry.clone().or_else(|| defaults.dry.clone()),
            xtc: self.xtc.clone().or_else(|| defaults.xtc.clone()),
            mirostat: self.mirostat.clone().or_else(|| defaults.mirostat.clone()),
            seed: self.seed.or(defaults.seed),
        }
    }

    /// The chain: logit bias, repeat, frequency and presence penalty, DRY, top-k, typical, top-p, min-p, XTC, temperature,
    /// pick; or up to DRY the same, then temperature, mirostat, pick. What changes nothing is left out. Where nothing asks
    /// for chance (no temperature, top-k, typical, top-p, min-p, XTC or mirostat) the likeliest token is taken; where
    /// something does, the temperature is 1 unless given, and at 0 the likeliest is taken all the same.
    ///
    /// # Errors
    /// `InvalidArgument` naming the number outside its range.
    pub fn chain(&self) -> Result<Chain> {
        let shares = [self.top_p, self.min_p, self.typical_p];
        let chance = self.top_k.is_some()
            || shares.iter().any(Option::is_some)
            || self.xtc.is_some()
            || self.mirostat.is_some();
        let temperature = self.temperature.unwrap_or(if chance { 1.0 } else { 0.0 });
        let mut filters = self.weights();
        if temperature == 0.0 {
            return Chain::new(filters, true, 0);
        }
        let temperature = (temperature != 1.0).then_some(Filter::Temperature(Temperature { temperature }));
        match &self.mirostat {
            Some(mirostat) => {
                filters.extend(temperature);
                filters.push(Filter::Mirostat(mirostat.clone()));
            }
            None => {
                filters.extend(self.top_k.filter(|&k| k > 0).map(|k| Filter::TopK(TopK { k })));
                filters.extend(self.typical_p.filter(|&p| p != 1.0).map(|p| Filter::Typical(Typical { p })));
                filters.extend(self.top_p.filter(|&p| p != 1.0).map(|p| Filter::TopP(TopP { p })));
                filters.extend(self.min_p.filter(|&p| p != 0.0).map(|p| Filter::MinP(MinP { p })));
                filters.extend(self.xtc.clone().filter(|xtc| xtc.probability != 0.0).map(Filter::Xtc));
                filters.extend(temperature);
            }
        }
        Chain::new(filters, false, self.seed.unwrap_or_else(unknown_seed))
    }

    /// The filters that change logits by what was said, or by what they stand for.
    fn weights(&self) -> Vec<Filter> {
        let last = self.repeat_last.unwrap_or(64);
        let other = |penalty: Option<f32>, idle: f32| penalty.filter(|&penalty| penalty != idle);
        let bias = || Filter::LogitBias(LogitBias { biases: self.logit_bias.clone() });
        let repeat = |penalty| Filter::RepeatPenalty(RepeatPenalty { penalty, last });
        let frequency = |penalty| Filter::FrequencyPenalty(FrequencyPenalty { penalty, last });
        let presence = |penalty| Filter::PresencePenalty(PresencePenalty { penalty, last });
        let dry = self.dry.clone().filter(|dry| dry.multiplier != 0.0).map(Filter::Dry);
        let filters = [
            (!self.logit_bias.is_empty()).then(bias),
            other(self.repeat_penalty, 1.0).map(repeat),
            other(self.frequency_penalty, 0.0).map(frequency),
            other(self.presence_penalty, 0.0).map(presence),
            dry,
        ];
        filters.into_iter().flatten().collect()
    }
}

/// The most of the likeliest tokens that are told.
const MOST_LIKELIEST: u32 = 100;

/// What an answer is generated with.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// The most tokens of the answer; `None` stops only at the end of the context.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Goes on past the model's own end-of-answer tokens.
    pub ignore_end: bool,
    /// What the text must be: it is, or the reason is [`super::FinishReason::Length`].
    pub constraint: Option<Constraint>,
    /// Where the next tokens are guessed, to check several at once: the same answer, perhaps sooner. Guesses are at most one fewer
    /// than [`LoadOptions::outputs`], are made while nobody else generates, and left off while they do not pay.
    pub draft: Option<Draft>,
    /// Tells how likely each token was, and so many of the likeliest beside it ([`super::Event::Chosen`]). The host sees all logits
    /// then, which on a GPU costs time.
    pub log_probabilities: Option<u32>,
    /// What the model may call. It is told of it where the prompt is a conversation.
    pub tools: Vec<Tool>,
    /// Whether it may, or has to.
    pub tool_choice: ToolChoice,
}

impl GenerateOptions {
    /// The tools that the model is told of.
    pub(super) fn told_tools(&self) -> &[Tool] {
        if self.tool_choice == ToolChoice::None { &[] } else { &self.tools }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.max_tokens == Some(0) {
            return Err(Error::invalid("an answer of 0 tokens was asked for").hint("ask for at least 1"));
        }
        self.tools.iter().try_for_each(Tool::check)?;
        let is_missing = match &self.tool_choice {
            ToolChoice::Auto | ToolChoice::None => false,
            ToolChoice::Required => self.tools.is_empty(),
            ToolChoice::Named(name) => self.tools.iter().all(|tool| tool.name != *name),
        };
        if is_missing {
            return Err(
                Error::invalid("a tool has to be called that is not there").hint("give it in `tools`")
            );
        }
        if self.constraint.is_some()
            && matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
        {
            return Err(Error::invalid("a call that has to be made and a constraint exclude each other")
                .hint("take one of them"));
        }
        if let Some(count) = self.log_probabilities.filter(|&count| count > MOST_LIKELIEST) {
            return Err(Error::invalid(format!("{count} of the likeliest tokens were asked for"))
                .hint(format!("{MOST_LIKELIEST} are the most that works")));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::invalid("an empty stop string would stop every answer"));
        }
        Ok(())
    }
}

fn unknown_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("seed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_greedy_and_a_filter_asks_for_chance() {
        assert_eq!(Sampling::default().chain().unwrap().to_string(), "greedy");
        let top_k = Sampling { top_k: Some(40), seed: Some(7), ..Sampling::default() };
        assert_eq!(top_k.chain().unwrap().to_string(), "top-k 40 → seed 7");
        let cold = Sampling { temperature: Some(0.0), ..top_k };
        assert_eq!(cold.chain().unwrap().to_string(), "greedy");
    }

    #[test]
    fn filters_stand_in_their_order() {
        let all = Sampling {
            temperature: Some(0.7),
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.05),
            repeat_penalty: Some(1.1),
            repeat_last: Some(32),
            frequency_penalty: Some(0.2),
            presence_penalty: Some(0.1),
            typical_p: Some(0.8),
            logit_bias: vec![(5, 1.5)],
            dry: Some(Dry { multiplier: 0.8, ..Dry::default() }),
            xtc: Some(Xtc { probability: 0.5, ..Xtc::default() }),
            mirostat: None,
            seed: Some(1),
        };
        let weights = "logit-bias 5=1.5 → repeat-penalty 1.1 over 32 → frequency-penalty 0.2 over 32 → presence-penalty 0.1 over 32 → dry 0.8 · 1.75^(n − 2) over 1024";
        let said = all.chain().unwrap().to_string();
        assert_eq!(
            said,
            format!(
                "{weights} → top-k 40 → typical-p 0.8 → top-p 0.9 → min-p 0.05 → xtc 0.5 from 0.1 → temperature 0.7 → seed 1"
            )
        );
        assert_eq!(Sampling::default().or(&all), all);
        let mirostat = Sampling { mirostat: Some(Mirostat::default()), ..all.clone() };
        let said = mirostat.chain().unwrap().to_string();
        assert_eq!(said, format!("{weights} → temperature 0.7 → mirostat 5 by 0.1 → seed 1"));
        let cold = Sampling { temperature: Some(0.0), ..all };
        assert_eq!(cold.chain().unwrap().to_string(), format!("{weights} → greedy"));
    }

    #[test]
    fn the_caller_overrules_the_model() {
        let model = Sampling { temperature: Some(0.2), top_p: Some(0.9), ..Sampling::default() };
        let caller = Sampling { temperature: Some(0.7), seed: Some(1), ..Sampling::default() };
        assert_eq!(caller.or(&model).chain().unwrap().to_string(), "top-p 0.9 → temperature 0.7 → seed 1");
    }
}
