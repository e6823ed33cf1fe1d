//! The flags that say how an answer is made: how its tokens are chosen, and what its text must be.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pocketlm::{
    Constraint, Dry, Error, GenerateOptions, Kind, Mirostat, Result as Outcome, Sampling, Tool, ToolChoice,
    Xtc,
};

/// How tokens are chosen; what is not given is the model's own default.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Tokens to generate at most; -1 stops only at the end of the context
    #[arg(
        short = 'n',
        long,
        visible_aliases = ["num-predict", "max-tokens"],
        alias = "n-predict",
        value_name = "N",
        value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) predict: Option<i64>,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, visible_alias = "temperature", value_name = "T")]
    pub(crate) temp: Option<f32>,
    /// Choose among the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Leave out tokens less likely than this share of the likeliest
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Make tokens of the last --repeat-last-n less likely; 1 does nothing
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f32>,
    /// How far back a repetition counts
    #[arg(long, value_name = "N")]
    pub(crate) repeat_last_n: Option<usize>,
    /// Take X from the logit of a recent token each time that it is there
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Take X from the logits of recent tokens
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Choose among the tokens that are about as surprising as the text, up to this probability; 1 does nothing
    #[arg(long, visible_alias = "typical-p", value_name = "P")]
    pub(crate) typical: Option<f32>,
    /// Add X to the logit of a token; -inf bars it; can be given several times
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Make what goes on with a repetition less likely, by X · base^(length - allowed length); 0.8 is usual
    #[arg(long, value_name = "X")]
    pub(crate) dry_multiplier: Option<f32>,
    /// What each token of a repetition adds to its penalty, as a factor [default: 1.75]
    #[arg(long, value_name = "X", requires = "dry_multiplier")]
    pub(crate) dry_base: Option<f32>,
    /// From which length a repetition counts [default: 2]
    #[arg(long, value_name = "N", requires = "dry_multiplier")]
    pub(crate) dry_allowed_length: Option<usize>,
    /// How far back it counts [default: 1024]
    #[arg(long, visible_alias = "dry-penalty-last-n", value_name = "N", requires = "dry_multiplier")]
    pub(crate) dry_last_n: Option<usize>,
    /// With this probability, take out the likeliest tokens where others are likely too; 0.5 is usual
    #[arg(long, value_name = "P")]
    pub(crate) xtc_probability: Option<f32>,
    /// From which probability on a token is one of the likeliest [default: 0.1]
    #[arg(long, value_name = "P", requires = "xtc_probability")]
    pub(crate) xtc_threshold: Option<f32>,
    /// 2 keeps the text as surprising as --mirostat-ent says, in place of top-k, typical, top-p, min-p and XTC
    #[arg(long, value_name = "VERSION", value_parser = mirostat)]
    pub(crate) mirostat: Option<bool>,
    /// Bits of surprise that a token is to have, mirostat's tau [default: 5]
    #[arg(long, visible_alias = "mirostat-tau", value_name = "X", requires = "mirostat")]
    pub(crate) mirostat_ent: Option<f32>,
    /// How fast mirostat follows, its eta [default: 0.1]
    #[arg(long, visible_alias = "mirostat-eta", value_name = "X", requires = "mirostat")]
    pub(crate) mirostat_lr: Option<f32>,
    /// The same seed gives the same answer on the same device
    #[arg(short, long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End the answer before this text; can be given several times
    #[arg(long, visible_alias = "reverse-prompt", short_alias = 'r', value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

impl SamplingArgs {
    /// What to generate with: what was said, else `defaults`, and `predict` tokens at most where -n is not given.
    pub(crate) fn options(&self, predict: Option<u32>, defaults: &Sampling) -> GenerateOptions {
        let said = Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last: self.repeat_last_n,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            typical_p: self.typical,
            logit_bias: self.logit_bias.clone(),
            dry: self.dry_multiplier.map(|multiplier| {
                let usual = Dry::default();
                Dry {
                    multiplier,
                    base: self.dry_base.unwrap_or(usual.base),
                    allowed: self.dry_allowed_length.unwrap_or(usual.allowed),
                    last: self.dry_last_n.unwrap_or(usual.last),
                    ..usual
                }
            }),
            xtc: self.xtc_probability.map(|probability| {
                let usual = Xtc::default();
                Xtc { probability, threshold: self.xtc_threshold.unwrap_or(usual.threshold) }
            }),
            mirostat: self.mirostat.filter(|&is_on| is_on).map(|_| {
                let usual = Mirostat::default();
                Mirostat {
                    tau: self.mirostat_ent.unwrap_or(usual.tau),
                    eta: self.mirostat_lr.unwrap_or(usual.eta),
                }
            }),
            seed: self.seed,
        };
        GenerateOptions {
            max_tokens: self.predict.map_or(predict, |predict| u32::try_from(predict).ok()),
            sampling: said.or(defaults),
            stop: self.stop.clone(),
            ..GenerateOptions::default()
        }
    }
}

