//! Makes a smaller model of a model: every weight matrix in another format, the rest as it is.
//!
//! Rows are decoded, encoded and written one batch at a time, so memory is bounded by a few rows; the file gets its name
//! when it is whole, and what an interrupted run has written is taken up again.

mod importance;
mod recipe;
mod resume;

use std::path::Path;
use std::thread;

use crate::base::checksum;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dialect, Metadata, NewTensor, Tensor, Value};
use crate::quant::Format;

pub use importance::Importance;
pub use recipe::Recipe;

use resume::Part;

/// Weights that are encoded at once by all threads.
const BATCH: usize = 1 << 21;

/// What became of a model.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every matrix in another format than before.
    pub changed: Vec<Changed>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bits of all tensors over their elements.
    pub bits_per_weight: f64,
    /// Tensors that an interrupted run had written before.
    pub resumed: usize,
}

/// A matrix in another format.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Before.
    pub from: Format,
    /// After.
    pub to: Format,
    /// The root of the mean squared error over that of the weights, each weighed as its input counts.
    pub error: f64,
}

/// Hears of bytes written and in all, and stops the work with an error of its own.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// Writes the model of `checkpoint` to `out`, as `recipe` says, in GGUF. Where `importance` knows the inputs of a matrix,
/// their squares weigh the errors.
///
/// # Errors
/// [`crate::Kind::Unsupported`] for a model that is not in GGUF, [`crate::Kind::InvalidArgument`] for a recipe that names no
/// tensor, [`crate::Kind::BadFile`] for a weight that is no number, [`crate::Kind::Io`], and what `progress` returns: then
/// what has been written waits beside `out` for the next run.
pub fn quantize(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    importance: &Importance,
    out: &Path,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Report> {
    let Dialect::Gguf(metadata) = &checkpoint.dialect else {
        return Err(Error::unsupported("only models in GGUF can be quantized").in_file(&checkpoint.path));
    };
    let tensors = recipe.apply(checkpoint)?;
    let metadata = described(checkpoint, metadata, recipe, importance)?;
    let total = tensors.iter().map(NewTensor::bytes).sum::<Result<u64>>()?;
    let (mut part, resumed) = Part::open(out, &metadata, &tensors)?;
    let mut report = Report { resumed, ..Report::default() };
    let mut done = tensors[..resumed].iter().map(NewTensor::bytes).sum::<Result<u64>>()?;
    for new in &tensors[resumed..] {
        let old = checkpoint.tensor(&new.name)?;
        part.begin(new)?;
        if old.format()? == new.format {
            for bytes in old.bytes.chunks(BATCH) {
                part.write(bytes)?;
                done += bytes.len() as u64;
                progress(done, total)?;
            }
        } else {
            let weights = importance.of(&new.name);
            let mut errors = Errors::default();
            encode(old, new, weights, threads, &mut errors, |bytes| {
                part.write(bytes)?;
                done += bytes.len() as u64;
                progress(done, total)
            })?;
            let (name, from) = (new.name.clone(), old.format()?);
            report.changed.push(Changed { name, from, to: new.format, error: errors.relative() });
        }
        old.bytes.release();
    }
    let elements: u64 = tensors.iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum();
    report.bits_per_weight = 8.0 * total as f64 / elements.max(1) as f64;
    report.bytes = part.finish()?;
    Ok(report)
}

/// The metadata of the file: that of the model, and how this one was made, so that only the same is taken up again.
fn described(
    checkpoint: &Checkpoint,
    metadata: &Metadata,
    recipe: &Recipe,
    importance: &Importance,
) -> Result<Metadata> {
    let own = [
        ("general.quantization_version", Value::Unsigned(2)),
        ("pocketlm.source", Value::Text(format!("{:016x}", source(checkpoint)))),
        ("pocketlm.recipe", Value::Text(recipe.to_string())),
        ("pocketlm.calibration", Value::Text(importance.to_string())),
    ];
    let mut described = Metadata::default();
    let is_own = |key: &str| key == "general.file_type" || own.iter().any(|(own, _)| *own == key);
    for (key, value) in metadata.iter().filter(|(key, _)| !is_own(key)) {
        described.insert(key.to_owned(), value.clone())?;
    }
    own.into_iter().try_for_each(|(key, value)| described.insert(key.to_owned(), value))?;
    Ok(described)
}

/// A number that stands for the weights: of each tensor the beginning, as another training would hardly leave it.
fn source(checkpoint: &Checkpoint) -> u64 {
    const BEGINNING: usize = 4096;
    let beginnings =
        checkpoint.tensors.values().map(|tensor| &tensor.bytes[..tensor.bytes.len().min(BEGINNING)]);
    let sums: Vec<u8> = beginnings.flat_map(|bytes| checksum(bytes).to_le_bytes()).collect();
    checksum(&sums)
}

/// Sums of squares of errors and of values.
#[derive(Clone, Copy, Debug, Default)]
struct Errors {
    error: f64,
    value: f64,
}

impl Errors {
    fn relative(self) -> f64 {
        if self.value > 0.0 { (self.error / self.value).sqrt() } else { 0.0 }
    }
}

/// Encodes a tensor batch by batch, `write` takes the bytes of each.
fn encode(
    old: &Tensor,
    new: &NewTensor,
    importance: Option<&[f32]>,
    threads: usize,
    errors: &mut Errors,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (from, to) = (old.format()?, new.format);
    let cols = new.dims.last().map_or(0, |&cols| cols as usize);
    let sizes = from.row_bytes(cols).zip(to.row_bytes(cols)).filter(|_| cols > 0);
    let Some((old_bytes, new_bytes)) = sizes else {
        return Err(old.refuse(format!("{cols} columns are no whole blocks of {to}")));
    };
    if let Some(importance) = importance.filter(|importance| importance.len() != cols) {
        let what = format!("calibration knows {} inputs of {cols}", importance.len());
        return Err(Error::invalid(what).at(format!("tensor {}", old.name)));
    }
    let batch = (BATCH / cols).max(1);
    let mut bytes = vec![0; batch * new_bytes];
    for rows in old.bytes.chunks(batch * old_bytes) {
        let count = rows.len() / old_bytes;
        let bytes = &mut bytes[..count * new_bytes];
        let share = count.div_ceil(threads.max(1)).max(1);
        let pieces = rows.chunks(share * old_bytes).zip(bytes.chunks_mut(share * new_bytes));
        let work = |rows: &[u8], bytes: &mut [u8]| {
            let mut errors = Errors::default();
            let (mut values, mut back) = (vec![0.0; cols], vec![0.0; cols]);
            for (row, bytes) in rows.chunks_exact(old_bytes).zip(bytes.chunks_exact_mut(new_bytes)) {
                from.decode(row, &mut values);
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(old.refuse(format!("the weight in column {at} is {}", values[at])));
                }
                let encoded = match importance {
                    Some(importance) => to.encode_weighted(&values, importance),
                    None => to.encode(&values),
                };
                bytes.copy_from_slice(&encoded);
                to.decode(bytes, &mut back);
                for (at, (value, back)) in values.iter().zip(&back).enumerate() {
                    let weight = importance.map_or(1.0, |importance| f64::from(importance[at]));
                    errors.error += weight * f64::from(value - back).powi(2);
                    errors.value += weight * f64::from(*value).powi(2);
                }
            }
            Ok(errors)
        };
        let outcomes: Vec<Result<Errors>> = thread::scope(|scope| {
            let threads: Vec<_> =
                pieces.map(|(rows, bytes)| scope.spawn(move || work(rows, bytes))).collect();
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
    Ok(())
}
