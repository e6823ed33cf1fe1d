//! Makes a smaller model of a model: every weight matrix stored in another way, the rest as it is.
//!
//! A draft says of each tensor of the new model where its numbers come from and how they are stored. Then rows are decoded,
//! encoded and written one batch at a time, so memory is bounded by a few rows (with corrections of low rank, by the largest
//! matrix); file or folder get their name when they are whole, and what an interrupted run has written is taken up again.

mod coding;
mod cross;
mod draft;
mod importance;
mod item;
mod low_rank;
mod part;
mod recipe;
mod settings;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::quant::Format;

pub use coding::Coding;
pub use importance::Importance;
pub use recipe::Recipe;

use coding::Method;
use draft::Draft;
use item::{Item, Role, SourceRows, copy, decoded, encode};
use low_rank::{Dense, split};
use part::{Part, part_of, rename};

/// Turns of finding base and correction of a matrix.
const TURNS: usize = 8;

/// What became of a model.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every matrix that is stored in another way than before.
    pub changed: Vec<Changed>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bits of all tensors over their elements.
    pub bits_per_weight: f64,
    /// Tensors that an interrupted run had written before.
    pub resumed: usize,
    /// What the other dialect says otherwise, a clause each; it makes no difference to logits.
    pub notes: Vec<String>,
}

/// A matrix that is stored in another way.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its name in the new model.
    pub name: String,
    /// Before.
    pub from: Format,
    /// After.
    pub to: Coding,
    /// The root of the mean squared error over that of the weights, each weighed as its input counts.
    pub error: f64,
    /// The same without the correction of low rank, where there is one.
    pub uncorrected: Option<f64>,
}

/// Hears of bytes written and in all, and stops the work with an error of its own.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// Writes the model of `checkpoint` to `out`, as `recipe` says: a GGUF where its name ends so, else a folder as Hugging
/// Face has them. Where `importance` knows the inputs of a matrix, their squares weigh the errors.
///
/// # Errors
/// [`crate::Kind::InvalidArgument`] for a recipe that names no tensor or codings that do not go together,
/// [`crate::Kind::Unsupported`] for a model that the other dialect has no words for or that is compressed with transforms,
/// [`crate::Kind::BadFile`] for a weight that is no number, [`crate::Kind::Io`], and what `progress` returns: then what has
/// been written waits beside `out` for the next run.
pub fn quantize(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    importance: &Importance,
    out: &Path,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Report> {
    let Draft { items, groups, head, method, files, notes } = Draft::of(checkpoint, recipe, importance, out)?;
    let sizes: Vec<u64> = head.places.iter().map(|place| place.bytes).collect();
    let total: u64 = sizes.iter().sum();
    let whole = part_of(out)?;
    let weights = if method == Method::Gguf { whole.clone() } else { whole.join("model.safetensors") };
    if method != Method::Gguf {
        if out.exists() {
            return Err(Error::invalid("there is something of this name").in_file(out));
        }
        fs::create_dir_all(&whole).map_err(|error| Error::from(error).in_file(&whole))?;
    }
    let (mut part, resumed) = Part::open(&weights, head, groups.iter().map(std::ops::Range::len))?;
    let mut report = Report { resumed, notes, ..Report::default() };
    let first = groups.get(resumed).map_or(sizes.len(), |group| group.start);
    let mut done: u64 = sizes[..first].iter().sum();
    for (item, group) in items.iter().zip(&groups).skip(resumed) {
        let mut write = |pieces: Vec<Vec<u8>>, first: usize| {
            for (section, bytes) in pieces.into_iter().enumerate() {
                part.write(group.start + first + section, &bytes)?;
                done += bytes.len() as u64;
            }
            progress(done, total)
        };
        report.changed.extend(write_item(item, method, importance, threads, &mut write)?);
        group.clone().try_for_each(|tensor| part.check(tensor))?;
        item.rows.release();
    }
    let elements: u64 = items.iter().map(|item| item.dims.iter().product::<u64>()).sum();
    report.bits_per_weight = 8.0 * total as f64 / elements.max(1) as f64;
    report.bytes = part.finish()?;
    for (name, bytes) in files {
        let path = whole.join(name);
        report.bytes += bytes.len() as u64;
        fs::write(&path, bytes).map_err(|error| Error::from(error).in_file(&path))?;
    }
    rename(&whole, out)?;
    Ok(report)
}

/// Hands the bytes of the item's tensors, from the given one on, to be written.
type Write<'a> = &'a mut dyn FnMut(Vec<Vec<u8>>, usize) -> Result<()>;

fn write_item(
    item: &Item,
    method: Method,
    importance: &Importance,
    threads: usize,
    write: Write<'_>,
) -> Result<Option<Changed>> {
    let rows = item.rows.straight()?;
    let coding = item.coding;
    if item.rank.is_none() && rows.format() == Some(coding.format()) && matches!(coding, Coding::Blocks(_)) {
        copy(&rows, |bytes| write(vec![bytes.to_vec()], 0))?;
        return Ok(None);
    }
    let [count, cols] = rows.shape();
    let weights = match importance.of(item.rows.name()) {
        Some(weights) if weights.len() != cols => {
            let what = format!("calibration knows {} inputs of {cols}", weights.len());
            return Err(Error::invalid(what).at(format!("tensor {}", item.name)));
        }
        weights => weights.unwrap_or_default(),
    };
    let (name, from) = (item.name.clone(), item.rows.first_format());
    let constants = coding.constants(method, count, cols);
    let others = constants.len();
    write(constants, 0)?;
    if let Some(rank) = item.rank {
        let [uncorrected, error] = corrected(&rows, coding, weights, rank, threads, write)?;
        return Ok(Some(Changed { name, from, to: coding, error, uncorrected: Some(uncorrected) }));
    }
    let errors = encode(&rows, coding, weights, threads, |blocks| write(coding.split(blocks), others))?;
    Ok((item.role != Role::Table).then_some(Changed {
        name,
        from,
        to: coding,
        error: errors.relative(),
        uncorrected: None,
    }))
}

/// Writes base and factors; the errors without the correction and with it.
fn corrected(
    rows: &SourceRows,
    coding: Coding,
    importance: &[f32],
    rank: usize,
    threads: usize,
    write: Write<'_>,
) -> Result<[f64; 2]> {
    let [count, cols] = rows.shape();
    let matrix = Dense { rows: count, cols, values: decoded(rows)? };
    let even = vec![1.0; cols];
    let importance = if importance.is_empty() { &even } else { importance };
    let quantize = |matrix: &Dense| {
        let rows = SourceRows::values(rows.name(), &matrix.values, cols)?;
        let mut blocks = Vec::new();
        encode(&rows, coding, importance, threads, |bytes| {
            blocks.extend_from_slice(bytes);
            Ok(())
        })?;
        let mut values = vec![0.0; matrix.values.len()];
        coding.format().decode(&blocks, &mut values);
        Ok((blocks, Dense { values, ..*matrix }))
    };
    let round = |factor: &mut Dense| {
        let format = Coding::of_factor(factor.cols).format();
        let bytes = format.encode(&factor.values);
        format.decode(&bytes, &mut factor.values);
    };
    let found = split(&matrix, importance, rank, TURNS, quantize, round)?;
    let factor = |factor: &Dense| {
        let coding = Coding::of_factor(factor.cols);
        coding.split(&coding.format().encode(&factor.values))
    };
    let sections = [coding.split(&found.base), factor(&found.up.transposed()), factor(&found.down)];
    write(sections.concat(), 0)?;
    Ok(found.errors)
}
