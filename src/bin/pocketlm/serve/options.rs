//! How an answer is to be made: the fields that OpenAI's interfaces have in common, and llama.cpp's beside them.

use pocketlm::{Constraint, Dry, GenerateOptions, Mirostat, Tool, ToolChoice, Xtc};
use serde_json::Value;

use super::Server;
use super::fields::Fields;
use super::refusal::Refusal;

/// Answers to one request, at most.
pub(crate) const MOST_ANSWERS: u32 = 128;
/// The likeliest tokens that are told beside a chosen one, at most.
pub(crate) const MOST_LIKELIEST: u32 = 20;
/// Texts that end an answer, at most.
const MOST_STOPS: usize = 16;
/// Tools, at most.
const MOST_TOOLS: usize = 128;
/// Tokens with a bias, at most.
const MOST_BIASES: usize = 1024;
/// A bias from which on a token is forbidden or all there is, as OpenAI has it.
const BARS: f32 = -100.0;

/// What was asked for, over the server's own defaults. `limits` are the names of the longest that an answer may be.
pub(crate) fn read(
    fields: &Fields<'_>,
    server: &Server,
    limits: &[&str],
) -> Result<GenerateOptions, Refusal> {
    let mut options = server.defaults.clone();
    for name in limits {
        if let Some(most) = limit(fields, name)? {
            options.max_tokens = most;
            break;
        }
    }
    sampling(fields, server, &mut options)?;
    if let Some(stops) = stops(fields)? {
        options.stop = stops;
    }
    options.ignore_end = fields.flag("ignore_eos")?.unwrap_or(options.ignore_end);
    Ok(options)
}

/// The longest that an answer may be; `Some(None)` for -1, which is as long as can be.
fn limit(fields: &Fields<'_>, name: &str) -> Result<Option<Option<u32>>, Refusal> {
    match fields.get(name).and_then(Value::as_i64) {
        Some(-1) => Ok(Some(None)),
        _ => Ok(fields.count(name, 1)?.map(Some)),
    }
}

fn sampling(fields: &Fields<'_>, server: &Server, options: &mut GenerateOptions) -> Result<(), Refusal> {
    let sampling = &mut options.sampling;
    let number = |name, least, most, into: &mut Option<f32>| -> Result<(), Refusal> {
        *into = fields.number(name, least, most)?.or(*into);
        Ok(())
    };
    number("temperature", 0.0, 100.0, &mut sampling.temperature)?;
    number("top_p", 0.0, 1.0, &mut sampling.top_p)?;
    number("min_p", 0.0, 1.0, &mut sampling.min_p)?;
    number("typical_p", 0.0, 1.0, &mut sampling.typical_p)?;
    number("repeat_penalty", 0.01, 100.0, &mut sampling.repeat_penalty)?;
    number("frequency_penalty", -100.0, 100.0, &mut sampling.frequency_penalty)?;
    number("presence_penalty", -100.0, 100.0, &mut sampling.presence_penalty)?;
    // As in llama.cpp all of them: those that are told of are clipped to what makes sense.
    sampling.top_p = sampling.top_p.map(|p| p.max(f32::MIN_POSITIVE));
    sampling.typical_p = sampling.typical_p.map(|p| p.max(f32::MIN_POSITIVE));
    sampling.top_k = fields.count("top_k", 0)?.or(sampling.top_k);
    let context = server.model.info().context as usize;
    let last = match fields.get("repeat_last_n").and_then(Value::as_i64) {
        Some(-1) => Some(context),
        _ => fields.count("repeat_last_n", 0)?.map(|count| (count as usize).min(context)),
    };
    sampling.repeat_last = last.or(sampling.repeat_last);
    if let Some(biases) = biases(fields, server.model.info().vocab)? {
        sampling.logit_bias = biases;
    }
    if let Some(multiplier) = fields.number("dry_multiplier", 0.0, 100.0)? {
        let usual = Dry::default();
        let dry = Dry {
            multiplier,
            base: fields.number("dry_base", 1.0, 100.0)?.unwrap_or(usual.base),
            allowed: fields.count("dry_allowed_length", 0)?.map_or(usual.allowed, |count| count as usize),
            last: fields
                .count("dry_penalty_last_n", 0)?
                .map_or(usual.last, |count| (count as usize).min(context)),
            ..usual
        };
        sampling.dry = Some(dry);
    }
    if let Some(probability) = fields.number("xtc_probability", 0.0, 1.0)? {
        let threshold = fields.number("xtc_threshold", 0.0, 1.0)?.unwrap_or(Xtc::default().threshold);
        sampling.xtc = Some(Xtc { probability, threshold });
    }
    match fields.count("mirostat", 0)? {
        None | Some(0) => {}
        Some(2) => {
            let usual = Mirostat::default();
            sampling.mirostat = Some(Mirostat {
                tau: fields.number("mirostat_tau", 0.0, 100.0)?.unwrap_or(usual.tau),
                eta: fields.number("mirostat_eta", 0.0, 100.0)?.unwrap_or(usual.eta),
            });
        }
        Some(_) => return Err(fields.wrong("mirostat", "0 or 2")),
    }
    sampling.seed = match fields.get("seed") {
        None => sampling.seed,
        Some(seed) => match (seed.as_u64(), seed.as_i64()) {
            (Some(seed), _) => Some(seed),
            (None, Some(-1)) => None,
            (None, Some(seed)) => Some(seed.cast_unsigned()),
            (None, None) => return Err(fields.wrong("seed", "a whole number")),
        },
    };
    Ok(())
}

