//! `devices`: where this machine can compute.

use pocketlm::backend::Backend;
use pocketlm::backend::cpu::{Cpu, CpuOptions};
use serde_json::{Value, json};

use crate::args::JsonArgs;
use crate::output;

#[cfg(feature = "wgpu")]
use crate::models;
#[cfg(feature = "wgpu")]
use pocketlm::backend::wgpu::Quarantined;

/// Lists the devices that --device can name
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cpu = Cpu::new(CpuOptions { threads: None, exact: false })?;
    let gpus = gpus();
    if args.json.json {
        let cpu = json!({ "name": cpu.caps().name, "backend": cpu.caps().backend });
        let gpus: Vec<Value> = gpus.into_iter().map(|(json, ..)| json).collect();
        return output::json(&json!({ "cpu": cpu, "gpus": gpus }));
    }
    output::line(&format!("cpu  {}", cpu.caps().name))?;
    for (index, (_, line, left_out)) in gpus.iter().enumerate() {
        output::line(&format!("{index:3}  {line}"))?;
        left_out.iter().try_for_each(|line| output::line(&format!("     {line}")))?;
    }
    if gpus.is_empty() {
        output::note("no GPU was found, nor a software one");
    }
    Ok(())
}

/// Each GPU for programs and for people, and what is not used of it.
#[cfg(feature = "wgpu")]
fn gpus() -> Vec<(Value, String, Vec<String>)> {
    pocketlm::devices().iter().map(|device| (facts(device), describe(device), left_out(device))).collect()
}

#[cfg(not(feature = "wgpu"))]
fn gpus() -> Vec<(Value, String, Vec<String>)> {
    Vec::new()
}

/// All that is known of a GPU.
#[cfg(feature = "wgpu")]
pub(super) fn facts(device: &pocketlm::DeviceInfo) -> Value {
    json!({
        "index": device.index, "name": device.name, "backend": device.backend, "kind": device.kind,
        "driver": device.driver, "software": device.software, "subgroup": device.subgroup,
        "has_subgroup": device.has.subgroup > 0, "has_f16": device.has.f16, "matrices": device.has.matrix,
        "timestamps": device.timestamps,
        "max_binding_bytes": device.max_binding_bytes, "max_buffer_bytes": device.max_buffer_bytes,
        "workgroup_bytes": device.workgroup_bytes, "refused": device.refused,
        "spirv": device.spirv, "quirks": quirks(device), "quarantine": quarantine(device),
    })
}

/// What is known of its driver.
#[cfg(feature = "wgpu")]
fn quirks(device: &pocketlm::DeviceInfo) -> Vec<Value> {
    let each = device.quirks.iter().map(|quirk| {
        let leaves_out: Vec<String> = quirk.leaves_out.iter().map(ToString::to_string).collect();
        json!({ "leaves_out": leaves_out, "case": quirk.case, "source": quirk.source })
    });
    each.collect()
}

/// What was found wrong on it.
#[cfg(feature = "wgpu")]
fn quarantine(device: &pocketlm::DeviceInfo) -> Vec<Quarantined> {
    models::cache_folder().map_or_else(|_| Vec::new(), |folder| Quarantined::read(&folder, device))
}

/// What is not used of a GPU and why, a line each.
#[cfg(feature = "wgpu")]
pub(super) fn left_out(device: &pocketlm::DeviceInfo) -> Vec<String> {
    let quirks = device.quirks.iter().map(|quirk| {
        let parts: Vec<String> = quirk.leaves_out.iter().map(ToString::to_string).collect();
        format!("without {}: {} ({})", parts.join(" and "), quirk.case, quirk.source)
    });
    let wrong =
        quarantine(device).into_iter().map(|Quarantined { what, why }| format!("not used: {what}: {why}"));
    quirks.chain(wrong).collect()
}

/// A GPU in a line.
#[cfg(feature = "wgpu")]
pub(super) fn describe(device: &pocketlm::DeviceInfo) -> String {
    let kind = if device.software { "software" } else { device.kind };
    let refused = device.refused.as_ref().map_or_else(String::new, |why| format!("; cannot be used: {why}"));
    format!("{}, {}, {kind}, driver {}{refused}", device.name, device.backend, device.driver)
}
