//! The seal: a word that the last step of each submission writes, and that comes back with its result. Who finds another
//! word there knows that the submission was called finished and is not.

use wgpu::{BindGroup, BufferUsages, ComputePipeline};

use super::device::Device;
use super::pipelines::Pipelines;
use crate::error::Result;
use crate::kernel::{Form, Home, KernelId, Seal as Kernel};
use crate::plan::{Extent, Step};

/// Where seals are written, and how.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) pipeline: ComputePipeline,
    pub(super) bindings: BindGroup,
    pub(super) buffer: wgpu::Buffer,
}

/// Bytes of a seal.
pub(super) const BYTES: u64 = 4;

impl Seal {
    /// A place of its own: submissions over one queue do not overtake each other.
    pub(super) fn new(device: &Device, pipelines: &Pipelines) -> Result<Self> {
        let step = Step {
            label: "seal".into(),
            kernel: KernelId::Seal,
            params: vec![0; size_of::<<Kernel as Home>::Params>()],
            form: Form::default(),
            extent: Extent::Tokens,
            args: Vec::new(),
        };
        let (pipeline, layout) = pipelines.of(device, &step, &Kernel::VARIANTS[0])?;
        let buffer = device.buffer("seal", BYTES, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
        let entry = wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() };
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some("seal"), layout: &layout, entries: &[entry] };
        let bindings = device.scoped("seal", || device.raw.create_bind_group(&descriptor))?;
        Ok(Self { pipeline, bindings, buffer })
    }
}