fn biases(fields: &Fields<'_>, vocab: u32) -> Result<Option<Vec<(u32, f32)>>, Refusal> {
    let wrong = || {
        let due =
            format!("an object of tokens below {vocab} and numbers from -100 to 100, at most {MOST_BIASES}");
        fields.wrong("logit_bias", &due)
    };
    let Some(map) = fields.get("logit_bias") else { return Ok(None) };
    let map = map.as_object().filter(|map| map.len() <= MOST_BIASES).ok_or_else(wrong)?;
    let bias = |(token, bias): (&String, &Value)| {
        let token = token.parse().ok().filter(|&token: &u32| token < vocab)?;
        let bias = bias.as_f64().map(|bias| bias as f32).filter(|bias| (BARS..=-BARS).contains(bias))?;
        Some((token, if bias == BARS { f32::NEG_INFINITY } else { bias }))
    };
    map.iter().map(bias).collect::<Option<Vec<_>>>().ok_or_else(wrong).map(Some)
}

fn stops(fields: &Fields<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let wrong =
        || fields.wrong("stop", &format!("a string that is not empty, or at most {MOST_STOPS} of them"));
    let stops = match fields.get("stop") {
        None => return Ok(None),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) if stops.len() <= MOST_STOPS => stops
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    if stops.iter().any(String::is_empty) { Err(wrong()) } else { Ok(Some(stops)) }
}

/// What the text has to be: by `response_format`, or by llama.cpp's `json_schema` or `grammar`.
pub(crate) fn constraint(fields: &Fields<'_>) -> Result<Option<Constraint>, Refusal> {
    let format = fields.object("response_format")?;
    let by_format = match &format {
        None => None,
        Some(format) => self::format(format, true)?,
    };
    let by_schema = fields.get("json_schema").map(|schema| Constraint::JsonSchema(schema.clone()));
    let by_grammar = fields.text("grammar")?.filter(|grammar| !grammar.trim().is_empty()).map(|grammar| {
        match grammar.contains("::=") {
            true => Constraint::Gbnf(grammar.to_owned()),
            false => Constraint::Lark(grammar.to_owned()),
        }
    });
    let names = ["response_format", "json_schema", "grammar"];
    let mut all = [by_format, by_schema, by_grammar]
        .into_iter()
        .zip(names)
        .filter_map(|(one, name)| Some((one?, name)));
    match (all.next(), all.next()) {
        (Some(_), Some((_, name))) => {
            Err(Refusal::invalid(name, "An answer can be held to one form, not to two."))
        }
        (one, _) => Ok(one.map(|(constraint, _)| constraint)),
    }
}

/// What `{"type": …}` asks for; a schema stands in a `json_schema` of its own where it is `nested`.
pub(crate) fn format(format: &Fields<'_>, nested: bool) -> Result<Option<Constraint>, Refusal> {
    match format.text("type")? {
        None | Some("text") => Ok(None),
        Some("json_object") => match format.get("schema") {
            None => Ok(Some(Constraint::JsonObject)),
            Some(schema) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
        },
        Some("json_schema") => {
            let schema = match nested {
                true => format.object("json_schema")?.and_then(|inner| inner.get("schema")),
                false => format.get("schema"),
            };
            let missing =
                || format.wrong(if nested { "json_schema" } else { "schema" }, "there, with a schema");
            Ok(Some(Constraint::JsonSchema(schema.ok_or_else(missing)?.clone())))
        }
        Some(_) => Err(format.wrong("type", "text, json_object or json_schema")),
    }
}

/// Adds `tools` and `tool_choice`.
pub(crate) fn tools(fields: &Fields<'_>, options: &mut GenerateOptions) -> Result<(), Refusal> {
    let list = fields.list("tools")?.unwrap_or_default();
    if list.len() > MOST_TOOLS {
        return Err(fields.wrong("tools", &format!("at most {MOST_TOOLS}")));
    }
    for (at, tool) in list.iter().enumerate() {
        let param = format!("tools[{at}]");
        if tool.get("type").is_some_and(|kind| kind != "function") {
            return Err(Refusal::unsupported(
                &param,
                "Only tools of the type `function` are supported here.",
            ));
        }
        options.tools.push(Tool::from_json(tool).map_err(|error| Refusal::from(error).about(&param))?);
    }
    let choice = fields.get("tool_choice");
    let named = choice.and_then(|choice| choice.pointer("/function/name").or_else(|| choice.get("name")));
    options.tool_choice = match (choice.and_then(Value::as_str), named.and_then(Value::as_str)) {
        (Some("none"), _) => ToolChoice::None,
        (Some("required"), _) => ToolChoice::Required,
        (Some("auto"), _) => ToolChoice::Auto,
        (None, Some(name)) => ToolChoice::Named(name.to_owned()),
        (None, None) if choice.is_none() => ToolChoice::Auto,
        _ => return Err(fields.wrong("tool_choice", "auto, none, required or a function's name")),
    };
    let is_missing = match &options.tool_choice {
        ToolChoice::Auto | ToolChoice::None => false,
        ToolChoice::Required => options.tools.is_empty(),
        ToolChoice::Named(name) => options.tools.iter().all(|tool| tool.name != *name),
    };
    if is_missing { Err(fields.wrong("tool_choice", "one of the tools, which is not there")) } else { Ok(()) }
}

/// The options of the n-th of several answers: other draws.
pub(crate) fn nth(options: &GenerateOptions, number: u64) -> GenerateOptions {
    let mut options = options.clone();
    options.sampling.seed = options.sampling.seed.map(|seed| seed.wrapping_add(number));
    options
}

/// How many answers are wanted.
pub(crate) fn answers(fields: &Fields<'_>) -> Result<u64, Refusal> {
    match fields.count("n", 1)?.unwrap_or(1) {
        count @ 1..=MOST_ANSWERS => Ok(count.into()),
        _ => Err(fields.wrong("n", &format!("a whole number, at most {MOST_ANSWERS}"))),
    }
}
