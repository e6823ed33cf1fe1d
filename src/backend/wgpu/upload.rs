//! The store on its way to the device: matrices rewritten row by row into GPU order, chunk by chunk, so that no
//! second copy of the weights ever exists on the host.

use std::collections::VecDeque;
use std::mem::take;
use std::thread;

use wgpu::{BufferUsages, SubmissionIndex};

use super::device::Device;
use super::submit;
use crate::base::product;
use crate::error::{Error, Result};
use crate::kernel::ArgKind;
use crate::plan::{Item, Store};
use crate::quant::Matrix;

use super::super::Progress;

/// Bytes that are rewritten and sent at a time.
const CHUNK: usize = 4 << 20;
/// Chunks that may be under way.
const IN_FLIGHT: usize = 2;
/// Threads that rewrite; the memory is the limit soon after.
const THREADS: usize = 4;
/// Words of codes below which a thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 16;

/// An item of the store on the device.
#[derive(Debug)]
pub(super) enum Resident {
    /// A matrix in GPU order.
    Matrix { codes: wgpu::Buffer, scales: wgpu::Buffer },
    /// Constant words.
    Vector(wgpu::Buffer),
    /// Words that can be written and read.
    State { buffer: wgpu::Buffer, bytes: usize },
    /// Such words, whose memory was given back.
    Empty { bytes: usize },
}

impl Resident {
    /// The buffers to bind for an argument of `kind`, or nothing where the item is of another.
    pub(super) fn buffers(&self, kind: ArgKind) -> Vec<&wgpu::Buffer> {
        match self {
            Self::Matrix { codes, scales } if kind == ArgKind::Matrix => vec![codes, scales],
            Self::Vector(buffer) if kind == ArgKind::F32 => vec![buffer],
            Self::State { buffer, .. } if kind != ArgKind::Matrix => vec![buffer],
            _ => Vec::new(),
        }
    }

    /// Bytes on the device.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Matrix { codes, scales } => codes.size() + scales.size(),
            Self::Vector(buffer) | Self::State { buffer, .. } => buffer.size(),
            Self::Empty { .. } => 0,
        }
    }

    /// Drops the buffer of a state.
    pub(super) fn empty(&mut self) {
        if let Self::State { bytes, .. } = *self {
            *self = Self::Empty { bytes };
        }
    }
}

/// Puts every item of `store` on the device.
pub(super) fn store(device: &Device, store: &Store, progress: Progress<'_>) -> Result<Vec<Resident>> {
    let mut total = 0;
    for (_, item) in store.items() {
        total += match item {
            Item::Matrix(matrix) => GpuRows::of(matrix)?.bytes(),
            Item::Vector { values, .. } => 4 * values.len() as u64,
            Item::State { .. } => 0,
        };
    }
    let mut upload = Upload { sender: Sender::new(device), progress, done: 0, total };
    let residents = store
        .items()
        .map(|(_, item)| upload.item(item).map_err(|error| error.at(item.name())))
        .collect::<Result<_>>()?;
    upload.sender.finish()?;
    Ok(residents)
}

/// Writes with a bounded amount of them under way.
pub(super) struct Sender<'a> {
    device: &'a Device,
    waiting: usize,
    in_flight: VecDeque<SubmissionIndex>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self { device, waiting: 0, in_flight: VecDeque::new() }
    }

    /// Writes `bytes`, a multiple of 4 of them, to byte `at` of `buffer`, a multiple of 4.
    pub(super) fn send(&mut self, buffer: &wgpu::Buffer, at: u64, bytes: &[u8]) -> Result<()> {
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let at = at + (index * CHUNK) as u64;
            self.device.scoped("upload", || self.device.queue.write_buffer(buffer, at, chunk))?;
            self.waiting += chunk.len();
            if self.waiting >= CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Waits until all is there, and the memory it waited in is free.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.waiting > 0 {
            self.flush()?;
        }
        self.wait_for_all_but(0)
    }

    fn flush(&mut self) -> Result<()> {
        self.in_flight.push_back(submit::writes(self.device)?);
        self.waiting = 0;
        self.wait_for_all_but(IN_FLIGHT)
    }

    fn wait_for_all_but(&mut self, count: usize) -> Result<()> {
        let done = self.in_flight.len().saturating_sub(count);
        self.in_flight.drain(..done).try_for_each(|index| self.device.wait(&index))
    }
}

struct Upload<'a> {
    sender: Sender<'a>,
    progress: Progress<'a>,
    done: u64,
    total: u64,
}

