//! The numbers of a model: every slot of the blueprint filled with a tensor of the right shape.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Tensor};
use crate::quant::Matrix;

use super::{Block, Blueprint, Linear, Naming, Part, Slot};

/// The weights of a model. Matrices are still in the bytes of the file.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The rows that tokens become, `(vocab, width)`.
    pub embedding: Matrix,
    /// The layers, first to last.
    pub blocks: Vec<BlockWeights>,
    /// The gain of the norm before the head, `(width)`.
    pub final_norm: Vec<f32>,
    /// To logits, `(vocab, width)`; `None` where it is the embedding.
    pub head: Option<Linear>,
}

/// The weights of a layer; shapes as in [`Part`].
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// The gain of the norm before attention.
    pub attention_norm: Vec<f32>,
    /// To queries.
    pub q: Linear,
    /// To keys.
    pub k: Linear,
    /// To values.
    pub v: Linear,
    /// From the heads back to the residual stream.
    pub o: Linear,
    /// The gain of the norm before the feed-forward network.
    pub ffn_norm: Vec<f32>,
    /// The gate of SwiGLU.
    pub gate: Linear,
    /// Up.
    pub up: Linear,
    /// Down.
    pub down: Linear,
}

impl Weights {
    /// Finds the tensors that `blueprint` needs.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming a tensor that is missing, misshapen or holds no finite gain or bias;
    /// [`crate::Kind::Unsupported`] naming one in a format that is not there, or one of a layer that the
    /// blueprint has no place for.
    pub fn gather(checkpoint: &Checkpoint, blueprint: &Blueprint) -> Result<Self> {
        let source = Source { checkpoint, naming: Naming::of(&checkpoint.dialect) };
        source.refuse_leftovers(blueprint)?;
        let (width, vocab) = (blueprint.width, blueprint.vocab);
        Ok(Self {
            embedding: source.matrix(Slot::Embedding, vocab, width)?,
            blocks: (0..)
                .zip(&blueprint.blocks)
                .map(|(i, block)| source.block(i, block, width))
                .collect::<Result<_>>()?,
            final_norm: source.norm(Slot::FinalNorm, width)?,
            head: if blueprint.tied { None } else { Some(source.linear(Slot::Head, vocab, width)?) },
        })
    }
}

/// Endings of tensors in layers that hold nothing but what the settings say.
const REDUNDANT: &[&str] = &["rotary_emb.inv_freq", "attn_rot_embd.weight", "rope.freqs"];

struct Source<'a> {
    checkpoint: &'a Checkpoint,
    naming: Naming,
}

impl Source<'_> {
    /// A tensor of a layer that nothing would read is a mechanism that is not there or a layer that was not
    /// counted: without it the numbers would be wrong in silence. What lies outside the layers is harmless.
    fn refuse_leftovers(&self, blueprint: &Blueprint) -> Result<()> {
        let slots = (0..blueprint.blocks.len())
            .flat_map(|block| Part::ALL.map(|part| (Slot::Block(block, part), !part.is_norm())));
        let known: HashSet<String> = slots
            .flat_map(|(slot, biased)| {
                [Some(self.naming.weight(slot)), biased.then(|| self.naming.bias(slot))]
            })
            .flatten()
            .collect();
        let of_layers = |name: &str| name.starts_with(self.naming.block_prefix());
        let redundant = |name: &str| REDUNDANT.iter().any(|ending| name.ends_with(ending));
        let leftover = |tensor: &&Tensor| {
            of_layers(&tensor.name) && !known.contains(&tensor.name) && !redundant(&tensor.name)
        };
        match self.checkpoint.tensors.values().find(leftover) {
            Some(tensor) => Err(tensor.locate(Error::unsupported(format!(
                "{} with {} layers has no place for the tensor",
                blueprint.arch,
                blueprint.blocks.len()
            )))),
            None => Ok(()),
        }
    }

    fn block(&self, index: usize, block: &Block, width: u32) -> Result<BlockWeights> {
        let at = |part| Slot::Block(index, part);
        let queries = block.attention.heads * block.attention.head_dim;
        let keys = block.attention.kv_heads * block.attention.head_dim;
        Ok(BlockWeights {
            attention_norm: self.norm(at(Part::AttentionNorm), width)?,
            q: self.linear(at(Part::Q), queries, width)?,
            k: self.linear(at(Part::K), keys, width)?,
            v: self.linear(at(Part::V), keys, width)?,
            o: self.linear(at(Part::O), width, queries)?,
            ffn_norm: self.norm(at(Part::FfnNorm), width)?,
            gate: self.linear(at(Part::Gate), block.ffn_width, width)?,
            up: self.linear(at(Part::Up), block.ffn_width, width)?,
            down: self.linear(at(Part::Down), width, block.ffn_width)?,
        })
    }

    /// The matrix in `slot`, with the bias that stands beside it, if any.
    fn linear(&self, slot: Slot, rows: u32, cols: u32) -> Result<Linear> {
        let bias = self.checkpoint.tensors.get(&self.naming.bias(slot));
        let bias = bias.map(|bias| vector(bias, rows)).transpose()?;
        Ok(Linear { bias, ..Linear::plain(self.matrix(slot, rows, cols)?) })
    }

    fn matrix(&self, slot: Slot, rows: u32, cols: u32) -> Result<Matrix> {
        let tensor = self.checkpoint.tensor(&self.naming.weight(slot))?;
        check_shape(tensor, &[rows, cols])?;
        Matrix::new(&tensor.name, tensor.format()?, rows as usize, cols as usize, tensor.bytes.clone())
            .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file))
    }

    fn norm(&self, slot: Slot, width: u32) -> Result<Vec<f32>> {
        vector(self.checkpoint.tensor(&self.naming.weight(slot))?, width)
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

fn check_shape(tensor: &Tensor, expected: &[u32]) -> Result<()> {
    if !tensor.dims.iter().copied().eq(expected.iter().map(|&dim| u64::from(dim))) {
        return Err(tensor.refuse(format!(
            "the shape is {:?}, where the settings of the model ask for {expected:?}",
            tensor.dims
        )));
    }
    Ok(())
}
