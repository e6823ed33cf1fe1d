//! `fit`: what a model would take of memory, and whether that is there, without reading its weights.

use std::num::NonZero;

use pocketlm::{Budget, Engine, Estimate, LoadOptions, Remedy, Verdict};
use serde_json::{Value, json};

use crate::args::{AdapterArgs, ContextArgs, DeviceArgs, JsonArgs};
use crate::{models, output};

/// Says what a model would take of memory and whether it fits; fails where it does not
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A model as -m of the other commands takes it
    #[arg(default_value = models::DEFAULT)]
    model: String,
    #[command(flatten)]
    context: ContextArgs,
    /// Sessions that keep their keys and values at the same time
    #[arg(long, value_name = "N", default_value = "1")]
    sessions: NonZero<u32>,
    /// Tokens of a prompt that are computed at once
    #[arg(long, value_name = "N", default_value = "256")]
    prefill: NonZero<u32>,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::resolve(Some(&args.model))?;
    let options = LoadOptions {
        sessions: args.sessions.get(),
        prefill: args.prefill.get(),
        ..args.adapters.beside(args.context.options())
    };
    let estimate = Engine::new(args.device.options()).estimate(path, &options)?;
    match args.json.json {
        true => output::json(&report(&estimate))?,
        false => describe(&estimate).iter().try_for_each(|line| output::line(line))?,
    }
    Ok(estimate.check()?)
}

fn describe(estimate: &Estimate) -> Vec<String> {
    let Estimate { name, device, context, sessions, prefill, weights, kv, kv_type, scratch, host, .. } =
        estimate;
    let row = |what: &str, bytes: u64, of: &str| {
        format!("  {what:16} {:>12}  {of}", size(bytes)).trim_end().to_owned()
    };
    let per_token = kv / (u64::from(*context) * u64::from(*sessions)).max(1);
    let on = if estimate.backend == "cpu" { "in memory" } else { "on the device" };
    let mut lines = vec![
        format!("{name} on {device}"),
        row("weights", *weights, on),
        row(
            "keys and values",
            *kv,
            &format!("{context} tokens × {sessions}, {} a token in {}", size(per_token), kv_type.name()),
        ),
        row("scratch", *scratch, &format!("{prefill} tokens of a prompt at once")),
        row("host", *host, "vocabulary and plans"),
        row("in all", estimate.total(), ""),
    ];
    if estimate.staging > 0 {
        lines.push(row("while loading", estimate.peak(), ""));
    }
    if estimate.mapped > 0 {
        lines.push(row("of the file", estimate.mapped, "read in place: pages that the system can take back"));
    }
    let allowed = estimate.largest_allowed.map(|bytes| format!(", {} at most", size(bytes)));
    let of = format!("{}{}", estimate.largest.name, allowed.unwrap_or_default());
    lines.push(row("largest buffer", estimate.largest.bytes, &of));
    let Budget { given, most, available } = estimate.budget;
    let memory = [(given, "allowed"), (available, "free now"), (most, "of the machine or its control group")];
    for (bytes, of) in memory {
        lines.extend(bytes.map(|bytes| row("memory", bytes, of)));
    }
    lines.push(String::new());
    lines.push(match estimate.verdict {
        Verdict::Fits => "it fits".to_owned(),
        Verdict::Tight => "it fits where others make room: it takes more than what is free now".to_owned(),
        Verdict::Unknown => "how much memory the device has, it does not say; --memory does".to_owned(),
        Verdict::OverBudget => "it takes more than is allowed".to_owned(),
        Verdict::OverMachine => "it takes more than the machine has".to_owned(),
        Verdict::OverBuffer => "it needs a larger buffer than the device has".to_owned(),
    });
    lines.push(match estimate.largest_context {
        Some(context) if context == estimate.trained_context => {
            format!("the largest context that fits: {context}, all that the model was trained for")
        }
        Some(context) => format!("the largest context that fits: {context}"),
        None => "no context fits".to_owned(),
    });
    lines.extend(estimate.remedies.iter().map(|remedy| format!("would fit: {}", remedy.beside(estimate))));
    lines
}

fn size(bytes: u64) -> String {
    match bytes as f64 / 1024.0 {
        kib if kib < 1024.0 => format!("{kib:.1} KiB"),
        kib => format!("{:.1} MiB", kib / 1024.0),
    }
}

fn report(estimate: &Estimate) -> Value {
    let verdict = match estimate.verdict {
        Verdict::Fits => "fits",
        Verdict::Tight => "tight",
        Verdict::Unknown => "unknown",
        Verdict::OverBudget => "over_budget",
        Verdict::OverMachine => "over_machine",
        Verdict::OverBuffer => "over_buffer",
    };
    let remedy = |remedy: &Remedy| {
        json!({
            "kv_type": remedy.kv_type.name(), "context": remedy.context, "sessions": remedy.sessions, "prefill": remedy.prefill,
            "outputs": remedy.outputs, "format": remedy.format.map(|format| format.name()), "peak": remedy.peak,
        })
    };
    let Budget { given, most, available } = estimate.budget;
    json!({
        "name": estimate.name, "device": { "name": estimate.device, "backend": estimate.backend },
        "context": estimate.context, "trained_context": estimate.trained_context, "sessions": estimate.sessions,
        "prefill": estimate.prefill, "kv_type": estimate.kv_type.name(), "weights": estimate.weights, "kv": estimate.kv, "scratch": estimate.scratch,
        "host": estimate.host, "staging": estimate.staging, "mapped": estimate.mapped,
        "on_device": estimate.device_bytes(), "on_host": estimate.host_bytes(), "total": estimate.total(),
        "peak": estimate.peak(),
        "largest": { "name": estimate.largest.name, "bytes": estimate.largest.bytes, "allowed": estimate.largest_allowed },
        "memory": { "given": given, "most": most, "available": available },
        "verdict": verdict, "fits": estimate.fits(), "largest_context": estimate.largest_context,
        "remedies": estimate.remedies.iter().map(remedy).collect::<Vec<_>>(),
    })
}
