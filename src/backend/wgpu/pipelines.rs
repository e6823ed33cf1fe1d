//! Shaders compiled for a device, each once, however many programs and models use it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wgpu::{BindGroupLayout, ComputePipeline, ShaderModule, ShaderStages};

use super::cache::Cache;
use super::device::Device;
use super::spirv::assemble;
use crate::error::{Error, Result};
use crate::kernel::{ArgKind, Form, Kernel, KernelId, Needs, Variant, compose};
use crate::plan::Step;

/// What is compiled so far. Several threads may compile at a time.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    layouts: Mutex<HashMap<KernelId, BindGroupLayout>>,
    modules: Mutex<HashMap<Source, ShaderModule>>,
    pipelines: Mutex<HashMap<Key, ComputePipeline>>,
    /// Also a handle of it, so that nobody waits for its lock to compile.
    cache: Option<(wgpu::PipelineCache, Mutex<Cache>)>,
}

/// What a pipeline depends on.
pub(super) type Key = (Source, Overrides);

/// What the text of a shader depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) kernel: KernelId,
    pub(super) variant: &'static str,
    pub(super) form: Form,
}

/// Override constants and the bits of their values.
type Overrides = Vec<(&'static str, u64)>;

/// Variants that are not to be used on a device, by kernel and name.
pub(super) type Excluded = HashSet<(KernelId, &'static str)>;

impl Pipelines {
    /// Nothing compiled, but for what a cache of the driver in `folder` has.
    pub(super) fn new(device: &Device, folder: Option<&Path>) -> Result<Self> {
        let cache = folder.map(|folder| Cache::open(device, folder)).transpose()?.flatten();
        let cache = cache.map(|cache| (cache.raw.clone(), Mutex::new(cache)));
        Ok(Self { cache, ..Self::default() })
    }

    /// What the pipeline of a step depends on.
    pub(super) fn key(step: &Step, variant: &'static Variant) -> Key {
        let source = Source { kernel: step.kernel, variant: variant.name, form: step.form };
        let overrides = step.home().overrides(&step.params, variant);
        (source, overrides.iter().map(|&(name, value)| (name, value.to_bits())).collect())
    }

    /// The pipeline of a step and the layout of its bindings.
    pub(super) fn of(
        &self,
        device: &Device,
        step: &Step,
        variant: &'static Variant,
    ) -> Result<(ComputePipeline, BindGroupLayout)> {
        let kernel = step.home();
        let label = format!("{} {}", kernel.name, variant.name);
        let layout = get_or_make(&self.layouts, step.kernel, || bind_group_layout(device, kernel))?;
        let key = Self::key(step, variant);
        let source = key.0;
        let pipeline = get_or_make(&self.pipelines, key, || {
            let overrides = kernel.overrides(&step.params, variant);
            let text = compose(variant, step.form)?;
            let words = if device.info.spirv { assemble(&text, variant.needs, &overrides)? } else { None };
            let recipe = Recipe {
                label: &label,
                layout: &layout,
                immediates: 8 + kernel.params_size,
                cache: self.cache.as_ref().map(|(raw, _)| raw),
            };
            if let Some(words) = words {
                let module = raw_module(device, &label, &words)?;
                return recipe.pipeline(device, &module, &[]);
            }
            let module = get_or_make(&self.modules, source, || module(device, &label, &text))?;
            recipe.pipeline(device, &module, &overrides)
        })?;
        Ok((pipeline, layout))
    }

    /// Writes what the driver compiled to its file, where there is one.
    ///
    /// # Errors
    /// As [`Cache::keep`].
    pub(super) fn keep(&self) -> Result<()> {
        self.cache.as_ref().map_or(Ok(()), |(_, cache)| locked(cache).keep())
    }
}

/// The variant to use: the one that was asked for by name where it can run and suits, else the first that can.
pub(super) fn choose(
    id: KernelId,
    suits: impl Fn(&'static Variant) -> bool,
    has: Needs,
    asked: Option<&str>,
    excluded: &Excluded,
) -> Result<&'static Variant> {
    let variants = runnable(id, suits, has, excluded);
    let asked = variants.iter().find(|variant| Some(variant.name) == asked);
    asked.or_else(|| variants.first()).copied().ok_or_else(|| {
        Error::unsupported(format!("no variant of {} works on the device", id.kernel().name))
            .hint("use the CPU backend")
    })
}

/// The variants that can run, in the order of the list.
pub(super) fn runnable(
    id: KernelId,
    suits: impl Fn(&'static Variant) -> bool,
    has: Needs,
    excluded: &Excluded,
) -> Vec<&'static Variant> {
    let runs = |variant: &&'static Variant| {
        variant.needs.are_met(has) && suits(variant) && !excluded.contains(&(id, variant.name))
    };
    id.kernel().variants.iter().filter(runs).collect()
}

fn bind_group_layout(device: &Device, kernel: &Kernel) -> Result<BindGroupLayout> {
    let buffers = kernel.args.iter().flat_map(|kind| match kind {
        ArgKind::Matrix => vec![true, true],
        kind => vec![!kind.is_written()],
    });
    let entries: Vec<_> = buffers
        .zip(0..)
        .map(|(read_only, binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries };
    device.scoped(kernel.name, || device.raw.create_bind_group_layout(&descriptor))
}

fn module(device: &Device, label: &str, text: &str) -> Result<ShaderModule> {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(text.into()) };
    device.scoped(label, || {
        if device.options.checked {
            return device.raw.create_shader_module(descriptor);
        }
        // SAFETY: the shaders are this crate's own. Their loops end and their divisors are not 0 for any
        // parameters that a plan holds, and they guard their indices by the sizes in those parameters. What
        // comes from data (tokens, pages) is checked on the host before it is written to a state.
        unsafe { device.raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    })
}

fn raw_module(device: &Device, label: &str, words: &[u32]) -> Result<ShaderModule> {
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(label),
        // The size is of interest to Metal alone.
        entry_points: vec![wgpu::PassthroughShaderEntryPoint {
            name: "main".into(),
            workgroup_size: (0, 0, 0),
        }]
        .into(),
        spirv: Some(words.into()),
        ..Default::default()
    };
    // SAFETY: naga wrote the words for a shader that it validated, for the capabilities that the variant needs and the
    // device has; what `mend` takes away carries no meaning. For the shader the same holds as above.
    device.scoped(label, || unsafe { device.raw.create_shader_module_passthrough(descriptor) })
}

/// What a pipeline is made with beside its shader.
struct Recipe<'a> {
    label: &'a str,
    layout: &'a BindGroupLayout,
    immediates: usize,
    cache: Option<&'a wgpu::PipelineCache>,
}

