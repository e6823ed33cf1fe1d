//! Options, as C says them. What is not said is as in Rust.

use std::time::Duration;

use pocketlm::{
    Adapter, Constraint, Device, Draft, Dry, EngineOptions, GenerateOptions, KvType, Limits, LoadOptions,
    Manifest, Mirostat, Sampling, SaveOptions, Xtc,
};

use crate::handles;
use crate::input::{Versioned, list, text};
use crate::model::{ModelObject, plm_model};
use crate::prompt::plm_text;
use crate::status::{Outcome, Refusal};
use crate::tools::plm_tool;

/// Where a number of `plm_generate_options` is as the model's own settings have it.
pub const PLM_UNSET: i32 = -1;

/// Where to compute.
#[repr(u32)]
pub enum plm_device {
    /// A real GPU where there is one, else the CPU.
    PLM_DEVICE_AUTO = 0,
    /// A GPU, software Vulkan included.
    PLM_DEVICE_GPU = 1,
    /// The CPU.
    PLM_DEVICE_CPU = 2,
    /// The GPU at the place `device_index` of those that the system has.
    PLM_DEVICE_INDEX = 3,
}

/// What an engine is made with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_engine_options {
    /// `sizeof(plm_engine_options)`.
    pub struct_size: usize,
    /// A `plm_device`.
    pub device: u32,
    /// See `PLM_DEVICE_INDEX`.
    pub device_index: u32,
    /// Threads of the CPU backend; 0 takes as many as there are processors.
    pub threads: u32,
    /// 1 computes in a thread of the engine's own: streams then wait, and a host without a loop needs no `plm_engine_tick`.
    pub worker: u32,
    /// 1 for f32 everywhere: slower, and the same tokens on every device.
    pub exact: u32,
    /// 1 stays on the device: one that is lost and does not come back is an error.
    pub pinned: u32,
    /// The most bytes of a buffer of a GPU; 0 for what it has.
    pub max_buffer_bytes: u64,
    /// A device that is silent for so many milliseconds is lost; 0 waits as long as is usual.
    pub patience_ms: u64,
    /// A folder of the app's own to keep what was found out about a GPU; empty keeps nothing.
    pub tuning: plm_text,
}

/// What keys and values are kept in.
#[repr(u32)]
pub enum plm_kv_type {
    /// As is usual on the device.
    PLM_KV_AUTO = 0,
    /// 32-bit floats.
    PLM_KV_F32 = 1,
    /// 16-bit floats.
    PLM_KV_F16 = 2,
    /// Blocks of 8-bit codes: 8.5 bits an element.
    PLM_KV_Q8 = 3,
    /// Blocks of 4-bit codes: 4.5 bits an element.
    PLM_KV_Q4 = 4,
}

/// A LoRA adapter beside a model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_adapter {
    /// A folder of PEFT, the weights in it, or a GGUF file.
    pub path: plm_text,
    /// What it counts, 1 as it was trained.
    pub weight: f32,
}

/// What a model is loaded with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_load_options {
    /// `sizeof(plm_load_options)`.
    pub struct_size: usize,
    /// Positions of a session; 0 takes what the model was trained for, at most 4096.
    pub context: u32,
    /// Sessions that keep their keys and values at the same time.
    pub sessions: u32,
    /// The most tokens of a prompt that are computed at once.
    pub prefill: u32,
    /// The most rows of logits that are computed at once.
    pub outputs: u32,
    /// The most bytes of memory that the model may take; 0 for what the machine has.
    pub memory: u64,
    /// What is added to the model.
    pub adapters: *const plm_adapter,
    /// How many.
    pub adapter_count: usize,
    /// The path of a manifest that every file must agree with; empty for none.
    pub manifest: plm_text,
    /// Minisign's public key, which must have signed the manifest; empty believes the manifest as it is.
    pub manifest_key: plm_text,
    /// A `plm_kv_type`.
    pub kv_type: u32,
    /// Places for sessions whose keys and values are kept in other types; `plm_session_set_kv_type` takes a session there.
    pub more_sessions: *const plm_places,
    /// How many types.
    pub more_session_count: usize,
}

/// Places for sessions whose keys and values are kept in one type.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_places {
    /// A `plm_kv_type`, and not `PLM_KV_AUTO`.
    pub kv_type: u32,
    /// How many sessions.
    pub sessions: u32,
}

