//! What a caller may choose, as records. What is left out is as in Rust.

use std::sync::Arc;
use std::time::Duration;

use pocketlm::{Draft, Dry, Limits, Manifest, Mirostat, Xtc};
use serde_json::Map;

use crate::error::{Result, invalid};
use crate::message::{self, Message};
use crate::model::Model;
use crate::tools::{Tool, ToolChoice};

/// Where to compute.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Device {
    /// A real GPU where there is one, else the CPU.
    Auto,
    /// A GPU, software Vulkan included.
    Gpu,
    /// The CPU.
    Cpu,
    /// The GPU at this place of those that the system has.
    Index { index: u32 },
}

/// What an engine is made with.
#[derive(Clone, Debug, uniffi::Record)]
pub struct EngineOptions {
    /// Where to compute; nothing is `Auto`.
    #[uniffi(default = None)]
    pub device: Option<Device>,
    /// Threads of the CPU backend; nothing takes as many as there are processors.
    #[uniffi(default = None)]
    pub threads: Option<u32>,
    /// f32 everywhere: slower, and the same tokens on every device.
    #[uniffi(default = false)]
    pub exact: bool,
    /// Stays on the device: one that is lost and does not come back is an error.
    #[uniffi(default = false)]
    pub pinned: bool,
    /// The most bytes of a buffer of a GPU.
    #[uniffi(default = None)]
    pub max_buffer_bytes: Option<u64>,
    /// A device that is silent for so many milliseconds is lost.
    #[uniffi(default = None)]
    pub patience_ms: Option<u64>,
    /// A folder of the app's own to keep what was found out about a GPU.
    #[uniffi(default = None)]
    pub tuning: Option<String>,
}

/// What keys and values are kept in.
#[derive(Clone, Copy, Debug, uniffi::Enum)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Blocks of 8-bit codes: 8.5 bits an element.
    Q8,
    /// Blocks of 4-bit codes: 4.5 bits an element.
    Q4,
}

/// A LoRA adapter beside a model.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Adapter {
    /// A folder of PEFT, the weights in it, or a GGUF file.
    pub path: String,
    /// What it counts, 1 as it was trained.
    #[uniffi(default = 1.0)]
    pub weight: f32,
}

/// What a model is loaded with.
#[derive(Clone, Debug, uniffi::Record)]
pub struct LoadOptions {
    /// Positions of a session; nothing takes what the model was trained for, at most 4096.
    #[uniffi(default = None)]
    pub context: Option<u32>,
    /// Sessions that keep their keys and values at the same time.
    #[uniffi(default = 2)]
    pub sessions: u32,
    /// The most tokens of a prompt that are computed at once.
    #[uniffi(default = 256)]
    pub prefill: u32,
    /// The most bytes of memory that the model may take.
    #[uniffi(default = None)]
    pub memory: Option<u64>,
    /// What is added to the model.
    #[uniffi(default = [])]
    pub adapters: Vec<Adapter>,
    /// The path of a manifest that every file must agree with.
    #[uniffi(default = None)]
    pub manifest: Option<String>,
    /// Minisign's public key, which must have signed the manifest.
    #[uniffi(default = None)]
    pub manifest_key: Option<String>,
    /// What keys and values are kept in; nothing is as is usual on the device.
    #[uniffi(default = None)]
    pub kv_type: Option<KvType>,
    /// Places for sessions whose keys and values are kept in other types; a session is taken there by `set_kv_type`.
    #[uniffi(default = [])]
    pub more_sessions: Vec<Places>,
}

/// Places for sessions whose keys and values are kept in one type.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Places {
    /// The type.
    pub kv_type: KvType,
    /// How many sessions.
    pub sessions: u32,
}

impl From<KvType> for pocketlm::KvType {
    fn from(kv_type: KvType) -> Self {
        match kv_type {
            KvType::F32 => Self::F32,
            KvType::F16 => Self::F16,
            KvType::Q8 => Self::Q8,
            KvType::Q4 => Self::Q4,
        }
    }
}

/// What the text of an answer must be: it is, or the answer ends with `Length`.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Constraint {
    /// JSON that is valid by this schema, which is JSON itself.
    JsonSchema { schema: String },
    /// A JSON object, whatever is in it.
    JsonObject,
    /// All of it matches this regular expression.
    Regex { pattern: String },
    /// One of these texts.
    Choice { choices: Vec<String> },
    /// A `start` of this grammar in Lark's syntax.
    Lark { grammar: String },
    /// A `root` of this grammar in llama.cpp's syntax.
    Gbnf { grammar: String },
}

