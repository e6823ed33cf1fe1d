//! The architecture as data: what an `arch` file reads from a checkpoint and `lower` turns into a plan.

use crate::error::{Error, Result};
use crate::format::Checkpoint;

use super::names::Naming;

/// A transformer: `vocab -> width -> blocks -> norm -> head -> vocab`.
///
/// Every number has been checked by [`Blueprint::read`]: nothing is zero, nothing is absurd, all divide.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// The name of the architecture: `llama`.
    pub arch: &'static str,
    /// What the file calls the model; may be empty.
    pub name: String,
    /// Elements of the residual stream.
    pub width: u32,
    /// Rows of the embedding and of the head.
    pub vocab: u32,
    /// Positions the model was trained for.
    pub context: u32,
    /// What rows of the embedding are multiplied by.
    pub embedding_scale: f32,
    /// Whether a vector for each position is added to them.
    pub positions: bool,
    /// How rows are normalised.
    pub norm: Norm,
    /// What a norm adds under the root.
    pub norm_eps: f32,
    /// What logits stay below, softly.
    pub logit_cap: Option<f32>,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The rotary position embeddings that blocks choose from.
    pub ropes: Vec<Rope>,
    /// What blocks that ask for it multiply their queries by.
    pub temperature: Option<Temperature>,
    /// The blocks in the order in which they are computed.
    pub blocks: Vec<Block>,
    /// How the checkpoint holds the weights.
    pub layout: Layout,
}

/// `x += attention(norm(x))`, `x += ffn(norm(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The layer of the checkpoint whose weights these are: that of the block before, which is then computed twice in a
    /// row, or the next.
    pub layer: u32,
    /// The first half.
    pub attention: Attention,
    /// The second half.
    pub ffn: Ffn,
    /// Elements between gate/up and down.
    pub ffn_width: u32,
    /// Whether what each half adds is normalised once more before it is added.
    pub post_norms: bool,
}

/// How a row is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// By the root of its mean square, with a gain.
    RootMeanSquare,
    /// To mean 0 and variance 1, with a gain and a bias.
    Layer,
}

/// What stands between up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ffn {
    /// silu of a gate, times up.
    SwiGlu,
    /// gelu of a gate, by its approximation with tanh, times up.
    GeGlu,
    /// The same gelu of up; there is no gate.
    Gelu,
}

/// Causal attention in which `heads / kv_heads` query heads share each key–value head.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key–value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head; even.
    pub head_dim: u32,
    /// What a score q·k is multiplied by.
    pub scale: f32,
    /// Which of the model's rotary embeddings turns queries and keys; without one, their order is known by the mask alone.
    pub rope: Option<usize>,
    /// Keys that a query sees at most, that of its own position among them.
    pub window: Option<u32>,
    /// What scores stay below, softly.
    pub cap: Option<f32>,
    /// The norm of each head of queries and keys, before they turn.
    pub head_norm: Option<HeadNorm>,
    /// Whether queries are multiplied by the model's [`Temperature`].
    pub tempered: bool,
}

/// Root-mean-square norm over the elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// With a gain for queries and one for keys, each `(head_dim)`.
    Gain,
    /// With none.
    Plain,
}

/// The factor of the queries of a position, `1 + scale · ln(1 + ⌊(position + 1) / floor⌋)`: it keeps the softmax of many
/// keys as sharp as that of few (Nakanishi 2025, arXiv 2501.19399).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// How much it grows.
    pub scale: f64,
    /// Positions of a step.
    pub floor: f64,
}

/// How a checkpoint holds the weights of an architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// What its tensors are called.
    pub naming: Naming,
    /// Whether the projections to queries, keys and values are one matrix, rows after rows.
    pub joined_qkv: bool,
    /// Whether gate and up are one.
    pub joined_gate_up: bool,
    /// Whether matrices of blocks are (inputs, outputs).
    pub transposed: bool,
    /// What is added to the stored gains of norms.
    pub gain_offset: f32,
}