/// What the text of an answer must be: it is, or the answer ends with `PLM_FINISH_LENGTH`.
#[repr(u32)]
pub enum plm_constraint {
    /// Anything.
    PLM_CONSTRAINT_NONE = 0,
    /// JSON that is valid by the schema `grammar`.
    PLM_CONSTRAINT_JSON_SCHEMA = 1,
    /// A JSON object, whatever is in it.
    PLM_CONSTRAINT_JSON_OBJECT = 2,
    /// All of it matches the regular expression `grammar`.
    PLM_CONSTRAINT_REGEX = 3,
    /// One of `choices`.
    PLM_CONSTRAINT_CHOICE = 4,
    /// A `start` of the grammar `grammar` in Lark's syntax.
    PLM_CONSTRAINT_LARK = 5,
    /// A `root` of the grammar `grammar` in llama.cpp's syntax.
    PLM_CONSTRAINT_GBNF = 6,
}

/// A token, and what is added to its logit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_logit_bias {
    /// The token.
    pub token: u32,
    /// Minus infinity bars it.
    pub bias: f32,
}

/// What an answer is generated with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_generate_options {
    /// `sizeof(plm_generate_options)`.
    pub struct_size: usize,
    /// The most tokens of the answer; 0 stops only at the end of the context.
    pub max_tokens: u32,
    /// 0 takes the likeliest token; `PLM_UNSET`.
    pub temperature: f32,
    /// Keeps the likeliest that together reach this probability; `PLM_UNSET`.
    pub top_p: f32,
    /// Keeps those with at least this share of the likeliest's probability; `PLM_UNSET`.
    pub min_p: f32,
    /// Divides the logits of recent tokens; 1 changes nothing; `PLM_UNSET`.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at; `PLM_UNSET`.
    pub repeat_last: i32,
    /// Keeps the k likeliest; 0 keeps all; `PLM_UNSET`.
    pub top_k: i32,
    /// 1 where `seed` is meant; otherwise nobody knows the seed.
    pub has_seed: u32,
    /// 1 goes on past the model's own end of an answer.
    pub ignore_end: u32,
    /// The draws are a function of it.
    pub seed: u64,
    /// Texts that end the answer and are not part of it.
    pub stop: *const plm_text,
    /// How many.
    pub stop_count: usize,
    /// A `plm_constraint`.
    pub constraint: u32,
    /// 1 keeps the text as surprising as is usual for mirostat, in place of top-k, typical, top-p, min-p and XTC.
    pub mirostat: u32,
    /// See `plm_constraint`.
    pub grammar: plm_text,
    /// See `plm_constraint`.
    pub choices: *const plm_text,
    /// How many.
    pub choice_count: usize,
    /// Keeps those that are as surprising as the text on average, up to this probability; `PLM_UNSET`.
    pub typical_p: f32,
    /// Is taken from the logit of a recent token each time that it is there; 0 is as the model has it.
    pub frequency_penalty: f32,
    /// Is taken from the logits of recent tokens once; 0 is as the model has it.
    pub presence_penalty: f32,
    /// Makes what goes on with a repetition less likely (DRY); 0 is as the model has it.
    pub dry_multiplier: f32,
    /// How often the likeliest are taken out (XTC); 0 is as the model has it.
    pub xtc_probability: f32,
    /// Tokens and what is added to their logits.
    pub logit_bias: *const plm_logit_bias,
    /// How many.
    pub logit_bias_count: usize,
    /// A smaller model with the same vocabulary that guesses the next tokens, to check several at once: the same answer,
    /// perhaps sooner; null for none.
    pub draft: *mut plm_model,
    /// 1 guesses them by what followed the last time that the latest tokens stood in the session.
    pub lookup: u32,
    /// What the model is told that it may ask for.
    pub tools: *const plm_tool,
    /// How many.
    pub tool_count: usize,
    /// See `PLM_TOOL_CHOICE_NAMED`.
    pub tool_name: plm_text,
    /// A `plm_tool_choice`.
    pub tool_choice: u32,
}

/// What is kept of a session beside its history and its conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_save_options {
    /// `sizeof(plm_save_options)`.
    pub struct_size: usize,
    /// 1 keeps keys and values too: large, and the next start is quick.
    pub kv: u32,
}

/// The usual choices.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_options_default() -> plm_engine_options {
    plm_engine_options::usual()
}

/// The usual choices.
#[unsafe(no_mangle)]
pub extern "C" fn plm_load_options_default() -> plm_load_options {
    plm_load_options::usual()
}

/// The usual choices: everything as the model's own settings have it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_generate_options_default() -> plm_generate_options {
    plm_generate_options::usual()
}

/// The usual choices.
#[unsafe(no_mangle)]
pub extern "C" fn plm_save_options_default() -> plm_save_options {
    plm_save_options::usual()
}

