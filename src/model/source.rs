//! The tensors of a checkpoint on their way to the slots of a model, and which of them have been read.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Tensor};
use crate::quant::Matrix;

use super::forms::{self, Form};
use super::{Linear, Naming, Slot};

/// Tensors by slot.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    naming: Naming,
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
const REDUNDANT: &[&str] = &["rotary_emb.inv_freq", "attn_rot_embd.weight", "rope.freqs"];

impl<'a> Source<'a> {
    /// The tensors of `checkpoint`.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] for a compressed form that is not there, [`crate::Kind::BadFile`] for one whose
    /// settings are wrong.
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        let form = forms::of(checkpoint)?;
        let naming = Naming::of(&checkpoint.dialect);
        Ok(Self { checkpoint, naming, form, read: RefCell::default(), compressed: Cell::default() })
    }

    /// The linear in `slot`, in whatever form it is, with the bias that stands beside it.
    pub(super) fn linear(&self, slot: Slot, rows: u32, cols: u32) -> Result<Linear> {
        let stem = Stem { source: self, name: self.naming.stem(slot) };
        let linear = match self.compressed(&stem, rows, cols)? {
            Some(linear) => linear,
            None => Linear::plain(self.matrix(slot, rows, cols)?),
        };
        let bias = match self.get(&self.naming.bias(slot)) {
            Some(bias) => Some(vector(bias, rows)?),
            None => linear.bias,
        };
        let name = &stem.name;
        Linear { bias, ..linear }
            .checked(rows, cols)
            .map_err(|error| error.at(format!("linear {name}")).in_file(&self.checkpoint.path))
    }

    /// The rows that tokens become.
    pub(super) fn embedding(&self, slot: Slot, rows: u32, cols: u32) -> Result<Matrix> {
        let stem = Stem { source: self, name: self.naming.stem(slot) };
        match self.compressed(&stem, rows, cols)? {
            None => self.matrix(slot, rows, cols),
            Some(linear) if linear.is_plain() && linear.bias.is_none() => Ok(linear.base),
            Some(_) => Err(Error::unsupported("an embedding in this form is not supported")
                .at(format!("linear {}", stem.name))
                .in_file(&self.checkpoint.path)),
        }
    }

    /// The numbers in `slot`.
    pub(super) fn vector(&self, slot: Slot, len: u32) -> Result<Vec<f32>> {
        vector(self.tensor(&self.naming.weight(slot))?, len)
    }

    /// The linear of `stem` in the form of the checkpoint, if it is in that.
    fn compressed(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(form) = &self.form else { return Ok(None) };
        let linear = form.linear(stem, rows, cols)?;
        self.compressed.set(self.compressed.get() + usize::from(linear.is_some()));
        Ok(linear)
    }

    /// What must hold when all slots are filled. A tensor of a layer that nothing has read is a mechanism that is not there or a layer that was not counted: without
    /// it the numbers would be wrong in silence. What lies outside the layers is harmless.
    pub(super) fn finish(&self, arch: &str, layers: usize) -> Result<()> {
        if self.form.is_some() && self.compressed.get() == 0 {
            return Err(Error::bad_file("no tensor is as the settings say")
                .at("quantization_config")
                .in_file(&self.checkpoint.path));
        }
        let of_layers = |name: &str| name.starts_with(self.naming.block_prefix());
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

    fn matrix(&self, slot: Slot, rows: u32, cols: u32) -> Result<Matrix> {
        let tensor = self.tensor(&self.naming.weight(slot))?;
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
    let format = tensor.format()?;
    if format.row_bytes(len as usize) != Some(tensor.bytes.len()) {
        return Err(
            tensor.refuse(format!("{} bytes do not hold {len} elements in {format}", tensor.bytes.len()))
        );
    }
    let mut values = vec![0.0; len as usize];
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
