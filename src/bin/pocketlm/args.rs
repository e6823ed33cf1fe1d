//! The flags that several commands know, each defined once, by the names that llama.cpp and Ollama users know.

use std::num::{NonZero, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fs, io};

use clap::{ArgAction, Args, ValueEnum};
use log::LevelFilter;
use pocketlm::{
    Adapter, Device, EngineOptions, Error, Kind, KvType, Limits, LoadOptions, Manifest, Overflow, Pace,
    Pooling, Prompt, Result as Outcome, Session,
};

use crate::output;

pub(crate) use crate::answering::{ConstraintArgs, SamplingArgs, ToolArgs, read, schema};

/// How much to log; stands before or after the command.
#[derive(Args)]
pub(crate) struct VerbosityArgs {
    /// Say more on stderr: -v what was chosen, -vv each step, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl VerbosityArgs {
    /// Starts the log on stderr.
    pub(crate) fn start_log(&self) {
        let (own, others) = match self.verbose {
            0 => (LevelFilter::Warn, LevelFilter::Error),
            1 => (LevelFilter::Info, LevelFilter::Error),
            2 => (LevelFilter::Debug, LevelFilter::Warn),
            _ => (LevelFilter::Trace, LevelFilter::Info),
        };
        let mut log = env_logger::Builder::new();
        log.filter_level(others).filter_module("pocketlm", own);
        log.parse_env("POCKETLM_LOG").format_target(false).format_timestamp(None).init();
    }
}

/// Machine-readable output.
#[derive(Args)]
pub(crate) struct JsonArgs {
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which model.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// A model: a GGUF file, a folder with safetensors or torch checkpoints, a name that `pocketlm models` lists, or ORG/REPO[:FILE]
    /// in the cache of the Hugging Face hub [default: smollm2-135m-instruct]
    #[arg(short, long, env = "POCKETLM_MODEL", hide_env_values = true)]
    pub(crate) model: Option<String>,
}

/// Where and how exactly to compute.
#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// auto (a GPU where there is a real one, else the CPU), gpu, cpu, or a number that `pocketlm devices` lists
    #[arg(
        long,
        visible_alias = "dev",
        env = "POCKETLM_DEVICE",
        default_value = "auto",
        hide_env_values = true
    )]
    pub(crate) device: DeviceChoice,
    /// CPU threads [default: one for each core]
    #[arg(short, long, env = "POCKETLM_THREADS", hide_env_values = true)]
    pub(crate) threads: Option<NonZero<usize>>,
    /// Compute in f32 everywhere: slower, and as near to the model's own numbers as this engine gets
    #[arg(long)]
    pub(crate) exact: bool,
    /// Round the input of every matrix to 8 bits, token by token, as runtimes for phones do: their numbers, not faster ones
    #[arg(long)]
    pub(crate) int8_activations: bool,
    /// How much of a GPU may be used: device for all of it, floor for what every WebGPU device has, or the largest buffer as 64MiB
    #[arg(long, env = "POCKETLM_LIMITS", default_value = "device", value_parser = limits, hide_env_values = true)]
    pub(crate) limits: Limits,
    /// Do not measure which kernels are fastest on a GPU, and do not use what was measured; `doctor` shows it
    #[arg(long, env = "POCKETLM_NO_TUNE", hide_env_values = true)]
    pub(crate) no_tune: bool,
    /// Stay on the device: where it is lost for good, end with an error instead of going on on the CPU
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Leave room for others on the device: `full`; `background`, slices of 2 ms and a rest after each; or the milliseconds
    /// that a slice may take, such as 4
    #[arg(long, value_name = "PACE", default_value = "full", value_parser = pace)]
    pub(crate) pace: Pace,
    /// Generate no more than so many tokens a second, to spare heat and battery
    #[arg(long, value_name = "TOKENS")]
    pub(crate) sustain: Option<f64>,
}

