//! The tensors of a checkpoint on their way to the slots of a model, and which of them have been read.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dialect, Tensor};
use crate::quant::Matrix;

use super::forms::{self, Form};
use super::linear::{same, through};
use super::turned::Turned;
use super::weights::NormWeights;
use super::{Blueprint, Layout, Linear, Norm, Slot, Transform};

/// Tensors by slot.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    pub(super) layout: Layout,
    norm: Norm,
    form: Option<Box<dyn Form>>,
    read: RefCell<HashSet<String>>,
    /// Linears of the form so far.
    compressed: Cell<usize>,
}

/// The tensors of one linear: their names begin alike.
pub(super) struct Stem<'s> {
    source: &'s Source<'s>,
    name: String,
}

/// Endings of tensors in layers that hold nothing but what the settings say.
const REDUNDANT: &[&str] =
    &["rotary_emb.inv_freq", "attn_rot_embd.weight", "rope.freqs", ".attn.bias", ".attn.masked_bias"];

impl<'a> Source<'a> {
    /// The tensors of `checkpoint`, as `blueprint` says that they are held.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] for a compressed form that is not there, [`crate::Kind::BadFile`] for one whose
    /// settings are wrong.
    pub(super) fn of(checkpoint: &'a Checkpoint, blueprint: &Blueprint) -> Result<Self> {
        let form = forms::of(checkpoint)?;
        let Blueprint { layout, norm, .. } = *blueprint;
        Ok(Self { checkpoint, layout, norm, form, read: RefCell::default(), compressed: Cell::default() })
    }

    /// The linear in `slot`, in whatever form it is, with the bias that stands beside it.
    pub(super) fn linear(&self, slot: Slot, rows: u32, cols: u32) -> Result<Linear> {
        let stem = Stem { source: self, name: self.layout.naming.stem(slot) };
        let linear = match self.compressed(&stem, rows, cols)? {
            Some(linear) => linear,
            None => self.plain(&stem, slot, rows, cols)?,
        };
        let bias = match self.get(&self.layout.naming.bias(slot)) {
            Some(bias) => Some(vector(bias, rows)?),
            None => linear.bias,
        };
        let name = &stem.name;
        Linear { bias, ..linear }
            .checked(rows, cols)
            .map_err(|error| error.at(format!("linear {name}")).in_file(&self.checkpoint.path))
    }

    /// The rows that tokens become, and what is done to them: nothing, where they are the head's as well.
    pub(super) fn embedding(
        &self,
        slot: Slot,
        rows: u32,
        cols: u32,
        is_head: bool,
    ) -> Result<(Matrix, Vec<Transform>)> {
        let stem = Stem { source: self, name: self.layout.naming.stem(slot) };
        let place = |error: Error| error.at(format!("linear {}", stem.name)).in_file(&self.checkpoint.path);
        let refused = |what: &str| Err(place(Error::unsupported(what)));
        let own = self.form.as_ref().map_or(Ok(None), |form| form.embedding(&stem, rows, cols))?;
        if let Some((matrix, post)) = own {
            self.compressed.set(self.compressed.get() + 1);
            if is_head {
                return refused("an embedding in this form cannot be the head too");
            }
            let width = through(matrix.cols() as u32, &post);
            width.and_then(|width| same("elements of a row", width, cols)).map_err(place)?;
            return Ok((matrix, post));
        }
        match self.compressed(&stem, rows, cols)? {
            None => Ok((self.matrix(slot, rows, cols)?, Vec::new())),
            Some(linear) if linear.is_plain() && linear.bias.is_none() => Ok((linear.base, Vec::new())),
            Some(_) => refused("an embedding in this form is not supported"),
        }
    }

    /// Linears that stand in `slot` one after the other.
    pub(super) fn joined<const N: usize>(
        &self,
        slot: Slot,
        rows: [u32; N],
        cols: u32,
    ) -> Result<[Linear; N]> {
        let all = self.linear(slot, rows.iter().sum(), cols)?;
        let is_cut_by_rows = all.post.is_empty() && all.side.is_empty() && all.factors.is_none();
        if !(is_cut_by_rows || matches!(all.post.last(), Some(Transform::Gather(_)))) {
            return Err(Error::unsupported("several projections in one of this form are not supported")
                .at(format!("linear {}", self.layout.naming.stem(slot)))
                .in_file(&self.checkpoint.path));
        }
        let mut first = 0;
        Ok(rows.map(|rows| {
            let part = first..first + rows as usize;
            first = part.end;
            let bias = all.bias.as_ref().map(|bias| bias[part.clone()].to_vec());
            let mut linear = Linear { bias, ..all.clone() };
            match linear.post.last_mut() {
                // Each takes its own of what all of them compute.
                Some(Transform::Gather(order)) => *order = order[part].into(),
                _ => linear.base = all.base.slice(part),
            }
            linear
        }))
    }

    /// The rows in `slot` as numbers.
    pub(super) fn rows(&self, slot: Slot, rows: u32, cols: u32) -> Result<Vec<f32>> {
        let tensor = self.tensor(&self.layout.naming.weight(slot))?;
        check_shape(tensor, &[rows, cols])?;
        decode(tensor, rows as usize * cols as usize)
    }

    /// The norm in `slot`.
    pub(super) fn norm(&self, slot: Slot, width: u32) -> Result<NormWeights> {
        let bias = || vector(self.tensor(&self.layout.naming.bias(slot))?, width);
        Ok(NormWeights {
            gain: self.gain(slot, width)?,
            bias: if self.norm == Norm::Layer { Some(bias()?) } else { None },
        })
    }