fn mirostat(text: &str) -> Result<bool, &'static str> {
    match text {
        "0" => Ok(false),
        "2" => Ok(true),
        _ => Err("2, or 0 for none, would work"),
    }
}

fn bias(text: &str) -> Result<(u32, f32), &'static str> {
    let bias = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    bias.ok_or("ID=BIAS would work, such as 28=-inf or 5=1.5")
}

/// What the text of an answer must be: one of these.
#[derive(Args)]
#[command(next_help_heading = "Structured answers")]
#[group(multiple = false)]
pub(crate) struct ConstraintArgs {
    /// The answer is JSON that is valid by this JSON schema: a file, or the schema itself
    #[arg(long, short_alias = 'j', value_name = "FILE|SCHEMA")]
    json_schema: Option<String>,
    /// The answer is a JSON object
    #[arg(long)]
    json_object: bool,
    /// The answer follows the grammar in this file: Lark's syntax, or llama.cpp's GBNF
    #[arg(long, visible_alias = "grammar-file", value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// The whole answer matches this regular expression
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// The answer is one of the texts given so
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
}

impl ConstraintArgs {
    pub(crate) fn read(&self) -> Outcome<Option<Constraint>> {
        if let Some(text) = &self.json_schema {
            return schema(text).map(Some);
        }
        if let Some(path) = &self.grammar {
            let text = read(path)?;
            return Ok(Some(match text.contains("::=") {
                true => Constraint::Gbnf(text),
                false => Constraint::Lark(text),
            }));
        }
        let regex = self.regex.clone().map(Constraint::Regex);
        let choice = (!self.choice.is_empty()).then(|| Constraint::Choice(self.choice.clone()));
        Ok(regex.or(choice).or(self.json_object.then_some(Constraint::JsonObject)))
    }
}

/// A JSON schema as text, or in a file.
pub(crate) fn schema(text: &str) -> Outcome<Constraint> {
    let is_inline = text.trim_start().starts_with('{');
    let json = if is_inline { text.to_owned() } else { read(Path::new(text))? };
    serde_json::from_str(&json).map(Constraint::JsonSchema).map_err(|error| {
        let error = Error::invalid("the JSON schema is no JSON").caused_by(error);
        if is_inline { error } else { error.in_file(text) }
    })
}

/// The text of a file that a flag names.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| Error::new(Kind::Io, error.to_string()).in_file(path))
}

/// What the model may call.
#[derive(Args)]
#[command(next_help_heading = "Tools")]
pub(crate) struct ToolArgs {
    /// A tool that the model may call, or a list of them, as JSON with name, description and parameters; its calls are
    /// printed, each a line of JSON. Can be given several times
    #[arg(long = "tool", visible_alias = "tools", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// auto, none, required, or the name of the tool that has to be called
    #[arg(long, value_name = "CHOICE", default_value = "auto", requires = "files")]
    tool_choice: String,
}

impl ToolArgs {
    /// `options` with the tools.
    pub(crate) fn beside(&self, options: GenerateOptions) -> Outcome<GenerateOptions> {
        let mut tools = Vec::new();
        for path in &self.files {
            let text = read(path)?;
            let json: serde_json::Value = serde_json::from_str(&text)
                .map_err(|error| Error::invalid("a tool is no JSON").caused_by(error).in_file(path))?;
            let list = match &json {
                serde_json::Value::Array(list) => list.as_slice(),
                tool => std::slice::from_ref(tool),
            };
            for tool in list {
                tools.push(Tool::from_json(tool).map_err(|error| error.in_file(path))?);
            }
        }
        let tool_choice = match self.tool_choice.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            name => ToolChoice::Named(name.to_owned()),
        };
        Ok(GenerateOptions { tools, tool_choice, ..options })
    }
}