impl plm_engine_options {
    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn meant(&self) -> Outcome<EngineOptions> {
        let device = match self.device {
            0 => Device::Auto,
            1 => Device::Gpu,
            2 => Device::Cpu,
            3 => Device::Index(self.device_index as usize),
            device => return Err(Refusal::invalid(&format!("{device} is no plm_device"))),
        };
        // SAFETY: as the caller promised.
        let tuning = unsafe { text(self.tuning, "folder for tuning")? };
        Ok(EngineOptions {
            device,
            threads: (self.threads > 0).then_some(self.threads as usize),
            exact: self.exact != 0,
            pinned: self.pinned != 0,
            limits: if self.max_buffer_bytes > 0 {
                Limits::Buffer(self.max_buffer_bytes)
            } else {
                Limits::Device
            },
            patience: (self.patience_ms > 0).then_some(Duration::from_millis(self.patience_ms)),
            tuning: (!tuning.is_empty()).then(|| tuning.into()),
            ..EngineOptions::default()
        })
    }
}

/// A type that is named.
pub(crate) fn kv_type_of(code: u32) -> Outcome<KvType> {
    match code {
        1 => Ok(KvType::F32),
        2 => Ok(KvType::F16),
        3 => Ok(KvType::Q8),
        4 => Ok(KvType::Q4),
        code => Err(Refusal::invalid(&format!("{code} names no plm_kv_type"))),
    }
}

impl plm_load_options {
    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn meant(&self) -> Outcome<LoadOptions> {
        // SAFETY: as the caller promised, for all of it.
        unsafe {
            let adapter = |adapter: &plm_adapter| {
                Ok(Adapter { path: text(adapter.path, "path of an adapter")?.into(), weight: adapter.weight })
            };
            let adapters = list(self.adapters, self.adapter_count, "adapters")?.iter().map(adapter);
            let manifest = text(self.manifest, "path of the manifest")?;
            let key = text(self.manifest_key, "key of the manifest")?;
            let verify = match (manifest, key) {
                ("", "") => None,
                ("", _) => return Err(Refusal::invalid("there is a key and no manifest")),
                (path, "") => Some(Manifest::read(path)?),
                (path, key) => Some(Manifest::read_signed(path, key)?),
            };
            let kv_type = if self.kv_type == 0 { None } else { Some(kv_type_of(self.kv_type)?) };
            let places = list(self.more_sessions, self.more_session_count, "places of more sessions")?.iter();
            Ok(LoadOptions {
                kv_type,
                more_sessions: places
                    .map(|places| Ok((kv_type_of(places.kv_type)?, places.sessions)))
                    .collect::<Outcome<_>>()?,
                context: (self.context > 0).then_some(self.context),
                sessions: self.sessions,
                prefill: self.prefill,
                outputs: self.outputs,
                memory: (self.memory > 0).then_some(self.memory),
                adapters: adapters.collect::<Outcome<_>>()?,
                verify,
                ..LoadOptions::default()
            })
        }
    }
}

impl plm_generate_options {
    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn meant(&self) -> Outcome<GenerateOptions> {
        // SAFETY: as the caller promised, for all of it.
        let stop = unsafe {
            let stop = list(self.stop, self.stop_count, "stop strings")?.iter();
            stop.map(|&stop| Ok(text(stop, "stop string")?.to_owned())).collect::<Outcome<_>>()?
        };
        // SAFETY: as the caller promised.
        let (constraint, tools) = unsafe { (self.constraint()?, self.tools()?) };
        // SAFETY: as the caller promised.
        let biases = unsafe { list(self.logit_bias, self.logit_bias_count, "logit biases")? };
        let draft = match (self.draft.is_null(), self.lookup) {
            (true, 0) => None,
            (true, _) => Some(Draft::Lookup),
            (false, 0) => Some(Draft::Model(handles::get::<ModelObject, _>(self.draft)?.model.clone())),
            (false, _) => {
                return Err(Refusal::invalid("tokens are guessed by lookup or by a model, not by both"));
            }
        };
        let given = |value: f32| (value != 0.0).then_some(value);
        let number = |value: f32| (value != PLM_UNSET as f32).then_some(value);
        let count = |value: i32, name| match u32::try_from(value) {
            Ok(count) => Ok(Some(count)),
            Err(_) if value == PLM_UNSET => Ok(None),
            Err(_) => Err(Refusal::invalid(&format!("{value} is no {name}"))),
        };
        let sampling = Sampling {
            temperature: number(self.temperature),
            top_k: count(self.top_k, "top_k")?,
            top_p: number(self.top_p),
            min_p: number(self.min_p),
            repeat_penalty: number(self.repeat_penalty),
            repeat_last: count(self.repeat_last, "repeat_last")?.map(|last| last as usize),
            frequency_penalty: given(self.frequency_penalty),
            presence_penalty: given(self.presence_penalty),
            typical_p: number(self.typical_p),
            logit_bias: biases.iter().map(|&plm_logit_bias { token, bias }| (token, bias)).collect(),
            dry: given(self.dry_multiplier).map(|multiplier| Dry { multiplier, ..Dry::default() }),
            xtc: given(self.xtc_probability).map(|probability| Xtc { probability, ..Xtc::default() }),
            mirostat: (self.mirostat != 0).then(Mirostat::default),
            seed: (self.has_seed != 0).then_some(self.seed),
            ..Sampling::default()
        };
        Ok(GenerateOptions {
            max_tokens: (self.max_tokens > 0).then_some(self.max_tokens),
            sampling,
            stop,
            ignore_end: self.ignore_end != 0,
            constraint,
            draft,
            tools,
            // SAFETY: as the caller promised.
            tool_choice: unsafe { self.tool_choice()? },
            ..GenerateOptions::default()
        })
    }

