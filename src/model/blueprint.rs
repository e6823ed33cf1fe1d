//! The architecture as data: what an `arch` file reads from a checkpoint and `lower` turns into a plan.

use crate::error::{Error, Result};
use crate::format::Checkpoint;

/// A transformer: `vocab -> width -> blocks -> norm -> head -> vocab`.
///
/// Every number has been checked by [`Blueprint::read`]: nothing is zero, nothing is absurd, all divide.
#[derive(Clone, Debug)]
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
    /// What RMSNorm adds under the root.
    pub norm_eps: f32,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The rotary position embedding of all blocks.
    pub rope: Rope,
    /// The layers, first to last.
    pub blocks: Vec<Block>,
}

/// A layer: `x += attention(norm(x))`, `x += ffn(norm(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The first half.
    pub attention: Attention,
    /// Elements between gate/up and down.
    pub ffn_width: u32,
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
        for (index, block) in self.blocks.iter().enumerate() {
            block.check(&self.rope).map_err(|error| error.at(format!("layer {index}")))?;
        }
        self.rope.check()?;
        Ok(self)
    }
}

impl Block {
    /// `count` times this block.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where no model has so many layers.
    pub(super) fn repeat(self, count: u32) -> Result<Vec<Self>> {
        within("the number of layers", count, MAX_BLOCKS)?;
        Ok(vec![self; count as usize])
    }

    fn check(&self, rope: &Rope) -> Result<()> {
        let Attention { heads, kv_heads, head_dim, scale } = self.attention;
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
        if rope.dims > head_dim {
            return Err(Error::bad_file(format!(
                "{} elements of a head are to be rotated, but a head has {head_dim}",
                rope.dims
            )));
        }
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::bad_file(format!("{scale} cannot be the scale of attention")));
        }
        Ok(())
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

    fn check(&self) -> Result<()> {
        if self.inv_freq.len() != self.dims as usize / 2 {
            return Err(Error::internal(format!(
                "{} frequencies for {} elements",
                self.inv_freq.len(),
                self.dims
            )));
        }
        match self.inv_freq.iter().position(|freq| !(freq.is_finite() && *freq > 0.0)) {
            Some(pair) => Err(Error::bad_file(format!(
                "{} cannot be the rotary frequency of pair {pair}",
                self.inv_freq[pair]
            ))),
            None if self.attention_factor.is_finite() && self.attention_factor > 0.0 => Ok(()),
            None => Err(Error::bad_file(format!(
                "{} cannot be the factor of the rotation",
                self.attention_factor
            ))),
        }
    }
}

fn within(what: &str, value: u32, max: u32) -> Result<()> {
    if value == 0 || value > max {
        return Err(Error::bad_file(format!("{what} is {value}, where 1 to {max} are possible")));
    }
    Ok(())
}
