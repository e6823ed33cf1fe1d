//! Plans made ready: pipelines found, temps laid out, bindings made, so that a submission only replays.

use std::sync::Arc;

use wgpu::{BufferUsages, ComputePipeline};

use super::device::{Device, padded};
use super::pipelines::{Excluded, Pipelines, choose};
use super::tune::Picks;
use super::upload::Resident;
use crate::error::{Error, Result};
use crate::kernel::{ArgKind, Call, Variant};
use crate::plan::{Arena, Inputs, Operand, Plan, Step};

/// A plan and what its steps need on the device.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) plan: Arc<Plan>,
    /// One for each step.
    pub(super) ops: Vec<Op>,
    /// Bytes of temps on the device.
    pub(super) bytes: u64,
}

/// A step that only waits for its [`crate::kernel::Call`].
#[derive(Debug)]
pub(super) struct Op {
    pub(super) pipeline: ComputePipeline,
    pub(super) bindings: wgpu::BindGroup,
    pub(super) variant: &'static Variant,
    /// For tests: it computes half of what it should.
    is_planted: bool,
}

impl Op {
    /// The workgroups of a call; 0 where it has nothing to do.
    pub(super) fn grid(&self, step: &Step, call: Call) -> [u32; 3] {
        let [x, y, z] = step.home().grid(&step.params, call, self.variant);
        if self.is_planted { [x / 2, y, z] } else { [x, y, z] }
    }
}

/// What is known of variants.
#[derive(Clone, Copy)]
pub(super) struct Choices<'a> {
    pub(super) excluded: &'a Excluded,
    pub(super) picks: &'a Picks,
}

impl Choices<'_> {
    /// The variant for a step.
    pub(super) fn of(self, device: &Device, step: &Step) -> Result<&'static Variant> {
        let suits = |variant: &'static Variant| device.suits(step, variant);
        let asked = self.picks.of(step).or_else(|| device.usual_variant());
        choose(step.kernel, suits, device.info.has, asked, self.excluded)
    }
}

impl Ready {
    /// Makes `plan` ready over the loaded items.
    pub(super) fn of(
        device: &Device,
        pipelines: &Pipelines,
        choices: Choices<'_>,
        items: &[Resident],
        plan: Arc<Plan>,
    ) -> Result<Self> {
        let arena = Arena::of(&plan);
        let rooms = arena.rooms.iter().enumerate().map(|(index, room)| {
            device.buffer(&format!("room {index}"), 4 * room.len as u64, BufferUsages::STORAGE)
        });
        let sources = Sources { items, plan: &plan, arena: &arena, rooms: rooms.collect::<Result<_>>()? };
        let op = |step: &Step| -> Result<Op> {
            let variant = choices.of(device, step)?;
            let (pipeline, layout) = pipelines.of(device, step, variant)?;
            let entries = sources.entries(step)?;
            let descriptor =
                wgpu::BindGroupDescriptor { label: Some(&step.label), layout: &layout, entries: &entries };
            let bindings = device.scoped(&step.label, || device.raw.create_bind_group(&descriptor))?;
            let is_planted = device.options.wrong.contains(&(step.kernel, variant.name));
            Ok(Op { pipeline, bindings, variant, is_planted })
        };
        let ops = plan.steps.iter().map(op).collect::<Result<_>>()?;
        let bytes = sources.rooms.iter().map(wgpu::Buffer::size).sum();
        Ok(Self { plan, ops, bytes })
    }

    /// Refuses inputs beyond the plan's limits.
    pub(super) fn check(&self, inputs: Inputs) -> Result<()> {
        let Plan { name, max_rows, max_outputs, .. } = &*self.plan;
        if inputs.rows == 0 || inputs.rows > *max_rows || inputs.outputs > *max_outputs {
            let limits =
                format!("{inputs:?} where 1 to {max_rows} rows and up to {max_outputs} outputs are allowed");
            return Err(Error::internal(limits).at(format!("plan {name}")));
        }
        Ok(())
    }
}

/// Where operands come from.
struct Sources<'a> {
    items: &'a [Resident],
    plan: &'a Plan,
    arena: &'a Arena,
    rooms: Vec<wgpu::Buffer>,
}

impl Sources<'_> {
    fn entries(&self, step: &Step) -> Result<Vec<wgpu::BindGroupEntry<'_>>> {
        let kernel = step.home();
        let refuse = |what: String| Err(Error::internal(what).at(kernel.name).at(&step.label));
        if step.args.len() != kernel.args.len() || step.params.len() != kernel.params_size {
            return refuse(format!(
                "{} arguments, {} bytes of parameters",
                step.args.len(),
                step.params.len()
            ));
        }
        let mut bindings = Vec::new();
        for (&operand, &kind) in step.args.iter().zip(kernel.args) {
            let found = self.bindings(operand, kind);
            if found.is_empty() {
                return refuse(format!("{operand:?} is not there as {kind:?}"));
            }
            bindings.extend(found);
        }
        let entry = |(binding, resource)| wgpu::BindGroupEntry { binding, resource };
        Ok((0..).zip(bindings.into_iter().map(wgpu::BindingResource::Buffer)).map(entry).collect())
    }

    /// What to bind for an operand, or nothing where it is unknown or of another kind.
    fn bindings(&self, operand: Operand, kind: ArgKind) -> Vec<wgpu::BufferBinding<'_>> {
        match operand {
            Operand::Item(id) => {
                let buffers = self.items.get(id.index()).map_or(Vec::new(), |item| item.buffers(kind));
                buffers.into_iter().map(wgpu::Buffer::as_entire_buffer_binding).collect()
            }
            Operand::Temp(id) => {
                let Some(temp) = self.plan.temps.get(id.index()) else { return Vec::new() };
                let Some(room) = self.arena.room_of[id.index()] else { return Vec::new() };
                // The temp, not its room: what is beyond belongs to nobody.
                let size = padded(4 * self.plan.temp_len(temp) as u64).and_then(wgpu::BufferSize::new);
                vec![wgpu::BufferBinding { buffer: &self.rooms[room], offset: 0, size }]
            }
        }
    }
}