fn pace(text: &str) -> Result<Pace, &'static str> {
    match text {
        "full" => Ok(Pace::Full),
        "background" => Ok(Pace::Background),
        text => match text.parse() {
            Ok(ms) if (0.01..=1e4).contains(&ms) => Ok(Pace::Frame(Duration::from_secs_f64(ms / 1e3))),
            _ => Err("full, background or a number of milliseconds would work"),
        },
    }
}

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// A real GPU, else the CPU.
    Auto,
    /// Any GPU, be it a software one.
    Gpu,
    Cpu,
    /// A row of `pocketlm devices`.
    Number(usize),
}

impl DeviceArgs {
    pub(crate) fn options(&self) -> EngineOptions {
        let device = self.device.into();
        let threads = self.threads.map(NonZero::get);
        let Self { exact, int8_activations, limits, pinned, .. } = *self;
        EngineOptions { device, threads, exact, int8_activations, limits, pinned, ..EngineOptions::default() }
    }
}

impl From<DeviceChoice> for Device {
    fn from(choice: DeviceChoice) -> Self {
        match choice {
            DeviceChoice::Auto => Self::Auto,
            DeviceChoice::Gpu => Self::Gpu,
            DeviceChoice::Cpu => Self::Cpu,
            DeviceChoice::Number(index) => Self::Index(index),
        }
    }
}

fn limits(text: &str) -> Result<Limits, &'static str> {
    match text {
        "device" => Ok(Limits::Device),
        "floor" => Ok(Limits::Floor),
        size => {
            bytes(size).map(Limits::Buffer).map_err(|_| "device, floor or a size such as 64MiB would work")
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => text.parse().map(Self::Number).map_err(|_| "auto, gpu, cpu or a number would work"),
        }
    }
}

/// How long the context is.
#[derive(Args)]
pub(crate) struct ContextArgs {
    /// Tokens that the context holds [default: what the model was made for, or less where memory is short]
    #[arg(
        short,
        long,
        visible_aliases = ["num-ctx", "context"],
        env = "POCKETLM_CTX_SIZE",
        hide_env_values = true,
        value_name = "N"
    )]
    #[arg(id = "ctx-size")]
    pub(crate) ctx_size: Option<NonZero<u32>>,
    /// The most memory that the model may take, of the host and of the device together: 800MiB, 2GiB [default: what the machine has]
    #[arg(long, value_name = "SIZE", env = "POCKETLM_MEMORY", value_parser = bytes, hide_env_values = true)]
    pub(crate) memory: Option<u64>,
    /// How keys and values are stored: f32, f16, q8 (8 bits) or q4 (4 bits) [default: f16, and f32 with --exact]
    #[arg(long, visible_alias = "cache-type", value_name = "TYPE", env = "POCKETLM_KV_TYPE", value_parser = kv_type, hide_env_values = true)]
    pub(crate) kv_type: Option<KvType>,
    /// Whether heads are turned by a Hadamard transform where they are stored in 8 or 4 bits: to measure what it is worth
    #[arg(long, value_name = "BOOL", hide = true)]
    pub(crate) kv_turned: Option<bool>,
}

impl ContextArgs {
    /// What a single session is loaded with.
    pub(crate) fn options(&self) -> LoadOptions {
        let context = self.ctx_size.map(NonZero::get);
        let Self { memory, kv_type, kv_turned, .. } = *self;
        LoadOptions { context, sessions: 1, memory, kv_type, kv_turned, ..LoadOptions::default() }
    }
}

/// How the rows of a text become its embedding.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Pool {
    /// Their mean
    Mean,
    /// The last one
    Last,
    /// The first one
    First,
}

impl From<Pool> for Pooling {
    fn from(pool: Pool) -> Self {
        match pool {
            Pool::Mean => Self::Mean,
            Pool::Last => Self::Last,
            Pool::First => Self::First,
        }
    }
}

