//! What architectures read of `config.json` in the same way.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config};
use crate::model::{Blueprint, Naming, Pairing, Part, Slot, Stems, forms};

use super::rope::RopeSettings;
use super::{Shape, divide, missing};

/// The projections of attention.
pub(super) const QKV: &[Part] = &[Part::Q, Part::K, Part::V];
const FFN: &[Part] = &[Part::Gate, Part::Up, Part::Down];

/// Which keys the queries of a layer see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All before them.
    Full,
    /// Those in a window.
    Sliding,
    /// Those in the same chunk.
    Chunked,
}

/// A folder of the architecture `arch`.
pub(super) struct Folder<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a Config,
    pub(super) arch: &'static str,
}

impl Folder<'_> {
    /// Llama's blueprint by the settings of the folder. Biases are the caller's to check.
    pub(super) fn like_llama(&self) -> Result<Blueprint> {
        self.check_activation(&["hidden_act"], "silu")?;
        let shape = self.shape()?;
        let rope = RopeSettings::read(self.config)?.whole(Pairing::HalfSplit, shape.head_dim)?;
        shape.llama(vec![rope])
    }

    /// What every architecture has, under Llama's keys.
    pub(super) fn shape(&self) -> Result<Shape> {
        let Self { config, arch, .. } = *self;
        let width = self.required("hidden_size")?;
        let heads = self.required("num_attention_heads")?;
        let head_dim = match config.u32("head_dim")? {
            Some(head_dim) => head_dim,
            None => divide(width, heads).map_err(|error| error.at("num_attention_heads"))?,
        };
        Ok(Shape {
            arch,
            name: config.text("_name_or_path")?.unwrap_or_default().to_owned(),
            width,
            vocab: self.required("vocab_size")?,
            context: self.required("max_position_embeddings")?,
            heads,
            kv_heads: config.u32("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            ffn_width: self.required("intermediate_size")?,
            layers: self.required("num_hidden_layers")?,
            norm_eps: config.float("rms_norm_eps")?.ok_or_else(|| missing("rms_norm_eps"))?,
            tied: config.bool("tie_word_embeddings")?.unwrap_or(false),
            naming: Naming::HuggingFace(&Stems::LLAMA),
        })
    }

    /// Refuses another activation than `supported`, which the first of `keys` that is there names, if any.
    pub(super) fn check_activation(&self, keys: &[&str], supported: &str) -> Result<()> {
        for key in keys {
            let Some(activation) = self.config.text(key)? else { continue };
            if activation == supported {
                return Ok(());
            }
            return Err(Error::unsupported(format!("the activation {activation:?} is not supported"))
                .at(*key)
                .hint(format!("supported is {supported}")));
        }
        Ok(())
    }

    pub(super) fn required(&self, key: &str) -> Result<u32> {
        self.config.u32(key)?.ok_or_else(|| missing(key))
    }

    /// Gives the layers that `layer_types` calls sliding, or, where there is no such list, those that `usual` names,
    /// the window that the settings ask for.
    pub(super) fn slide(&self, blueprint: &mut Blueprint, usual: impl Fn(u32) -> bool) -> Result<()> {
        let window = self.config.u32("sliding_window")?;
        let kinds = self.kinds(blueprint.blocks.len())?;
        for block in &mut blueprint.blocks {
            let slides = match &kinds {
                None => usual(block.layer),
                Some(kinds) => kinds[block.layer as usize] == Kind::Sliding,
            };
            block.attention.window = window.filter(|_| slides);
        }
        Ok(())
    }

    /// What `layer_types` says of each of `layers` layers, if it is there.
    pub(super) fn kinds(&self, layers: usize) -> Result<Option<Vec<Kind>>> {
        let key = "layer_types";
        let Some(kinds) = self.config.array(key)? else { return Ok(None) };
        if kinds.len() < layers {
            return Err(Error::bad_file(format!("{} entries for {layers} layers", kinds.len())).at(key));
        }
        let kind = |value: &serde_json::Value| match value.as_str() {
            Some("full_attention") => Ok(Kind::Full),
            Some("sliding_attention") => Ok(Kind::Sliding),
            Some("chunked_attention") => Ok(Kind::Chunked),
            _ => Err(Error::unsupported(format!("a layer of {value} is not supported")).at(key)),
        };
        kinds.iter().map(kind).collect::<Result<_>>().map(Some)
    }

    /// Whether a layer rotates queries and keys: `no_rope_layers` has a 1 where it does, in spite of its name. Without
    /// the list, each `no_rope_layer_interval`-th of `layers` does not, or each `usual`-th.
    pub(super) fn rotated(&self, layers: usize, usual: u32) -> Result<impl Fn(u32) -> bool> {
        let key = "no_rope_layers";
        let list = self.config.array(key)?.filter(|list| !list.is_empty());
        let interval = self.config.u32("no_rope_layer_interval")?.unwrap_or(usual);
        if let Some(value) =
            list.and_then(|list| list.iter().find(|value| !matches!(value.as_u64(), Some(0 | 1))))
        {
            return Err(Error::bad_file(format!("{value} where 0 or 1 belongs")).at(key));
        }
        if let Some(list) = list.filter(|list| list.len() < layers) {
            return Err(Error::bad_file(format!("{} entries for {layers} layers", list.len())).at(key));
        }
        let list: Option<Vec<bool>> =
            list.map(|list| list.iter().map(|value| value.as_u64() == Some(1)).collect());
        Ok(move |layer: u32| match &list {
            Some(list) => list.get(layer as usize).copied().unwrap_or(true),
            None => interval == 0 || !(layer + 1).is_multiple_of(interval),
        })
    }

    /// A bias that the settings promise under the keys `attention_bias` and `mlp_bias` must be there in every layer, and
    /// no other.
    pub(super) fn check_usual_biases(&self, blueprint: &Blueprint) -> Result<()> {
        let promised = |key| Ok::<_, Error>(self.config.bool(key)?.unwrap_or(false));
        let attention = promised("attention_bias")?;
        self.check_biases(blueprint, QKV, attention, "attention_bias")?;
        self.check_biases(blueprint, &[Part::O], attention, "attention_bias")?;
        self.check_biases(blueprint, FFN, promised("mlp_bias")?, "mlp_bias")
    }

    /// The biases of `parts` must be there in every layer, or in none, as `key` says.
    pub(super) fn check_biases(
        &self,
        blueprint: &Blueprint,
        parts: &[Part],
        promised: bool,
        key: &str,
    ) -> Result<()> {
        let slots = blueprint
            .layers()
            .flat_map(|block| parts.iter().map(|&part| Slot::Block(block.layer as usize, part)));
        let mut stems = slots.map(|slot| blueprint.layout.naming.stem(slot));
        match stems.find(|stem| forms::has_bias(self.checkpoint, stem) != promised) {
            None => Ok(()),
            Some(stem) => {
                let what =
                    if promised { "the bias is missing" } else { "a bias that the settings do not know" };
                Err(Error::bad_file(what).at(format!("tensor {stem}.bias")).at(key))
            }
        }
    }
}
