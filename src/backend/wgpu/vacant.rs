//! Memory given back for a while: caches and temps leave the device, and come back, zeroed, with the next that is asked of it.

use std::mem::take;
use std::sync::Arc;

use wgpu::BufferUsages;

use super::Gpu;
use super::readback::Readback;
use super::ring::Ring;
use super::upload::Resident;
use crate::error::{Error, Result};
use crate::plan::{ItemId, Plan};

/// The plans that were ready, in order.
pub(super) type Vacant = Vec<Arc<Plan>>;

impl Gpu {
    /// Gives the memory of `states`, of temps and of what results come through back: the bytes.
    pub(super) fn leave(&mut self, states: &[ItemId]) -> Result<u64> {
        self.device.check()?;
        if self.vacant.is_some() {
            return Ok(0);
        }
        if let Some(last) = self.in_flight.back() {
            self.device.wait(&last.index)?;
        }
        self.in_flight.clear();
        (self.ring, self.readback) = (Ring::default(), Readback::default());
        let programs = take(&mut self.programs);
        let mut bytes: u64 = programs.iter().map(|ready| ready.bytes).sum();
        self.vacant = Some(programs.iter().map(|ready| ready.plan.clone()).collect());
        // They hold on to the buffers that they bind.
        drop(programs);
        for state in states {
            let item = self.items.get_mut(state.index());
            let Some(item @ Resident::State { .. }) = item else {
                return Err(Error::internal(format!("item {} is not a state", state.index())));
            };
            bytes += item.bytes();
            item.empty();
        }
        self.held.give(bytes);
        // Memory of what was dropped is free once the device has been polled.
        self.device.check()?;
        Ok(bytes)
    }

    /// Takes again what was given back.
    pub(super) fn come_back(&mut self) -> Result<()> {
        let Some(plans) = self.vacant.take() else { return Ok(()) };
        let outcome = self.fill().and_then(|()| {
            plans.iter().map(|plan| self.ready(&self.excluded, plan.clone())).collect::<Result<Vec<_>>>()
        });
        match outcome {
            Ok(programs) => {
                self.held.take(programs.iter().map(|ready| ready.bytes).sum());
                self.programs = programs;
                Ok(())
            }
            Err(error) => {
                self.vacant = Some(plans);
                Err(error)
            }
        }
    }

    /// A buffer for each state without one.
    fn fill(&mut self) -> Result<()> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        for item in &mut self.items {
            let Resident::Empty { bytes } = *item else { continue };
            let buffer = self.device.buffer("cache", bytes as u64, usage)?;
            self.held.take(buffer.size());
            *item = Resident::State { buffer, bytes };
        }
        Ok(())
    }
}
