//! What architectures read of GGUF metadata in the same way: keys begin with the architecture's name.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Metadata};
use crate::model::source::vector;
use crate::model::{Blueprint, Naming, Pairing, Rope, Slot};

use super::rope::{BASE, unknown};
use super::{Shape, divide, missing};

/// A file of the architecture `arch`.
pub(super) struct Gguf<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) metadata: &'a Metadata,
    pub(super) arch: &'static str,
}

impl Gguf<'_> {
    /// Llama's blueprint by the settings of the file, with rotated pairs as `pairing` says, and its window in each layer.
    pub(super) fn like_llama(&self, pairing: Pairing) -> Result<Blueprint> {
        let shape = self.shape("attention.layer_norm_rms_epsilon")?;
        let rope = self.rope(pairing, self.u32("rope.dimension_count")?.unwrap_or(shape.head_dim))?;
        let mut blueprint = shape.llama(vec![rope])?;
        let window = self.window()?;
        blueprint.blocks.iter_mut().for_each(|block| block.attention.window = window);
        Ok(blueprint)
    }

    /// What every architecture has; the ε of norms is under the key `eps`.
    pub(super) fn shape(&self, eps: &str) -> Result<Shape> {
        let Self { checkpoint, metadata, arch } = *self;
        self.refuse_experts()?;
        let width = self.required("embedding_length")?;
        let heads = self.required("attention.head_count")?;
        let head_dim = match self.u32("attention.key_length")? {
            Some(length) => length,
            None => divide(width, heads).map_err(|error| error.at(self.key("attention.head_count")))?,
        };
        let value_length = self.u32("attention.value_length")?.unwrap_or(head_dim);
        if value_length != head_dim {
            let what = format!("values of {value_length} beside keys of {head_dim} elements");
            return Err(Error::unsupported(what).at(self.key("attention.value_length")));
        }
        Ok(Shape {
            arch,
            name: metadata.text("general.name")?.unwrap_or_default().to_owned(),
            width,
            vocab: self.vocab()?,
            context: self.required("context_length")?,
            heads,
            kv_heads: self.u32("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            ffn_width: self.required("feed_forward_length")?,
            layers: self.required("block_count")?,
            norm_eps: self.float(eps)?.ok_or_else(|| missing(&self.key(eps)))?,
            tied: !checkpoint.tensors.contains_key(&Naming::Gguf.weight(Slot::Head)),
            naming: Naming::Gguf,
        })
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    pub(super) fn u32(&self, name: &str) -> Result<Option<u32>> {
        self.metadata.u32(&self.key(name))
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.key(name))
    }

    pub(super) fn required(&self, name: &str) -> Result<u32> {
        self.u32(name)?.ok_or_else(|| missing(&self.key(name)))
    }

    /// Keys that a query sees, where they are few; 0 stands for all.
    pub(super) fn window(&self) -> Result<Option<u32>> {
        Ok(self.u32("attention.sliding_window")?.filter(|&window| window > 0))
    }

    /// A mixture of experts goes by the names of dense models, and would go wrong in silence.
    fn refuse_experts(&self) -> Result<()> {
        match self.u32("expert_count")?.unwrap_or(0) {
            0 => Ok(()),
            _ => {
                Err(Error::unsupported("a mixture of experts is not supported").at(self.key("expert_count")))
            }
        }
    }

    /// The rows of the embedding, which must cover every token of the vocabulary, if there is one.
    fn vocab(&self) -> Result<u32> {
        let embedding = self.checkpoint.tensor(&Naming::Gguf.weight(Slot::Embedding))?;
        let rows = embedding.dims[0];
        let tokens_key = "tokenizer.ggml.tokens";
        let tokens = self.metadata.texts(tokens_key)?.map(|tokens| tokens.len() as u64);
        let size = self.u32("vocab_size")?.map(u64::from);
        for (key, count) in [(tokens_key.to_owned(), tokens), (self.key("vocab_size"), size)] {
            let Some(count) = count else { continue };
            if count == 0 {
                return Err(Error::bad_file("the vocabulary is empty").at(key));
            }
            if count > rows {
                let what = format!("{count} tokens, but the embedding has {rows} rows");
                return Err(Error::bad_file(what).at(key));
            }
        }
        u32::try_from(rows).map_err(|_| embedding.refuse(format!("{rows} rows are not a vocabulary")))
    }

    /// The rotation of `dims` elements of a head.
    pub(super) fn rope(&self, pairing: Pairing, dims: u32) -> Result<Rope> {
        let base = self.float("rope.freq_base")?.unwrap_or(BASE);
        let mut inv_freq = Rope::inv_freq(base, dims)?;
        let kind_key = self.key("rope.scaling.type");
        let factor = match self.metadata.text(&kind_key)? {
            None => self.float("rope.scale_linear")?.unwrap_or(1.0),
            // LongRoPE is tensors.
            Some("none" | "longrope") => 1.0,
            Some("linear") => {
                let name = "rope.scaling.factor";
                self.float(name)?.ok_or_else(|| missing(&self.key(name)))?
            }
            Some(kind) => return Err(unknown(kind).at(kind_key)),
        };
        inv_freq.iter_mut().for_each(|freq| *freq /= factor);
        if let Some(divided) = self.divided(&inv_freq, Slot::RopeFactors)? {
            inv_freq = divided;
        }
        let attention_factor = self.float("rope.scaling.attn_factor")?.unwrap_or(1.0) as f32;
        Ok(Rope { dims, pairing, inv_freq, attention_factor, long: None })
    }

    /// Frequencies divided by the tensor in `slot`, if there is one.
    pub(super) fn divided(&self, inv_freq: &[f64], slot: Slot) -> Result<Option<Vec<f64>>> {
        let Some(tensor) = self.checkpoint.tensors.get(&Naming::Gguf.weight(slot)) else { return Ok(None) };
        let divisors = vector(tensor, inv_freq.len() as u32)?;
        Ok(Some(inv_freq.iter().zip(divisors).map(|(freq, divisor)| freq / f64::from(divisor)).collect()))
    }
}
