//! The numbers of a model: every slot of the blueprint filled with a tensor of the right shape.

use crate::error::Result;
use crate::format::Checkpoint;
use crate::quant::Matrix;

use super::source::Source;
use super::{Attention, Block, Blueprint, Ffn, HeadNorm, Layout, Linear, Part, Slot, Transform};

/// The weights of a model. Matrices are still in the bytes of the file.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The rows that tokens become, `(vocab, width)` where nothing more is done to them.
    pub embedding: Matrix,
    /// What is done to such a row, first to last.
    pub embedding_post: Vec<Transform>,
    /// What is added to them by position, `(context, width)`.
    pub positions: Option<Vec<f32>>,
    /// By layer of the checkpoint.
    pub blocks: Vec<BlockWeights>,
    /// The norm before the head.
    pub final_norm: NormWeights,
    /// To logits, `(vocab, width)`; `None` where it is the embedding.
    pub head: Option<Linear>,
}

/// The weights of a norm of rows, each `(width)`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormWeights {
    /// What the normalised row is multiplied by.
    pub gain: Vec<f32>,
    /// What is added to it then.
    pub bias: Option<Vec<f32>>,
}

/// The weights of a layer; shapes as in [`Part`].
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// The norm before attention.
    pub attention_norm: NormWeights,
    /// To queries.
    pub q: Linear,
    /// To keys.
    pub k: Linear,
    /// To values.
    pub v: Linear,
    /// The gains of the norms of each head of queries and of keys.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// From the heads back to the residual stream.
    pub o: Linear,
    /// The norms of what attention and the feed-forward network add.
    pub post_norms: Option<[NormWeights; 2]>,
    /// The norm before the feed-forward network.
    pub ffn_norm: NormWeights,
    /// The gate of the feed-forward network, where it has one.
    pub gate: Option<Linear>,
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
        let source = Source::of(checkpoint, blueprint)?;
        let (width, vocab) = (blueprint.width, blueprint.vocab);
        let layers = blueprint.layers().map(|block| BlockWeights::gather(&source, block, width));
        let (embedding, embedding_post) = source.embedding(Slot::Embedding, vocab, width, blueprint.tied)?;
        let weights = Self {
            embedding,
            embedding_post,
            positions: match blueprint.positions {
                true => Some(source.rows(Slot::Positions, blueprint.context, width)?),
                false => None,
            },
            blocks: layers.collect::<Result<_>>()?,
            final_norm: source.norm(Slot::FinalNorm, width)?,
            head: if blueprint.tied { None } else { Some(source.linear(Slot::Head, vocab, width)?) },
        };
        source.finish(blueprint.arch, weights.blocks.len())?;
        Ok(weights)
    }
}

impl Weights {
    /// The linears of each slot of a checkpoint of this layout, in the order of their outputs.
    pub(super) fn linears_mut(&mut self, layout: &Layout) -> Vec<(Slot, Vec<&mut Linear>)> {
        let blocks = self.blocks.iter_mut().enumerate();
        let of_block = |(i, block): (usize, _)| {
            let parts = BlockWeights::linears_mut(block, layout).into_iter();
            parts.map(move |(part, linears)| (Slot::Block(i, part), linears))
        };
        let head = self.head.iter_mut().map(|head| (Slot::Head, vec![head]));
        blocks.flat_map(of_block).chain(head).collect()
    }
}

impl BlockWeights {
    fn linears_mut(&mut self, layout: &Layout) -> Vec<(Part, Vec<&mut Linear>)> {
        let Self { q, k, v, o, gate, up, down, .. } = self;
        let mut parts = vec![(Part::O, vec![o]), (Part::Down, vec![down])];
        match layout.joined_qkv {
            true => parts.push((Part::Qkv, vec![q, k, v])),
            false => parts.extend([(Part::Q, vec![q]), (Part::K, vec![k]), (Part::V, vec![v])]),
        }
        match (gate, layout.joined_gate_up) {
            (Some(gate), true) => parts.push((Part::GateUp, vec![gate, up])),
            (Some(gate), false) => parts.extend([(Part::Gate, vec![gate]), (Part::Up, vec![up])]),
            (None, _) => parts.push((Part::Up, vec![up])),
        }
        parts
    }

    fn gather(source: &Source<'_>, block: &Block, width: u32) -> Result<Self> {
        let at = |part| Slot::Block(block.layer as usize, part);
        let Attention { heads, kv_heads, head_dim, .. } = block.attention;
        let (queries, keys, ffn) = (heads * head_dim, kv_heads * head_dim, block.ffn_width);
        let [q, k, v] = match source.layout.joined_qkv {
            true => source.joined(at(Part::Qkv), [queries, keys, keys], width)?,
            false => [
                source.linear(at(Part::Q), queries, width)?,
                source.linear(at(Part::K), keys, width)?,
                source.linear(at(Part::V), keys, width)?,
            ],
        };
        let (gate, up) = match block.ffn {
            Ffn::Gelu => (None, source.linear(at(Part::Up), ffn, width)?),
            Ffn::SwiGlu | Ffn::GeGlu if source.layout.joined_gate_up => {
                let [gate, up] = source.joined(at(Part::GateUp), [ffn, ffn], width)?;
                (Some(gate), up)
            }
            Ffn::SwiGlu | Ffn::GeGlu => {
                let gate = source.linear(at(Part::Gate), ffn, width)?;
                (Some(gate), source.linear(at(Part::Up), ffn, width)?)
            }
        };
        Ok(Self {
            attention_norm: source.norm(at(Part::AttentionNorm), width)?,
            q,
            k,
            v,
            head_norms: match block.attention.head_norm {
                Some(HeadNorm::Gain) => {
                    Some([source.gain(at(Part::QNorm), head_dim)?, source.gain(at(Part::KNorm), head_dim)?])
                }
                Some(HeadNorm::Plain) | None => None,
            },
            o: source.linear(at(Part::O), width, queries)?,
            post_norms: match block.post_norms {
                true => Some([
                    source.norm(at(Part::PostAttentionNorm), width)?,
                    source.norm(at(Part::PostFfnNorm), width)?,
                ]),
                false => None,
            },
            ffn_norm: source.norm(at(Part::FfnNorm), width)?,
            gate,
            up,
            down: source.linear(at(Part::Down), width, ffn)?,
        })
    }
}
