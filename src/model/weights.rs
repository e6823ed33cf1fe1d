//! The numbers of a model: every slot of the blueprint filled with a tensor of the right shape.

use crate::error::Result;
use crate::format::Checkpoint;
use crate::quant::Matrix;

use super::source::Source;
use super::{Block, Blueprint, Linear, Part, Slot};

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
        let source = Source::of(checkpoint)?;
        let (width, vocab) = (blueprint.width, blueprint.vocab);
        let weights = Self {
            embedding: source.embedding(Slot::Embedding, vocab, width)?,
            blocks: (0..)
                .zip(&blueprint.blocks)
                .map(|(i, block)| BlockWeights::gather(&source, i, block, width))
                .collect::<Result<_>>()?,
            final_norm: source.vector(Slot::FinalNorm, width)?,
            head: if blueprint.tied { None } else { Some(source.linear(Slot::Head, vocab, width)?) },
        };
        source.finish(blueprint.arch, blueprint.blocks.len())?;
        Ok(weights)
    }
}

impl BlockWeights {
    fn gather(source: &Source<'_>, index: usize, block: &Block, width: u32) -> Result<Self> {
        let at = |part| Slot::Block(index, part);
        let queries = block.attention.heads * block.attention.head_dim;
        let keys = block.attention.kv_heads * block.attention.head_dim;
        Ok(Self {
            attention_norm: source.vector(at(Part::AttentionNorm), width)?,
            q: source.linear(at(Part::Q), queries, width)?,
            k: source.linear(at(Part::K), keys, width)?,
            v: source.linear(at(Part::V), keys, width)?,
            o: source.linear(at(Part::O), width, queries)?,
            ffn_norm: source.vector(at(Part::FfnNorm), width)?,
            gate: source.linear(at(Part::Gate), block.ffn_width, width)?,
            up: source.linear(at(Part::Up), block.ffn_width, width)?,
            down: source.linear(at(Part::Down), width, block.ffn_width)?,
        })
    }
}