/// A name of a type of keys and values.
pub(crate) fn kv_type(text: &str) -> Result<KvType, &'static str> {
    KvType::named(text).ok_or("f32, f16, q8 or q4 would work")
}

/// A number of bytes, by itself or in KiB, MiB, GiB (or K, M, G, KB, MB, GB, which mean the same).
fn bytes(text: &str) -> Result<u64, &'static str> {
    let wrong = "a number of bytes, KiB, MiB or GiB would work";
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(wrong),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong)?;
    let bytes = number * f64::from(1u32 << shift);
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong) }
}

/// What is added to the model.
#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// A LoRA adapter: a folder of PEFT or a GGUF file, with a weight other than 1 behind =; can be given several times
    #[arg(long, value_name = "PATH[=WEIGHT]", value_parser = adapter)]
    pub(crate) lora: Vec<Adapter>,
}

impl AdapterArgs {
    /// `options` with the adapters.
    pub(crate) fn beside(&self, options: LoadOptions) -> LoadOptions {
        LoadOptions { adapters: self.lora.clone(), ..options }
    }
}

fn adapter(text: &str) -> Result<Adapter, &'static str> {
    let weighted = text.rsplit_once('=').and_then(|(path, weight)| Some((path, weight.parse().ok()?)));
    let (path, weight) = weighted.unwrap_or((text, 1.0f32));
    match path.is_empty() || !weight.is_finite() {
        true => Err("PATH or PATH=WEIGHT would work"),
        false => Ok(Adapter { path: path.into(), weight }),
    }
}

/// What the model must be.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Hold each file that is read against this manifest, which `pocketlm manifest` writes; what differs stops the load
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) verify: Option<PathBuf>,
    /// Who must have signed the manifest, in MANIFEST.minisig: minisign's public key, or the file that holds it
    #[arg(long, value_name = "KEY", requires = "verify")]
    pub(crate) key: Option<String>,
}

impl VerifyArgs {
    /// `options` with the manifest; tells what its signer says.
    pub(crate) fn on(&self, options: LoadOptions) -> Outcome<LoadOptions> {
        let Some(path) = &self.verify else { return Ok(options) };
        let manifest = match &self.key {
            Some(key) => {
                let text = fs::read_to_string(key);
                Manifest::read_signed(path, text.as_deref().unwrap_or(key))?
            }
            None => Manifest::read(path)?,
        };
        if let Some(comment) = manifest.trusted_comment() {
            output::note(&format!("the manifest is signed: {}", comment.escape_debug()));
        }
        Ok(LoadOptions { verify: Some(manifest), ..options })
    }
}

/// Text from a file.
#[derive(Args)]
pub(crate) struct FileArgs {
    /// Read the text from a file, or from stdin where it is -
    #[arg(short, long, value_name = "FILE", group = "input")]
    pub(crate) file: Option<PathBuf>,
}

/// Text or tokens to work on: one of these.
#[derive(Args)]
#[group(id = "input", required = true, multiple = false)]
pub(crate) struct InputArgs {
    /// The text; "" is allowed
    #[arg(short, long, value_name = "TEXT", group = "input")]
    pub(crate) prompt: Option<String>,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Token ids instead of text
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', value_parser = id, group = "input")]
    pub(crate) ids: Option<Vec<u32>>,
}

/// What a command works on.
pub(crate) enum Input {
    Text(String),
    Ids(Vec<u32>),
}

fn id(text: &str) -> Result<u32, ParseIntError> {
    text.trim().parse()
}

impl FileArgs {
    /// The text, or `None` where no file is named.
    pub(crate) fn read(&self) -> Outcome<Option<String>> {
        let Some(path) = &self.file else { return Ok(None) };
        let text = match path.as_os_str() == "-" {
            true => io::read_to_string(io::stdin()),
            false => fs::read_to_string(path),
        };
        // Not `NotFound`: that is the model's.
        text.map(Some).map_err(|error| Error::new(Kind::Io, error.to_string()).in_file(path))
    }
}

