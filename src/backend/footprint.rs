//! What a store and its plans take of memory, said before anything is loaded: by the sizes that the backends themselves
//! ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::plan::{Arena, Item, Plan};
use crate::quant::{Format, Matrix};

use super::{Meter, cpu};

/// Bytes that something takes once it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Memory that is allocated for it.
    pub held: u64,
    /// Pages of the model file that are in use beside it; the system takes them back when it must, and reads them again.
    pub mapped: u64,
    /// The largest buffer.
    pub largest: u64,
}

/// In whose order the weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Codes and scales of a GPU, each in a buffer.
    Gpu,
    /// Groups of rows of the CPU; the bytes of the file where products are exact, and for formats without codes.
    Cpu {
        /// As in [`cpu::CpuOptions`].
        exact: bool,
    },
}

impl Order {
    /// Of an item of a store.
    pub fn item(self, item: &Item) -> Footprint {
        match item {
            Item::Matrix(matrix) => self.matrix(matrix),
            Item::Vector { .. } | Item::State { .. } => self.words(item.words()),
        }
    }

    /// Of the temps of a plan: the rooms that they share.
    pub fn temps(self, plan: &Plan) -> Footprint {
        let rooms = Arena::of(plan).rooms;
        rooms.iter().map(|room| self.words(room.len)).fold(Footprint::default(), Footprint::and)
    }

    /// Bytes that a matrix of this shape is kept in.
    pub fn weights(self, format: Format, rows: usize, cols: usize) -> u64 {
        match self {
            Self::Gpu => gpu_parts(format, rows, cols).into_iter().map(padded_or_all).sum(),
            Self::Cpu { exact: false } if let Some(bytes) = cpu::packed_bytes(format, rows, cols) => bytes,
            Self::Cpu { .. } => file_bytes(format, rows, cols),
        }
    }

    fn matrix(self, matrix: &Matrix) -> Footprint {
        let (format, rows, cols) = (matrix.format(), matrix.rows(), matrix.cols());
        let held = self.weights(format, rows, cols);
        match self {
            Self::Gpu => {
                let largest = gpu_parts(format, rows, cols).into_iter().max().unwrap_or(0);
                Footprint { held, mapped: 0, largest }
            }
            Self::Cpu { exact } if exact || cpu::packed_bytes(format, rows, cols).is_none() => {
                let made = matrix.made_bytes();
                Footprint { held: made, mapped: matrix.bytes() - made, largest: made }
            }
            Self::Cpu { .. } => Footprint { held, mapped: 0, largest: held },
        }
    }

    fn words(self, words: usize) -> Footprint {
        let bytes = 4 * words as u64;
        let held = if self == Self::Gpu { padded_or_all(bytes) } else { bytes };
        Footprint { held, mapped: 0, largest: held }
    }
}

impl Footprint {
    /// Of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            held: self.held.saturating_add(other.held),
            mapped: self.mapped.saturating_add(other.mapped),
            largest: self.largest.max(other.largest),
        }
    }
}

/// Bytes that the meter of the device counts for one backend.
#[derive(Debug)]
pub(super) struct Held {
    meter: Arc<Meter>,
    bytes: u64,
}

impl Held {
    pub(super) fn of(meter: Arc<Meter>) -> Self {
        Self { meter, bytes: 0 }
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.meter.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    #[cfg(feature = "wgpu")]
    pub(super) fn give(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.meter.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// `bytes` as the size of a GPU's buffer: whole vectors, at least one, since an empty binding is not allowed.
pub(super) fn padded(bytes: u64) -> Option<u64> {
    bytes.max(1).checked_next_multiple_of(16)
}

fn padded_or_all(bytes: u64) -> u64 {
    padded(bytes).unwrap_or(u64::MAX)
}

/// Bytes of codes and of scales in GPU order.
fn gpu_parts(format: Format, rows: usize, cols: usize) -> [u64; 2] {
    [format.code_words(cols), format.scale_words(cols)]
        .map(|words| (4 * words as u64).saturating_mul(rows as u64))
}

fn file_bytes(format: Format, rows: usize, cols: usize) -> u64 {
    (cols.div_ceil(format.block_len()) as u64 * format.block_bytes() as u64).saturating_mul(rows as u64)
}
