//! Which device, and why.

use crate::backend::Backend;
use crate::backend::cpu::{Cpu, CpuOptions};
use crate::backend::fault::Faulty;
use crate::error::Result;

#[cfg(feature = "wgpu")]
use super::options::Limits;
use super::options::{Device, EngineOptions};

#[cfg(feature = "wgpu")]
use crate::backend::wgpu as gpu;

/// A backend and why it was taken.
pub(super) struct Opened {
    pub(super) backend: Box<dyn Backend>,
    pub(super) reason: String,
}

pub(super) fn open(options: &EngineOptions) -> Result<Opened> {
    let Some(faults) = &options.faults else { return chosen(options) };
    faults.open()?;
    let Opened { backend, reason } = chosen(options)?;
    Ok(Opened { backend: Box::new(Faulty::new(backend, faults.clone())), reason })
}

fn chosen(options: &EngineOptions) -> Result<Opened> {
    #[cfg(feature = "wgpu")]
    if let Some(host) = &options.shared {
        let gpu = gpu::Gpu::shared(host, gpu_options(options))?;
        return Ok(Opened { backend: Box::new(gpu), reason: "the host's own device".into() });
    }
    match options.device {
        Device::Cpu => cpu(options, "asked for".into()),
        Device::Auto => auto(options),
        Device::Gpu | Device::Index(_) => asked(options),
    }
}

/// The CPU, for `reason`.
pub(super) fn cpu(options: &EngineOptions, reason: String) -> Result<Opened> {
    Ok(Opened { backend: Box::new(bare_cpu(options)?), reason })
}

pub(super) fn bare_cpu(options: &EngineOptions) -> Result<Cpu> {
    let chosen = CpuOptions { threads: options.threads, exact: options.exact };
    if options.portable { Cpu::portable(chosen) } else { Cpu::new(chosen) }
}

#[cfg(feature = "wgpu")]
fn auto(options: &EngineOptions) -> Result<Opened> {
    let found = gpu::devices();
    match found.iter().find(|device| !device.software && device.refused.is_none()) {
        Some(device) => match gpu::Gpu::open(gpu::Choice::Index(device.index), gpu_options(options)) {
            Ok(gpu) => Ok(Opened { backend: Box::new(gpu), reason: "the first real GPU".into() }),
            Err(error) => cpu(options, format!("the GPU {} cannot be used: {error}", device.name)),
        },
        None => cpu(
            options,
            match found.first() {
                Some(device) => {
                    format!("the only GPU is software ({}), slower than the CPU itself", device.name)
                }
                None => "no GPU was found".into(),
            },
        ),
    }
}

#[cfg(feature = "wgpu")]
fn asked(options: &EngineOptions) -> Result<Opened> {
    let choice = match options.device {
        Device::Index(index) => gpu::Choice::Index(index),
        _ => gpu::Choice::Any,
    };
    let gpu = gpu::Gpu::open(choice, gpu_options(options))?;
    Ok(Opened { backend: Box::new(gpu), reason: "asked for".into() })
}

#[cfg(feature = "wgpu")]
pub(super) fn gpu_options(options: &EngineOptions) -> gpu::Options {
    let EngineOptions { checked, exact, tuning, trusted, wrong, patience, limits, .. } = options.clone();
    let (floor, max_buffer_bytes) = match limits {
        Limits::Device => (false, None),
        Limits::Floor => (true, None),
        Limits::Buffer(bytes) => (false, Some(bytes)),
    };
    let plain = gpu::Options::default();
    gpu::Options { checked, exact, tuning, trusted, wrong, patience, floor, max_buffer_bytes, ..plain }
}

#[cfg(not(feature = "wgpu"))]
fn auto(options: &EngineOptions) -> Result<Opened> {
    cpu(options, "this build has no GPU backend".into())
}

#[cfg(not(feature = "wgpu"))]
fn asked(_options: &EngineOptions) -> Result<Opened> {
    let what = "this build has no GPU backend";
    Err(crate::error::Error::new(crate::error::Kind::DeviceUnavailable, what)
        .hint("build with the feature wgpu, or take the CPU"))
}