/// A token, and what is added to its logit.
#[derive(Clone, Debug, uniffi::Record)]
pub struct LogitBias {
    /// The token.
    pub token: u32,
    /// Minus infinity bars it.
    pub bias: f32,
}

/// What an answer is generated with. What is left out is as the model's own settings have it.
#[derive(Clone, Debug, uniffi::Record)]
pub struct GenerateOptions {
    /// The most tokens of the answer; nothing stops only at the end of the context.
    #[uniffi(default = None)]
    pub max_tokens: Option<u32>,
    /// 0 takes the likeliest token.
    #[uniffi(default = None)]
    pub temperature: Option<f32>,
    /// Keeps the k likeliest; 0 keeps all.
    #[uniffi(default = None)]
    pub top_k: Option<u32>,
    /// Keeps the likeliest that together reach this probability.
    #[uniffi(default = None)]
    pub top_p: Option<f32>,
    /// Keeps those with at least this share of the likeliest's probability.
    #[uniffi(default = None)]
    pub min_p: Option<f32>,
    /// Divides the logits of recent tokens; 1 changes nothing.
    #[uniffi(default = None)]
    pub repeat_penalty: Option<f32>,
    /// How many recent tokens the penalty looks at.
    #[uniffi(default = None)]
    pub repeat_last: Option<u32>,
    /// The draws are a function of it.
    #[uniffi(default = None)]
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it.
    #[uniffi(default = [])]
    pub stop: Vec<String>,
    /// Goes on past the model's own end of an answer.
    #[uniffi(default = false)]
    pub ignore_end: bool,
    /// What the text must be.
    #[uniffi(default = None)]
    pub constraint: Option<Constraint>,
    /// Keeps those that are as surprising as the text on average, up to this probability.
    #[uniffi(default = None)]
    pub typical_p: Option<f32>,
    /// Is taken from the logit of a recent token each time that it is there.
    #[uniffi(default = None)]
    pub frequency_penalty: Option<f32>,
    /// Is taken from the logits of recent tokens once.
    #[uniffi(default = None)]
    pub presence_penalty: Option<f32>,
    /// Makes what goes on with a repetition less likely (DRY).
    #[uniffi(default = None)]
    pub dry_multiplier: Option<f32>,
    /// How often the likeliest are taken out (XTC).
    #[uniffi(default = None)]
    pub xtc_probability: Option<f32>,
    /// Keeps the text as surprising as is usual for mirostat, in place of top-k, typical, top-p, min-p and XTC.
    #[uniffi(default = false)]
    pub mirostat: bool,
    /// Tokens and what is added to their logits.
    #[uniffi(default = [])]
    pub logit_bias: Vec<LogitBias>,
    /// Guesses the next tokens by what followed the last time that the latest ones stood in the session, to check several at
    /// once: the same answer, perhaps sooner.
    #[uniffi(default = false)]
    pub lookup: bool,
    /// Guesses the next tokens by a smaller model with the same vocabulary.
    #[uniffi(default = None)]
    pub draft: Option<Arc<Model>>,
    /// What the model is told that it may ask for.
    #[uniffi(default = [])]
    pub tools: Vec<Tool>,
    /// Whether it may, or has to; nothing is `Auto`.
    #[uniffi(default = None)]
    pub tool_choice: Option<ToolChoice>,
}

/// What to continue.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Prompt {
    /// Text as it is, special tokens in it recognised.
    Raw { text: String },
    /// A conversation, to be answered.
    Chat { messages: Vec<Message> },
    /// A conversation as a JSON array of objects, with whatever a template knows.
    Json { messages: String },
    /// Tokens as they are.
    Tokens { tokens: Vec<u32> },
}

/// How an engine shares a device with the app's own work.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Pace {
    /// As fast as it goes.
    Full,
    /// A frame waits no longer for its turn than so many milliseconds; 4 leave an app its 60 frames a second.
    Frame { milliseconds: f64 },
    /// Slices of 2 ms, and as long a rest after each.
    Background,
}

/// How badly an app is in need of memory.
#[derive(Clone, Copy, Debug, uniffi::Enum)]
pub enum Trim {
    /// What nobody waits for goes.
    Idle,
    /// All that can be made again goes; answers under way go on with the same tokens, later.
    Critical,
}