impl Recipe<'_> {
    fn pipeline(
        &self,
        device: &Device,
        module: &ShaderModule,
        overrides: &[(&'static str, f64)],
    ) -> Result<ComputePipeline> {
        let label = Some(self.label);
        device.scoped(self.label, || {
            let layout = device.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(self.layout)],
                immediate_size: self.immediates as u32,
            });
            device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&layout),
                module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: overrides,
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.cache,
            })
        })
    }
}

/// What is made under a key, made now where it is not. Nobody waits while it is being made: two may make the same, and the
/// first to finish is kept.
fn get_or_make<K: Eq + Hash, V: Clone>(
    made: &Mutex<HashMap<K, V>>,
    key: K,
    make: impl FnOnce() -> Result<V>,
) -> Result<V> {
    if let Some(found) = locked(made).get(&key).cloned() {
        return Ok(found);
    }
    let fresh = make()?;
    Ok(locked(made).entry(key).or_insert(fresh).clone())
}

/// Nothing here is left half done by a panic.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_is_the_best_that_runs() {
        let every = Needs { subgroup: 8, f16: true, matrix: 24, rounding: true };
        for &id in KernelId::ALL {
            let variants = id.kernel().variants;
            let last = variants.last().unwrap().name;
            let none = Excluded::new();
            assert_eq!(choose(id, |_| true, every, None, &none).unwrap().name, variants[0].name);
            assert_eq!(choose(id, |_| true, every, Some(last), &none).unwrap().name, last);
            assert_eq!(choose(id, |_| true, every, Some("nonsense"), &none).unwrap().name, variants[0].name);
            assert_eq!(choose(id, |_| true, Needs::default(), None, &none).unwrap().needs, Needs::default());
            let all: Excluded = variants.iter().map(|variant| (id, variant.name)).collect();
            assert!(choose(id, |_| true, every, Some(last), &all).is_err());
            let plainest = |variant: &Variant| variant.name == last;
            assert_eq!(choose(id, plainest, every, None, &none).unwrap().name, last);
        }
    }
}
