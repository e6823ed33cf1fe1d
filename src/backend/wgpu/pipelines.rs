//! Shaders compiled for a device, each once, however many programs and models use it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use wgpu::{BindGroupLayout, ComputePipeline, ShaderModule, ShaderStages};

use super::device::Device;
use super::spirv::assemble;
use crate::error::{Error, Result};
use crate::kernel::{ArgKind, Form, Kernel, KernelId, Needs, Variant, compose};
use crate::plan::Step;

/// What is compiled so far.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    layouts: HashMap<KernelId, BindGroupLayout>,
    modules: HashMap<Source, ShaderModule>,
    pipelines: HashMap<(Source, Overrides), ComputePipeline>,
}

/// What the text of a shader depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source {
    kernel: KernelId,
    variant: &'static str,
    form: Form,
}

/// Override constants and the bits of their values.
type Overrides = Vec<(&'static str, u64)>;

/// Variants that are not to be used on a device, by kernel and name.
pub(super) type Excluded = HashSet<(KernelId, &'static str)>;

impl Pipelines {
    /// The pipeline of a step and the layout of its bindings.
    pub(super) fn of(
        &mut self,
        device: &Device,
        step: &Step,
        variant: &'static Variant,
    ) -> Result<(ComputePipeline, BindGroupLayout)> {
        let kernel = step.home();
        let source = Source { kernel: step.kernel, variant: variant.name, form: step.form };
        let label = format!("{} {}", kernel.name, variant.name);
        let layout = get_or_make(&mut self.layouts, step.kernel, || bind_group_layout(device, kernel))?;
        let overrides = kernel.overrides(&step.params, variant);
        let bits = overrides.iter().map(|&(name, value)| (name, value.to_bits())).collect();
        let pipeline = get_or_make(&mut self.pipelines, (source, bits), || {
            let immediates = 8 + kernel.params_size;
            let text = compose(variant, step.form)?;
            let words = if device.info.spirv { assemble(&text, variant.needs, &overrides)? } else { None };
            if let Some(words) = words {
                let module = raw_module(device, &label, &words)?;
                return pipeline(device, &label, &layout, immediates, &module, &[]);
            }
            let module = get_or_make(&mut self.modules, source, || module(device, &label, &text))?;
            pipeline(device, &label, &layout, immediates, &module, &overrides)
        })?;
        Ok((pipeline, layout))
    }
}

/// The variant to use: the one that was asked for by name where it can run and suits, else the first that can.
pub(super) fn choose(
    id: KernelId,
    suits: impl Fn(&Variant) -> bool,
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
    suits: impl Fn(&Variant) -> bool,
    has: Needs,
    excluded: &Excluded,
) -> Vec<&'static Variant> {
    let runs = |variant: &&Variant| {
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

fn pipeline(
    device: &Device,
    label: &str,
    layout: &BindGroupLayout,
    immediates: usize,
    module: &ShaderModule,
    overrides: &[(&'static str, f64)],
) -> Result<ComputePipeline> {
    device.scoped(label, || {
        let pipeline_layout = device.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(layout)],
            immediate_size: immediates as u32,
        });
        device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&pipeline_layout),
            module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: overrides,
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    })
}

fn get_or_make<K: Eq + Hash, V: Clone>(
    made: &mut HashMap<K, V>,
    key: K,
    make: impl FnOnce() -> Result<V>,
) -> Result<V> {
    Ok(match made.entry(key) {
        Entry::Occupied(entry) => entry.get().clone(),
        Entry::Vacant(entry) => entry.insert(make()?).clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_is_the_best_that_runs() {
        let every = Needs { subgroup: 8, f16: true };
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