/// Rotary position embedding: pair `i` of a head turns by the angle `position · inv_freq[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Leading elements of a head that turn; even, at most `head_dim`.
    pub dims: u32,
    /// Which elements make a pair.
    pub pairing: Pairing,
    /// Radians per position of each pair, `(dims / 2)`, with all scaling folded in.
    pub inv_freq: Vec<f64>,
    /// What sine and cosine are multiplied by; 1 where nothing asks for more.
    pub attention_factor: f32,
    /// Other frequencies for contexts of more positions than this.
    pub long: Option<(u32, Vec<f64>)>,
}

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Elements 2i and 2i + 1.
    Interleaved,
    /// Elements i and i + dims / 2.
    HalfSplit,
}

/// Limits far above any model that exists, low enough that products of three fit in 64 bits and a wrong
/// number is caught before anything is allocated by it.
const MAX_BLOCKS: u32 = 4096;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_VOCAB: u32 = 1 << 24;
const MAX_CONTEXT: u32 = 1 << 28;
const MAX_HEAD_DIM: u32 = 1 << 14;

impl Blueprint {
    /// Reads the architecture of a checkpoint.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] naming an architecture or feature that is not there,
    /// [`crate::Kind::BadFile`] where settings are missing, absurd or contradict each other.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let blueprint = super::arch::read(checkpoint).and_then(Self::checked);
        blueprint.map_err(|error| error.in_file(&checkpoint.path))
    }

    fn checked(self) -> Result<Self> {
        within("the width", self.width, MAX_WIDTH)?;
        within("the vocabulary", self.vocab, MAX_VOCAB)?;
        within("the context", self.context, MAX_CONTEXT)?;
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err(Error::bad_file(format!("{} cannot be the epsilon of a norm", self.norm_eps)));
        }
        let mut layers = 0;
        for block in &self.blocks {
            if block.layer > layers || block.layer + 1 < layers {
                return Err(Error::internal(format!("layer {} after {layers} layers", block.layer)));
            }
            layers = block.layer + 1;
            let rope = block.attention.rope.map(|rope| {
                self.ropes.get(rope).ok_or_else(|| Error::internal(format!("there is no rope {rope}")))
            });
            block.check(rope.transpose()?).map_err(|error| error.at(format!("layer {}", block.layer)))?;
        }
        self.ropes.iter().try_for_each(Rope::check)?;
        self.temperature.iter().try_for_each(Temperature::check)?;
        let factors = [
            ("the scale of the embedding", Some(self.embedding_scale)),
            ("the cap of logits", self.logit_cap),
        ];
        factors
            .into_iter()
            .try_for_each(|(what, factor)| factor.map_or(Ok(()), |factor| positive(what, factor)))?;
        Ok(self)
    }

    /// How many numbers the matrices and norms of a checkpoint stand for, whatever form it is in. Biases are not counted.
    pub fn parameters(&self) -> u64 {
        let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
        let of_layer = |block: &Block| {
            let Attention { heads, kv_heads, head_dim, head_norm, .. } = block.attention;
            let attention = 2 * wide(heads + kv_heads, head_dim) * u64::from(self.width);
            let matrices = if block.ffn == Ffn::Gelu { 2 } else { 3 };
            let norms = if block.post_norms { 4 } else { 2 } * u64::from(self.width);
            let head_norms = if head_norm == Some(HeadNorm::Gain) { 2 * u64::from(head_dim) } else { 0 };
            attention + matrices * wide(block.ffn_width, self.width) + norms + head_norms
        };
        let positions = if self.positions { wide(self.context, self.width) } else { 0 };
        let tables = if self.tied { 1 } else { 2 } * wide(self.vocab, self.width);
        self.layers().map(of_layer).sum::<u64>() + positions + tables + u64::from(self.width)
    }

    /// The first block of each layer of the checkpoint.
    pub fn layers(&self) -> impl Iterator<Item = &Block> {
        let mut next = 0;
        self.blocks.iter().filter(move |block| {
            let is_first = block.layer == next;
            next += u32::from(is_first);
            is_first
        })
    }
}

impl Layout {
    /// Each matrix for itself, under the names of `naming`.
    pub const fn of(naming: Naming) -> Self {
        Self { naming, joined_qkv: false, joined_gate_up: false, transposed: false, gain_offset: 0.0 }
    }
}