impl InputArgs {
    pub(crate) fn read(&self) -> Outcome<Input> {
        match (&self.prompt, &self.ids, self.file.read()?) {
            (Some(text), ..) => Ok(Input::Text(text.clone())),
            (None, Some(ids), _) => Ok(Input::Ids(ids.clone())),
            (None, None, Some(text)) => Ok(Input::Text(text)),
            (None, None, None) => {
                Err(Error::invalid("there is nothing to work on").hint("give -p, -f or --ids"))
            }
        }
    }
}

/// Whether the text is a conversation's turn.
#[derive(Args)]
pub(crate) struct FormArgs {
    /// Take the text as it is: the default
    #[arg(long, conflicts_with = "chat")]
    pub(crate) raw: bool,
    /// Wrap the text as the user's turn, by the model's chat template
    #[arg(long, conflicts_with = "ids")]
    pub(crate) chat: bool,
}

impl FormArgs {
    pub(crate) fn prompt(&self, input: Input) -> Prompt {
        match input {
            Input::Ids(ids) => Prompt::Tokens(ids),
            Input::Text(text) if self.chat => Prompt::user(text),
            Input::Text(text) => Prompt::Raw(text),
        }
    }
}

/// Where the next tokens are guessed.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct DraftArgs {
    /// Guess the next tokens by what followed the latest ones before; the answer is the same, and sooner where it repeats its prompt
    #[arg(long)]
    pub(crate) lookup: bool,
    /// Guess the next tokens by a smaller model with the same vocabulary; the answer is the same
    #[arg(long, value_name = "MODEL")]
    pub(crate) draft: Option<String>,
}

impl DraftArgs {
    /// `options` with room for the guesses, if there are any.
    pub(crate) fn within(&self, options: LoadOptions) -> LoadOptions {
        let outputs = if self.lookup || self.draft.is_some() { DRAFT_OUTPUTS } else { options.outputs };
        LoadOptions { outputs, ..options }
    }
}

/// Tokens that are guessed at once, and the one before them.
const DRAFT_OUTPUTS: u32 = 8;

/// What becomes of a text that outgrows the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overflowing {
    /// It ends there
    Stop,
    /// Its first tokens stay in sight, and the latest ones
    Slide,
    /// A conversation forgets its oldest questions and answers
    Forget,
}

impl Overflowing {
    /// Tokens at the beginning that stay in sight of what slides.
    const SINKS: u32 = 4;