    /// The gain of the norm in `slot`.
    pub(super) fn gain(&self, slot: Slot, width: u32) -> Result<Vec<f32>> {
        let mut gain = vector(self.tensor(&self.layout.naming.weight(slot))?, width)?;
        gain.iter_mut().for_each(|gain| *gain += self.layout.gain_offset);
        Ok(gain)
    }

    /// The linear of `stem` in the form of the checkpoint, if it is in that.
    fn compressed(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(form) = &self.form else { return Ok(None) };
        let linear = form.linear(stem, rows, cols)?;
        self.compressed.set(self.compressed.get() + usize::from(linear.is_some()));
        Ok(linear)
    }

    /// What must hold when all slots are filled. A tensor of a layer that nothing has read is a mechanism that is not there
    /// or a layer that was not counted: without it the numbers would be wrong in silence. What lies outside the layers is
    /// harmless.
    pub(super) fn finish(&self, arch: &str, layers: usize) -> Result<()> {
        if self.form.is_some() && self.compressed.get() == 0 {
            return Err(Error::bad_file("no tensor is as the settings say")
                .at("quantization_config")
                .in_file(&self.checkpoint.path));
        }
        let of_layers = |name: &str| name.starts_with(self.layout.naming.block_prefix());
        let redundant = |name: &str| REDUNDANT.iter().any(|ending| name.ends_with(ending));
        let read = self.read.borrow();
        let leftover = |tensor: &&Tensor| {
            let name = tensor.name.as_str();
            of_layers(name) && !read.contains(name) && !redundant(name)
        };
        match self.checkpoint.tensors.values().find(leftover) {
            Some(tensor) => {
                let what = format!("{arch} with {layers} layers has no place for the tensor");
                Err(tensor.locate(Error::unsupported(what)))
            }
            None => Ok(()),
        }
    }

    /// The matrix in `slot`, and in GGUF the factor of the whole of it, which llama.cpp keeps beside blocks of NVFP4. The
    /// other, with which it can round activations, is not needed.
    fn plain(&self, stem: &Stem<'_>, slot: Slot, rows: u32, cols: u32) -> Result<Linear> {
        let mut linear = Linear::plain(self.matrix(slot, rows, cols)?);
        if let (Dialect::Gguf(_), Some(factor)) = (&self.checkpoint.dialect, stem.get(".scale")) {
            stem.get(".input_scale");
            let factor = vector(factor, 1)?[0];
            linear.post.push(Transform::Scale(vec![factor; rows as usize].into()));
        }
        Ok(linear)
    }

    fn matrix(&self, slot: Slot, rows: u32, cols: u32) -> Result<Matrix> {
        let tensor = self.tensor(&self.layout.naming.weight(slot))?;
        if self.layout.transposed && matches!(slot, Slot::Block(..)) {
            check_shape(tensor, &[cols, rows])?;
            let turned = Turned::of(tensor, rows as usize, cols as usize)?;
            return Matrix::made(
                &tensor.name,
                tensor.format()?,
                rows as usize,
                cols as usize,
                Arc::new(turned),
            )
            .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file));
        }
        check_shape(tensor, &[rows, cols])?;
        Matrix::new(&tensor.name, tensor.format()?, rows as usize, cols as usize, tensor.bytes.clone())
            .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file))
    }

    fn get(&self, name: &str) -> Option<&'a Tensor> {
        let tensor = self.checkpoint.tensors.get(name)?;
        self.read.borrow_mut().insert(name.to_owned());
        Some(tensor)
    }

    fn tensor(&self, name: &str) -> Result<&'a Tensor> {
        self.get(name).map_or_else(|| self.checkpoint.tensor(name), Ok)
    }
}

impl<'s> Stem<'s> {
    /// How the names begin.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tensor whose name ends with `ending`, dot included, if there.
    pub(super) fn get(&self, ending: &str) -> Option<&'s Tensor> {
        self.source.get(&format!("{}{ending}", self.name))
    }

    /// The tensor whose name ends with `ending`.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where it is missing.
    pub(super) fn tensor(&self, ending: &str) -> Result<&'s Tensor> {
        self.source.tensor(&format!("{}{ending}", self.name))
    }
}

/// Decodes a tensor of `len` finite elements.
pub(super) fn vector(tensor: &Tensor, len: u32) -> Result<Vec<f32>> {
    check_shape(tensor, &[len])?;
    decode(tensor, len as usize)
}

fn decode(tensor: &Tensor, len: usize) -> Result<Vec<f32>> {
    let format = tensor.format()?;
    if format.row_bytes(len) != Some(tensor.bytes.len()) {
        return Err(
            tensor.refuse(format!("{} bytes do not hold {len} elements in {format}", tensor.bytes.len()))
        );
    }
    let mut values = vec![0.0; len];
    format.decode(&tensor.bytes, &mut values);
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(tensor.refuse(format!("element {index} is {}", values[index]))),
        None => Ok(values),
    }
}

/// Refuses a tensor of another shape than `expected`.
pub(super) fn check_shape(tensor: &Tensor, expected: &[u32]) -> Result<()> {
    if !tensor.dims.iter().copied().eq(expected.iter().map(|&dim| u64::from(dim))) {
        return Err(tensor.refuse(format!(
            "the shape is {:?}, where the settings of the model ask for {expected:?}",
            tensor.dims
        )));
    }
    Ok(())
}