    /// # Safety
    /// What it points to is there.
    unsafe fn constraint(&self) -> Outcome<Option<Constraint>> {
        // SAFETY: as the caller promised, for all of it.
        let (grammar, choices) = unsafe {
            let choices = list(self.choices, self.choice_count, "choices")?.iter();
            let choices = choices.map(|&choice| Ok(text(choice, "choice")?.to_owned()));
            (text(self.grammar, "grammar")?.to_owned(), choices.collect::<Outcome<Vec<_>>>()?)
        };
        Ok(Some(match self.constraint {
            0 => return Ok(None),
            1 => Constraint::JsonSchema(
                serde_json::from_str(&grammar)
                    .map_err(|error| Refusal::invalid(&format!("the schema is no JSON: {error}")))?,
            ),
            2 => Constraint::JsonObject,
            3 => Constraint::Regex(grammar),
            4 => Constraint::Choice(choices),
            5 => Constraint::Lark(grammar),
            6 => Constraint::Gbnf(grammar),
            constraint => return Err(Refusal::invalid(&format!("{constraint} is no plm_constraint"))),
        }))
    }
}

impl plm_save_options {
    pub(crate) fn meant(self) -> SaveOptions {
        SaveOptions { kv: self.kv != 0, ..SaveOptions::default() }
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_engine_options {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            device: 0,
            device_index: 0,
            threads: 0,
            worker: 0,
            exact: 0,
            pinned: 0,
            max_buffer_bytes: 0,
            patience_ms: 0,
            tuning: plm_text::of(""),
        }
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_load_options {
    fn usual() -> Self {
        let LoadOptions { sessions, prefill, outputs, .. } = LoadOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            context: 0,
            sessions,
            prefill,
            outputs,
            memory: 0,
            adapters: std::ptr::null(),
            adapter_count: 0,
            manifest: plm_text::of(""),
            manifest_key: plm_text::of(""),
            kv_type: 0,
            more_sessions: std::ptr::null(),
            more_session_count: 0,
        }
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_generate_options {
    fn usual() -> Self {
        let unset = PLM_UNSET as f32;
        Self {
            struct_size: size_of::<Self>(),
            max_tokens: 0,
            temperature: unset,
            top_p: unset,
            min_p: unset,
            repeat_penalty: unset,
            repeat_last: PLM_UNSET,
            top_k: PLM_UNSET,
            has_seed: 0,
            ignore_end: 0,
            seed: 0,
            stop: std::ptr::null(),
            stop_count: 0,
            constraint: 0,
            mirostat: 0,
            grammar: plm_text::of(""),
            choices: std::ptr::null(),
            choice_count: 0,
            typical_p: unset,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            xtc_probability: 0.0,
            logit_bias: std::ptr::null(),
            logit_bias_count: 0,
            draft: std::ptr::null_mut(),
            lookup: 0,
            tools: std::ptr::null(),
            tool_count: 0,
            tool_name: plm_text::of(""),
            tool_choice: 0,
        }
    }
}

// SAFETY: numbers, the size first.
unsafe impl Versioned for plm_save_options {
    fn usual() -> Self {
        Self { struct_size: size_of::<Self>(), kv: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_is_what_rust_has() {
        // SAFETY: they point to nothing.
        let (engine, load, generate) = unsafe {
            (
                plm_engine_options::usual().meant().unwrap(),
                plm_load_options::usual().meant().unwrap(),
                plm_generate_options::usual().meant().unwrap(),
            )
        };
        let same = [
            (format!("{engine:?}"), format!("{:?}", EngineOptions::default())),
            (format!("{load:?}"), format!("{:?}", LoadOptions::default())),
            (format!("{generate:?}"), format!("{:?}", GenerateOptions::default())),
        ];
        for (meant, usual) in same {
            assert_eq!(meant, usual);
        }
    }
}