impl Temperature {
    /// The factor of a position.
    pub(super) fn of(&self, position: u32) -> f64 {
        1.0 + self.scale * ((f64::from(position) + 1.0) / self.floor).floor().ln_1p()
    }

    fn check(&self) -> Result<()> {
        let is_sound =
            self.scale.is_finite() && self.scale >= 0.0 && self.floor.is_finite() && self.floor >= 1.0;
        if !is_sound {
            return Err(Error::bad_file(format!("{self:?} cannot be the temperature of attention")));
        }
        Ok(())
    }
}

impl Block {
    /// This block for each of `count` layers.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where no model has so many layers.
    pub(super) fn repeat(self, count: u32) -> Result<Vec<Self>> {
        within("the number of layers", count, MAX_BLOCKS)?;
        Ok((0..count).map(|layer| Self { layer, ..self.clone() }).collect())
    }

    fn check(&self, rope: Option<&Rope>) -> Result<()> {
        let Attention { heads, kv_heads, head_dim, scale, .. } = self.attention;
        within("the width of the feed-forward network", self.ffn_width, MAX_WIDTH)?;
        within("the number of heads", heads, MAX_WIDTH)?;
        within("the number of key-value heads", kv_heads, heads)?;
        within("the width of a head", head_dim, MAX_HEAD_DIM)?;
        within("heads times their width", heads.saturating_mul(head_dim), MAX_WIDTH)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::bad_file(format!(
                "{heads} heads cannot share {kv_heads} key-value heads evenly"
            )));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(Error::bad_file(format!("a head of {head_dim} elements has no pairs to rotate")));
        }
        if let Some(rope) = rope.filter(|rope| rope.dims > head_dim) {
            return Err(Error::bad_file(format!(
                "{} elements of a head are to be rotated, but a head has {head_dim}",
                rope.dims
            )));
        }
        if self.attention.window == Some(0) {
            return Err(Error::bad_file("a window of no keys"));
        }
        positive("the scale of attention", scale)?;
        self.attention.cap.map_or(Ok(()), |cap| positive("the cap of scores", cap))
    }
}

impl Rope {
    /// The plain frequencies `base^(-2i / dims)`.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where `base` or `dims` allow none.
    pub(super) fn inv_freq(base: f64, dims: u32) -> Result<Vec<f64>> {
        if !(base.is_finite() && base > 0.0) {
            return Err(Error::bad_file(format!("{base} cannot be the base of the rotary frequencies")));
        }
        within("the number of rotated elements", dims, MAX_HEAD_DIM)?;
        if !dims.is_multiple_of(2) {
            return Err(Error::bad_file(format!("{dims} rotated elements do not make pairs")));
        }
        Ok((0..dims / 2).map(|pair| base.powf(-f64::from(2 * pair) / f64::from(dims))).collect())
    }

    /// The frequencies for `context` positions.
    pub(super) fn frequencies(&self, context: u32) -> &[f64] {
        self.long.as_ref().filter(|(above, _)| context > *above).map_or(&self.inv_freq, |(_, long)| long)
    }

    fn check(&self) -> Result<()> {
        for frequencies in
            [Some(&self.inv_freq), self.long.as_ref().map(|(_, long)| long)].into_iter().flatten()
        {
            if frequencies.len() != self.dims as usize / 2 {
                let what = format!("{} frequencies for {} elements", frequencies.len(), self.dims);
                return Err(Error::internal(what));
            }
            if let Some(pair) = frequencies.iter().position(|freq| !(freq.is_finite() && *freq > 0.0)) {
                let what = format!("{} cannot be the rotary frequency of pair {pair}", frequencies[pair]);
                return Err(Error::bad_file(what));
            }
        }
        positive("the factor of the rotation", self.attention_factor)
    }
}

fn positive(what: &str, value: f32) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Error::bad_file(format!("{value} cannot be {what}"))),
    }
}

fn within(what: &str, value: u32, max: u32) -> Result<()> {
    if value == 0 || value > max {
        return Err(Error::bad_file(format!("{what} is {value}, where 1 to {max} are possible")));
    }
    Ok(())
}
