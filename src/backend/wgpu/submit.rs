//! The only file that submits: what is encoded here is everything that ever runs on the device.

use std::ops::Range;

use wgpu::{ComputePass, SubmissionIndex};

use super::device::Device;
use super::program::{Op, Ready};
use super::ring::Slot;
use super::seal::{self, Seal};
use crate::error::{Error, Result};
use crate::kernel::{Call, IMMEDIATES};
use crate::plan::{Inputs, Step};

/// Workgroups that every device starts in one dimension.
const MAX_GROUPS: u32 = 65535;

/// How a submission ends that is waited for by its ticket.
pub(super) struct End<'a> {
    pub(super) seal: &'a Seal,
    pub(super) nonce: u32,
    /// The first bytes of it go to the slot, behind the seal.
    pub(super) result: Option<(&'a wgpu::Buffer, u64)>,
    pub(super) slot: &'a Slot,
}

/// Starts steps of a program in one pass; wgpu puts barriers between those that share a buffer.
pub(super) fn steps(
    device: &Device,
    ready: &Ready,
    steps: Range<usize>,
    inputs: Inputs,
    end: Option<&End<'_>>,
) -> Result<SubmissionIndex> {
    device.scoped(&ready.plan.name, || {
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        let clock = end.and_then(|end| end.seal.clock.as_ref());
        let timestamp_writes = clock.map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.stamps,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        let mut bound = None;
        let mut dispatches = 0;
        for (op, step) in ready.ops[steps.clone()].iter().zip(&ready.plan.steps[steps]) {
            if let Some(call) = step.call(inputs) {
                dispatches += encode(&mut pass, op, step, call, &mut bound)?;
            }
        }
        if let Some(End { seal, nonce, .. }) = end {
            pass.set_pipeline(&seal.pipeline);
            pass.set_bind_group(0, &seal.bindings, &[]);
            pass.set_immediates(0, bytemuck::cast_slice(&[1, 1, *nonce]));
            pass.dispatch_workgroups(1, 1, 1);
            dispatches += 1;
        }
        drop(pass);
        if let Some(End { seal, result, slot, .. }) = end {
            encoder.copy_buffer_to_buffer(&seal.buffer, 0, &slot.buffer, 0, seal::BYTES);
            let mut at = seal::BYTES;
            if let &Some((from, bytes)) = result {
                encoder.copy_buffer_to_buffer(from, 0, &slot.buffer, at, bytes);
                at += bytes;
            }
            if let Some(clock) = clock {
                encoder.resolve_query_set(&clock.stamps, 0..2, &clock.ticks, 0);
                encoder.copy_buffer_to_buffer(&clock.ticks, 0, &slot.buffer, at, seal::TICKS);
            }
        }
        device.meter.submitted(dispatches);
        Ok(device.queue.submit([encoder.finish()]))
    })?
}

/// Starts the steps in a pass each, between two time stamps; stamps 2i and 2i + 1 of the i-th step that is not
/// passed over go to `ticks` as u64.
pub(super) fn timed(
    device: &Device,
    ready: &Ready,
    steps: Range<usize>,
    inputs: Inputs,
    stamps: &wgpu::QuerySet,
    ticks: &wgpu::Buffer,
) -> Result<SubmissionIndex> {
    device.scoped(&ready.plan.name, || {
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        let ops = ready.ops[steps.clone()].iter().zip(&ready.plan.steps[steps]);
        let (mut stamp, mut dispatches) = (0, 0);
        for (op, step, call) in ops.filter_map(|(op, step)| Some((op, step, step.call(inputs)?))) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: stamps,
                beginning_of_pass_write_index: Some(stamp),
                end_of_pass_write_index: Some(stamp + 1),
            });
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            dispatches += encode(&mut pass, op, step, call, &mut None)?;
            stamp += 2;
        }
        encoder.resolve_query_set(stamps, 0..stamp, ticks, 0);
        device.meter.submitted(dispatches);
        Ok(device.queue.submit([encoder.finish()]))
    })?
}

/// Copies bytes `at ..` of `from` to the beginning of `to`.
pub(super) fn copy(
    device: &Device,
    from: &wgpu::Buffer,
    at: u64,
    to: &wgpu::Buffer,
    bytes: u64,
) -> Result<SubmissionIndex> {
    device.scoped("readback", || {
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, at, to, 0, bytes);
        device.meter.submitted(0);
        device.queue.submit([encoder.finish()])
    })
}

/// Sends the writes that wait in the queue on their way.
pub(super) fn writes(device: &Device) -> Result<SubmissionIndex> {
    device.scoped("upload", || {
        device.meter.submitted(0);
        device.queue.submit([])
    })
}

/// The dispatches that the step takes: one, or none where the call has nothing to do.
fn encode<'a>(
    pass: &mut ComputePass<'_>,
    op: &'a Op,
    step: &Step,
    call: Call,
    bound: &mut Option<&'a wgpu::ComputePipeline>,
) -> Result<u64> {
    let [x, y, z] = op.grid(step, call);
    if x.min(y).min(z) == 0 {
        return Ok(0);
    }
    if x.max(y).max(z) > MAX_GROUPS {
        return Err(Error::internal(format!(
            "{x} × {y} × {z} workgroups where {MAX_GROUPS} are allowed in a dimension"
        ))
        .at(step.home().name)
        .at(&step.label));
    }
    let mut immediates = [0; IMMEDIATES];
    immediates[..4].copy_from_slice(&call.rows.to_le_bytes());
    immediates[4..8].copy_from_slice(&call.kv_len.to_le_bytes());
    let end = 8 + step.params.len();
    immediates[8..end].copy_from_slice(&step.params);
    if *bound != Some(&op.pipeline) {
        pass.set_pipeline(&op.pipeline);
        *bound = Some(&op.pipeline);
    }
    pass.set_bind_group(0, &op.bindings, &[]);
    pass.set_immediates(0, &immediates[..end]);
    pass.dispatch_workgroups(x, y, z);
    Ok(1)
}
