//! Reading states: a copy to a buffer that the host can see, mapped once the device has made it.

use std::sync::mpsc;

use wgpu::{BufferUsages, MapMode};

use super::device::Device;
use super::submit;
use crate::error::{Error, Result};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Where the host sees what the device copied.
#[derive(Debug, Default)]
pub(super) struct Readback {
    staging: Option<wgpu::Buffer>,
}

impl Readback {
    /// Reads bytes `at ..` of `buffer`, whose size is a multiple of 4.
    pub(super) fn read(
        &mut self,
        device: &Device,
        buffer: &wgpu::Buffer,
        at: usize,
        out: &mut [u8],
    ) -> Result<()> {
        for (index, out) in out.chunks_mut(CHUNK).enumerate() {
            self.chunk(device, buffer, at + index * CHUNK, out)?;
        }
        Ok(())
    }

    fn chunk(&mut self, device: &Device, buffer: &wgpu::Buffer, at: usize, out: &mut [u8]) -> Result<()> {
        // Copies begin and end at words.
        let before = at % 4;
        let bytes = (before + out.len()).next_multiple_of(4) as u64;
        // Whatever fails below, the buffer may be left mapped: it is put back only when it is not.
        let staging = match self.staging.take().filter(|staging| staging.size() >= bytes) {
            Some(staging) => staging,
            None => device.buffer(
                "readback",
                bytes.next_power_of_two(),
                BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            )?,
        };
        let copied = submit::copy(device, buffer, (at - before) as u64, &staging, bytes)?;
        let (sender, mapped) = mpsc::channel();
        device.scoped("readback", || {
            staging.map_async(MapMode::Read, ..bytes, move |result| {
                let _ = sender.send(result);
            });
        })?;
        device.wait(&copied)?;
        device.meter.drained();
        let failed = || Error::internal("the copy cannot be mapped").at("readback");
        match mapped.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(device.check().err().unwrap_or_else(failed)),
        }
        let view = staging.get_mapped_range(..bytes).map_err(|error| failed().caused_by(error))?;
        out.copy_from_slice(&view[before..before + out.len()]);
        drop(view);
        staging.unmap();
        self.staging = Some(staging);
        Ok(())
    }
}
