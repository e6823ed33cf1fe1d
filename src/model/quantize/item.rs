//! A tensor of the new model: where its numbers come from, and how they are stored.

use std::borrow::Cow;
use std::thread;

use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::quant::{Format, Matrix};

use super::coding::Coding;
use super::low_rank::Dense;

/// Weights that are encoded at once by all threads.
pub(super) const BATCH: usize = 1 << 21;

/// A tensor of the new model.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its name there, `.weight` or `.bias` included.
    pub(super) name: String,
    /// Its shape there, the contiguous dimension last.
    pub(super) dims: Vec<u64>,
    /// What it is for.
    pub(super) role: Role,
    /// Where the numbers come from.
    pub(super) rows: SourceRows,
    /// How they are stored.
    pub(super) coding: Coding,
    /// The rank of a correction beside it.
    pub(super) rank: Option<usize>,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A matrix of products in a layer.
    Matrix,
    /// A matrix with a row for each token.
    Vocabulary,
    /// Anything else, which stays as it is.
    Table,
}

/// Rows of matrices, one matrix after the other.
#[derive(Clone, Debug)]
pub(super) struct SourceRows {
    parts: Vec<Part>,
    /// Whether the new tensor has columns where these are rows.
    turned: bool,
}

#[derive(Clone, Debug)]
struct Part {
    matrix: Matrix,
    /// Which rows, where not all of them as they stand.
    order: Option<Vec<u32>>,
}

impl SourceRows {
    /// The rows of `matrix`, as they stand.
    pub(super) fn of(matrix: Matrix) -> Self {
        Self { parts: vec![Part { matrix, order: None }], turned: false }
    }

    /// The tensor as it is in the file: its last dimension is a row.
    pub(super) fn stored(tensor: &Tensor) -> Result<Self> {
        let cols = tensor.dims.last().copied().unwrap_or(1) as usize;
        let rows = tensor.dims.iter().rev().skip(1).product::<u64>() as usize;
        Matrix::new(&tensor.name, tensor.format()?, rows, cols, tensor.bytes.clone())
            .map(Self::of)
            .map_err(|error| error.in_file(&tensor.file))
    }

    /// `values` as one row, or as rows of `cols`.
    pub(super) fn values(name: &str, values: &[f32], cols: usize) -> Result<Self> {
        let bytes = Format::F32.encode(values);
        Matrix::new(name, Format::F32, values.len() / cols.max(1), cols, bytes.into()).map(Self::of)
    }

    /// The rows of `order`, in that order.
    pub(super) fn reordered(mut self, order: &[u32]) -> Self {
        for part in &mut self.parts {
            part.order = Some(order.to_vec());
        }
        self
    }

    /// These, and then those of `other`.
    pub(super) fn then(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Columns as rows: the numbers are held in memory while they are written.
    pub(super) fn turned(self) -> Self {
        Self { turned: true, ..self }
    }

    /// The same without turning: in memory, where they are turned.
    pub(super) fn straight(&self) -> Result<Cow<'_, Self>> {
        if !self.turned {
            return Ok(Cow::Borrowed(self));
        }
        let standing = Self { turned: false, ..self.clone() };
        let [rows, cols] = standing.shape();
        let turned = Dense { rows, cols, values: decoded(&standing)? }.transposed();
        Self::values(self.name(), &turned.values, rows).map(Cow::Owned)
    }

    /// The name of the first matrix.
    pub(super) fn name(&self) -> &str {
        self.parts[0].matrix.name()
    }

    /// Rows and columns of the new tensor.
    pub(super) fn shape(&self) -> [usize; 2] {
        let (rows, cols) = (self.parts.iter().map(Part::rows).sum(), self.parts[0].matrix.cols());
        if self.turned { [cols, rows] } else { [rows, cols] }
    }

    /// The format of all rows, where they have one.
    pub(super) fn format(&self) -> Option<Format> {
        let first = self.parts[0].matrix.format();
        self.parts.iter().all(|part| part.matrix.format() == first).then_some(first)
    }

    /// What the rows are in, for a report.
    pub(super) fn first_format(&self) -> Format {
        self.parts[0].matrix.format()
    }

    /// Tells the system that the bytes are not needed for a while.
    pub(super) fn release(&self) {
        self.parts.iter().for_each(|part| part.matrix.release());
    }