impl EngineOptions {
    pub(crate) fn meant(self) -> pocketlm::EngineOptions {
        let device = match self.device {
            None | Some(Device::Auto) => pocketlm::Device::Auto,
            Some(Device::Gpu) => pocketlm::Device::Gpu,
            Some(Device::Cpu) => pocketlm::Device::Cpu,
            Some(Device::Index { index }) => pocketlm::Device::Index(index as usize),
        };
        pocketlm::EngineOptions {
            device,
            threads: self.threads.map(|threads| threads as usize),
            exact: self.exact,
            pinned: self.pinned,
            limits: self.max_buffer_bytes.map_or(Limits::Device, Limits::Buffer),
            patience: self.patience_ms.map(Duration::from_millis),
            tuning: self.tuning.map(Into::into),
            ..pocketlm::EngineOptions::default()
        }
    }
}

impl LoadOptions {
    pub(crate) fn meant(self) -> Result<pocketlm::LoadOptions> {
        let verify = match (self.manifest, self.manifest_key) {
            (None, None) => None,
            (None, Some(_)) => return Err(invalid("there is a key and no manifest")),
            (Some(path), None) => Some(Manifest::read(path)?),
            (Some(path), Some(key)) => Some(Manifest::read_signed(path, &key)?),
        };
        let adapters = self.adapters.into_iter();
        let adapters = adapters
            .map(|Adapter { path, weight }| pocketlm::Adapter { path: path.into(), weight })
            .collect();
        Ok(pocketlm::LoadOptions {
            context: self.context,
            sessions: self.sessions,
            prefill: self.prefill,
            memory: self.memory,
            kv_type: self.kv_type.map(Into::into),
            more_sessions: self
                .more_sessions
                .into_iter()
                .map(|Places { kv_type, sessions }| (kv_type.into(), sessions))
                .collect(),
            adapters,
            verify,
            ..pocketlm::LoadOptions::default()
        })
    }
}

impl GenerateOptions {
    pub(crate) fn meant(self) -> Result<pocketlm::GenerateOptions> {
        let draft = match (self.draft, self.lookup) {
            (Some(_), true) => {
                return Err(invalid("tokens are guessed by lookup or by a model, not by both"));
            }
            (Some(model), false) => Some(Draft::Model(model.model.clone())),
            (None, lookup) => lookup.then_some(Draft::Lookup),
        };
        Ok(pocketlm::GenerateOptions {
            draft,
            max_tokens: self.max_tokens,
            sampling: pocketlm::Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last: self.repeat_last.map(|last| last as usize),
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                typical_p: self.typical_p,
                logit_bias: self.logit_bias.iter().map(|bias| (bias.token, bias.bias)).collect(),
                dry: self.dry_multiplier.map(|multiplier| Dry { multiplier, ..Dry::default() }),
                xtc: self.xtc_probability.map(|probability| Xtc { probability, ..Xtc::default() }),
                mirostat: self.mirostat.then(Mirostat::default),
                seed: self.seed,
                ..pocketlm::Sampling::default()
            },
            stop: self.stop,
            ignore_end: self.ignore_end,
            constraint: self.constraint.map(Constraint::meant).transpose()?,
            tools: self.tools.into_iter().map(Tool::meant).collect::<Result<_>>()?,
            tool_choice: self.tool_choice.map(ToolChoice::meant).unwrap_or_default(),
            ..pocketlm::GenerateOptions::default()
        })
    }
}

impl Constraint {
    fn meant(self) -> Result<pocketlm::Constraint> {
        Ok(match self {
            Self::JsonSchema { schema } => {
                let schema = serde_json::from_str(&schema);
                let schema = schema.map_err(|error| invalid(&format!("the schema is no JSON: {error}")))?;
                pocketlm::Constraint::JsonSchema(schema)
            }
            Self::JsonObject => pocketlm::Constraint::JsonObject,
            Self::Regex { pattern } => pocketlm::Constraint::Regex(pattern),
            Self::Choice { choices } => pocketlm::Constraint::Choice(choices),
            Self::Lark { grammar } => pocketlm::Constraint::Lark(grammar),
            Self::Gbnf { grammar } => pocketlm::Constraint::Gbnf(grammar),
        })
    }
}

impl Prompt {
    pub(crate) fn meant(self) -> Result<pocketlm::Prompt> {
        Ok(match self {
            Self::Raw { text } => pocketlm::Prompt::Raw(text),
            Self::Tokens { tokens } => pocketlm::Prompt::Tokens(tokens),
            Self::Chat { messages } => pocketlm::Prompt::Chat(message::meant(messages)?),
            Self::Json { messages } => {
                let messages = serde_json::from_str::<Vec<Map<_, _>>>(&messages);
                let messages =
                    messages.map_err(|error| invalid(&format!("the messages are no JSON: {error}")))?;
                pocketlm::Prompt::Chat(messages.into_iter().map(pocketlm::Message).collect())
            }
        })
    }
}