    pub(crate) fn apply(self, session: &mut Session) -> Outcome<()> {
        match self {
            Self::Stop => {}
            Self::Slide => session.set_overflow(Overflow::Slide { sinks: Self::SINKS })?,
            Self::Forget => session.condense_with(pocketlm::forget_oldest),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use pocketlm::Sampling;

    use super::*;

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        verbosity: VerbosityArgs,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        device: DeviceArgs,
        #[command(flatten)]
        context: ContextArgs,
        #[command(flatten)]
        adapters: AdapterArgs,
        #[command(flatten)]
        verify: VerifyArgs,
        #[command(flatten)]
        input: InputArgs,
        #[command(flatten)]
        form: FormArgs,
        #[command(flatten)]
        sampling: SamplingArgs,
        #[command(flatten)]
        constraint: ConstraintArgs,
        #[command(flatten)]
        tools: ToolArgs,
    }

    fn parse(words: &str) -> Result<All, clap::Error> {
        let words = std::iter::once("pocketlm").chain(words.split_whitespace());
        All::from_arg_matches(&All::command().try_get_matches_from(words)?)
    }

    #[test]
    fn all_flags_live_side_by_side() {
        All::command().debug_assert();
        let all = parse(
            "-vv --json -m a.gguf --device 1 -t 2 --exact --int8-activations -c 512 -p hi --raw -n 9 --temp 0.5 -s 3 --stop a -r b",
        );
        let all = all.unwrap();
        assert_eq!(all.verbosity.verbose, 2);
        assert!(
            all.json.json
                && all.device.exact
                && all.device.int8_activations
                && all.form.raw
                && !all.form.chat
        );
        assert_eq!(all.model.model.as_deref(), Some("a.gguf"));
        assert_eq!(all.device.device, DeviceChoice::Number(1));
        assert_eq!((all.device.threads, all.context.ctx_size), (NonZero::new(2), NonZero::new(512)));
        assert_eq!(all.input.prompt.as_deref(), Some("hi"));
        let sampling = all.sampling;
        assert_eq!((sampling.predict, sampling.temp, sampling.seed), (Some(9), Some(0.5), Some(3)));
        assert_eq!(sampling.stop, ["a", "b"]);
        assert_eq!((sampling.top_k, sampling.top_p, sampling.min_p), (None, None, None));
        assert_eq!((sampling.repeat_penalty, sampling.repeat_last_n), (None, None));
    }

    #[test]
    fn names_of_other_programs_work() {
        let all = parse("--ids 1,2,3 --num-ctx 7 --num-predict 5 --temperature 0").unwrap();
        assert_eq!(all.input.ids.as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!((all.sampling.predict, all.sampling.temp), (Some(5), Some(0.0)));
        assert_eq!(all.context.ctx_size, NonZero::new(7));
        assert_eq!(all.device.device, DeviceChoice::Auto);
        assert_eq!(parse("-f a").unwrap().input.file.file.as_deref(), Some(std::path::Path::new("a")));
        assert_eq!(parse("--file a --n-predict 5").unwrap().sampling.predict, Some(5));
        let most = |words| parse(words).unwrap().sampling.options(Some(9), &Sampling::default()).max_tokens;
        assert_eq!((most("-p a -n -1"), most("-p a -n 5"), most("-p a")), (None, Some(5), Some(9)));
    }

    #[test]
    fn sizes_have_units() {
        let memory = |words: &str| parse(&format!("-p a {words}")).map(|all| all.context.memory);
        let known = [("5", 5), ("1KiB", 1024), ("1.5k", 1536), ("800MiB", 800 << 20), ("2GB", 2 << 30)];
        for (text, bytes) in known {
            assert_eq!(memory(&format!("--memory {text}")).unwrap(), Some(bytes), "{text}");
        }
        assert_eq!(memory("").unwrap(), None);
        let limits = |words: &str| parse(&format!("-p a {words}")).unwrap().device.options().limits;
        assert_eq!((limits(""), limits("--limits floor")), (Limits::Device, Limits::Floor));
        assert_eq!(limits("--limits 1MiB"), Limits::Buffer(1 << 20));
        let kv = |words: &str| parse(&format!("-p a {words}")).unwrap().context.options().kv_type;
        assert_eq!((kv(""), kv("--kv-type q8")), (None, Some(KvType::Q8)));
    }

    #[test]
    fn adapters_have_weights() {
        let all = parse("-p a --lora a.gguf --lora b=c=0.5 --lora d=e").unwrap().adapters.lora;
        let adapter = |path: &str, weight| Adapter { path: path.into(), weight };
        assert_eq!(all, [adapter("a.gguf", 1.0), adapter("b=c", 0.5), adapter("d=e", 1.0)]);
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [
            "",
            "-p a -f b",
            "-p a --ids 1",
            "-f a --ids 1",
            "-p a --raw --chat",
            "-p a -c 0",
            "-p a -t 0",
            "-p a --device tpu",
            "--ids a",
            "--ids 1 --chat",
            "-p a -n -2",
            "-p a --key k",
            "-p a --lora =1",
            "-p a --memory much",
            "-p a --memory 0",
            "-p a --memory 1TiX",
            "-p a --memory infGiB",
            "-p a --limits none",
            "-p a --lora a=inf",
            "-p a --regex a --choice b",
            "-p a --json-object --json-schema a",
            "-p a --kv-type q5",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
