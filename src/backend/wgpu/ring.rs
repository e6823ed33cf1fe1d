//! Results on their way to the host: each submission copies its [seal](super::seal) and its own result to a slot that the
//! host maps once it is finished, so that nobody waits for what was submitted after it.

use std::sync::mpsc;

use wgpu::{BufferAsyncError, BufferUsages, MapMode, SubmissionIndex};

use super::super::Ticket;
use super::device::Device;
use crate::error::{Error, Result};

/// A submission under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) ticket: Ticket,
    pub(super) index: SubmissionIndex,
    pub(super) nonce: u32,
    pub(super) result: Mapped,
}

/// Slots that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Ring {
    free: Vec<wgpu::Buffer>,
}

/// Where a submission copies its result.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) buffer: wgpu::Buffer,
    pub(super) bytes: u64,
}

/// A slot that is mapped when its submission has finished.
#[derive(Debug)]
pub(super) struct Mapped {
    slot: Slot,
    outcome: mpsc::Receiver<std::result::Result<(), BufferAsyncError>>,
}

impl Ring {
    /// A slot for a submission that is about to be made. It comes back by [`Self::words`]; one whose result is not asked
    /// for is lost, and with it no more than its buffer.
    pub(super) fn slot(&mut self, device: &Device, bytes: u64) -> Result<Slot> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let free = self.free.iter().position(|buffer| buffer.size() >= bytes);
        let buffer = match free {
            Some(at) => self.free.swap_remove(at),
            None => device.buffer("ring", bytes.next_power_of_two(), usage)?,
        };
        Ok(Slot { buffer, bytes })
    }

    /// The words of a slot whose submission has finished.
    pub(super) fn words(&mut self, device: &Device, mapped: Mapped) -> Result<Vec<u32>> {
        let failed = || Error::internal("the result cannot be mapped").at("ring");
        let Mapped { slot: Slot { buffer, bytes }, outcome } = mapped;
        match outcome.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(device.check().err().unwrap_or_else(failed)),
        }
        let view = buffer.get_mapped_range(..bytes).map_err(|error| failed().caused_by(error))?;
        let words = view.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let words = words.collect();
        drop(view);
        buffer.unmap();
        self.free.push(buffer);
        Ok(words)
    }
}

impl Slot {
    /// The submission has been made: the slot is mapped as soon as it has finished.
    pub(super) fn mapped(self, device: &Device) -> Result<Mapped> {
        let (sender, outcome) = mpsc::channel();
        device.scoped("ring", || {
            self.buffer.map_async(MapMode::Read, ..self.bytes, move |result| {
                // Nobody may be left to hear it.
                let _ = sender.send(result);
            });
        })?;
        Ok(Mapped { slot: self, outcome })
    }
}
