//! The seal: a word that the last step of each submission writes, and that comes back with its result. Who finds another
//! word there knows that the submission was called finished and is not. Beside it come the times at which it began and
//! ended, where the device has a clock.

use std::time::Duration;

use wgpu::{BindGroup, BufferUsages, ComputePipeline, QuerySet};

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
    pub(super) clock: Option<Clock>,
}

/// What a device's clock writes to.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) stamps: QuerySet,
    pub(super) ticks: wgpu::Buffer,
    /// Of a tick.
    nanoseconds: f32,
}

/// Bytes of a seal.
pub(super) const BYTES: u64 = 4;
/// Bytes of the ticks at which a submission began and ended.
pub(super) const TICKS: u64 = 16;

/// What a submission left in its slot.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) nonce: u32,
    pub(super) words: Vec<u32>,
    pub(super) took: Option<Duration>,
}

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
        let clock = if device.info.timestamps { Some(Clock::new(device)?) } else { None };
        Ok(Self { pipeline, bindings, buffer, clock })
    }

    /// Bytes of a slot for a result of so many bytes.
    pub(super) fn slot_bytes(&self, result: u64) -> u64 {
        BYTES + result + if self.clock.is_some() { TICKS } else { 0 }
    }

    /// Takes the words of a slot apart: the seal, the result, the ticks.
    pub(super) fn open(&self, mut words: Vec<u32>) -> Opened {
        let took = self.clock.as_ref().and_then(|clock| clock.took(&mut words));
        let nonce = if words.is_empty() { 0 } else { words.remove(0) };
        Opened { nonce, words, took }
    }
}

impl Clock {
    fn new(device: &Device) -> Result<Self> {
        let descriptor =
            wgpu::QuerySetDescriptor { label: Some("clock"), ty: wgpu::QueryType::Timestamp, count: 2 };
        let stamps = device.scoped("clock", || device.raw.create_query_set(&descriptor))?;
        let ticks = device.buffer("clock", TICKS, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
        Ok(Self { stamps, ticks, nanoseconds: device.queue.get_timestamp_period() })
    }

    /// The time between the ticks that stand last; `None` where a clock ran backwards, as some do.
    fn took(&self, words: &mut Vec<u32>) -> Option<Duration> {
        let ticks = words.split_off(words.len().checked_sub(4)?);
        let tick = |at: usize| u64::from(ticks[at]) | u64::from(ticks[at + 1]) << 32;
        let ticks = tick(2).checked_sub(tick(0)).filter(|&ticks| ticks > 0)?;
        Some(Duration::from_nanos((ticks as f64 * f64::from(self.nanoseconds)) as u64))
    }
}