impl Upload<'_> {
    fn item(&mut self, item: &Item) -> Result<Resident> {
        let device = self.sender.device;
        let constant = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        match item {
            Item::Matrix(matrix) => {
                let rows = GpuRows::of(matrix)?;
                let codes = device.buffer(matrix.name(), rows.codes_bytes, constant)?;
                let scales = device.buffer(matrix.name(), rows.scales_bytes, constant)?;
                self.matrix(matrix, &rows, &codes, &scales)?;
                matrix.release();
                Ok(Resident::Matrix { codes, scales })
            }
            Item::Vector { name, values } => {
                let buffer = device.buffer(name, 4 * values.len() as u64, constant)?;
                for (index, chunk) in values.chunks(CHUNK / 4).enumerate() {
                    self.sender.send(&buffer, (index * CHUNK) as u64, bytemuck::cast_slice(chunk))?;
                    self.advance(4 * chunk.len())?;
                }
                Ok(Resident::Vector(buffer))
            }
            Item::State { name, words } => {
                let bytes = product(&[4, *words as u64])?;
                // wgpu zeroes a buffer before it is used first.
                let buffer = device.buffer(name, bytes as u64, constant | BufferUsages::COPY_SRC)?;
                Ok(Resident::State { buffer, bytes })
            }
        }
    }

    fn matrix(
        &mut self,
        matrix: &Matrix,
        rows: &GpuRows,
        codes: &wgpu::Buffer,
        scales: &wgpu::Buffer,
    ) -> Result<()> {
        let row_bytes = 4 * (rows.code_words + rows.scale_words);
        let step = (CHUNK / row_bytes).clamp(1, matrix.rows());
        let mut words = (vec![0; step * rows.code_words], vec![0; step * rows.scale_words]);
        for first in (0..matrix.rows()).step_by(step) {
            let count = step.min(matrix.rows() - first);
            let code_words = &mut words.0[..count * rows.code_words];
            let scale_words = &mut words.1[..count * rows.scale_words];
            repack(matrix, first, rows, code_words, scale_words);
            let at = |words: usize| 4 * first as u64 * words as u64;
            self.sender.send(codes, at(rows.code_words), bytemuck::cast_slice(code_words))?;
            self.sender.send(scales, at(rows.scale_words), bytemuck::cast_slice(scale_words))?;
            self.advance(count * row_bytes)?;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) -> Result<()> {
        self.done += bytes as u64;
        (self.progress)(self.done, self.total)
    }
}

/// A matrix in GPU order: sizes of a row in u32 words, and of all rows in bytes.
struct GpuRows {
    code_words: usize,
    scale_words: usize,
    codes_bytes: u64,
    scales_bytes: u64,
}

impl GpuRows {
    fn of(matrix: &Matrix) -> Result<Self> {
        let (format, k) = (matrix.format(), matrix.cols());
        let (code_words, scale_words) = (format.code_words(k), format.scale_words(k));
        let bytes =
            |words: usize| product(&[4, matrix.rows() as u64, words as u64]).map(|bytes| bytes as u64);
        Ok(Self {
            code_words,
            scale_words,
            codes_bytes: bytes(code_words)?,
            scales_bytes: bytes(scale_words)?,
        })
    }

    fn bytes(&self) -> u64 {
        self.codes_bytes + self.scales_bytes
    }
}

/// Rewrites the rows `first ..` that fill `codes` and `scales`.
fn repack(matrix: &Matrix, first: usize, rows: &GpuRows, mut codes: &mut [u32], mut scales: &mut [u32]) {
    let count = codes.len() / rows.code_words;
    let threads = match thread::available_parallelism() {
        Ok(threads) if codes.len() >= WORTH_A_THREAD => threads.get().min(THREADS),
        _ => 1,
    };
    let share = count.div_ceil(threads);
    thread::scope(|scope| {
        for begin in (0..count).step_by(share) {
            let mine = share.min(count - begin);
            let (my_codes, rest) = take(&mut codes).split_at_mut(mine * rows.code_words);
            codes = rest;
            let (my_scales, rest) = take(&mut scales).split_at_mut(mine * rows.scale_words);
            scales = rest;
            let mut work = move || {
                my_codes.fill(0);
                my_scales.fill(0);
                for i in 0..mine {
                    let codes = &mut my_codes[i * rows.code_words..][..rows.code_words];
                    let scales = &mut my_scales[i * rows.scale_words..][..rows.scale_words];
                    matrix.format().repack(&matrix.row(first + begin + i), codes, scales);
                }
            };
            if share == count { work() } else { drop(scope.spawn(work)) }
        }
    });
}

/// Refuses bytes that are not inside a state, and gives its buffer.
pub(super) fn state(items: &[Resident], index: usize, at: usize, len: usize) -> Result<&wgpu::Buffer> {
    let Some(Resident::State { buffer, bytes }) = items.get(index) else {
        return Err(Error::internal(format!("item {index} is not a state of the loaded store")));
    };
    if at.checked_add(len).is_none_or(|end| end > *bytes) {
        return Err(Error::internal(format!("bytes {at} .. {at} + {len} of a state of {bytes} bytes")));
    }
    Ok(buffer)
}