    /// A row in file order, which is not turned.
    fn part(&self, row: usize) -> Row<'_> {
        let mut at = row;
        for part in &self.parts {
            if at < part.rows() {
                let row = part.order.as_ref().map_or(at, |order| order[at] as usize);
                return Row { matrix: &part.matrix, row };
            }
            at -= part.rows();
        }
        unreachable!("row {row} of {:?}", self.shape())
    }
}

impl Part {
    fn rows(&self) -> usize {
        self.order.as_ref().map_or(self.matrix.rows(), Vec::len)
    }
}

struct Row<'a> {
    matrix: &'a Matrix,
    row: usize,
}

impl Row<'_> {
    fn decode(&self, values: &mut [f32]) {
        self.matrix.decode_row(self.row, values);
    }

    fn finite(&self, values: &mut [f32]) -> Result<()> {
        self.decode(values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                Err(Error::bad_file(format!("the weight in row {}, column {at} is {}", self.row, values[at]))
                    .at(format!("tensor {}", self.matrix.name())))
            }
        }
    }
}

/// Sums of squares of errors and of values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Errors {
    error: f64,
    value: f64,
}

impl Errors {
    pub(super) fn relative(self) -> f64 {
        if self.value > 0.0 { (self.error / self.value).sqrt() } else { 0.0 }
    }
}

/// All rows as numbers.
pub(super) fn decoded(rows: &SourceRows) -> Result<Vec<f32>> {
    let [count, cols] = rows.shape();
    let mut values = vec![0.0; count * cols];
    for (row, values) in values.chunks_exact_mut(cols).enumerate() {
        rows.part(row).finite(values)?;
    }
    Ok(values)
}

/// The rows as they are, batch by batch: `write` takes the bytes of each.
pub(super) fn copy(rows: &SourceRows, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let [count, cols] = rows.shape();
    let batch = (BATCH / cols).max(1);
    let mut bytes = Vec::new();
    for first in (0..count).step_by(batch) {
        bytes.clear();
        for row in first..count.min(first + batch) {
            let Row { matrix, row } = rows.part(row);
            bytes.extend_from_slice(&matrix.row(row));
        }
        write(&bytes)?;
    }
    Ok(())
}

/// Encodes the rows batch by batch, `write` takes the blocks of each; `importance` has a number for each column, or none.
pub(super) fn encode(
    rows: &SourceRows,
    coding: Coding,
    importance: &[f32],
    threads: usize,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Errors> {
    let [count, cols] = rows.shape();
    let format = coding.format();
    let row_bytes = format.row_bytes(cols).filter(|_| cols > 0).ok_or_else(|| {
        let what = format!("{cols} columns are no whole blocks of {format}");
        Error::bad_file(what).at(format!("tensor {}", rows.name()))
    })?;
    let batch = (BATCH / cols).max(1);
    let mut bytes = vec![0; batch.min(count) * row_bytes];
    let mut errors = Errors::default();
    for first in (0..count).step_by(batch) {
        let bytes = &mut bytes[..batch.min(count - first) * row_bytes];
        let share = batch.div_ceil(threads.max(1)).max(1);
        let work = |first: usize, bytes: &mut [u8]| {
            let mut errors = Errors::default();
            let (mut values, mut back) = (vec![0.0; cols], vec![0.0; cols]);
            for (row, bytes) in (first..).zip(bytes.chunks_exact_mut(row_bytes)) {
                rows.part(row).finite(&mut values)?;
                coding.encode(&values, importance, bytes);
                format.decode(bytes, &mut back);
                for (at, (value, back)) in values.iter().zip(&back).enumerate() {
                    let weight = importance.get(at).map_or(1.0, |&importance| f64::from(importance));
                    errors.error += weight * f64::from(value - back).powi(2);
                    errors.value += weight * f64::from(*value).powi(2);
                }
            }
            Ok(errors)
        };
        let outcomes: Vec<Result<Errors>> = thread::scope(|scope| {
            let pieces = (first..).step_by(share).zip(bytes.chunks_mut(share * row_bytes));
            let threads: Vec<_> =
                pieces.map(|(first, bytes)| scope.spawn(move || work(first, bytes))).collect();
            let panicked = |_| Err(Error::internal("a thread that encodes has panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        for outcome in outcomes {
            let outcome = outcome?;
            errors.error += outcome.error;
            errors.value += outcome.value;
        }
        write(bytes)?;
    }
    Ok(errors)
}
