//! The list of shapes. To add one: a line here.

use crate::model::{Part, Slot};

/// The shape of a published model of the architecture llama with tied embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// `llama-3.2-1b`
    pub name: &'static str,
    /// Elements of a row of the residual stream.
    pub width: u32,
    /// Blocks.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Elements between gate and down.
    pub ffn_width: u32,
    /// Tokens.
    pub vocab: u32,
    /// Positions it was trained for.
    pub context: u32,
    /// The base of the rotary frequencies.
    pub rope_base: f64,
    /// By what Llama 3.2 divides its slow frequencies.
    pub rope_factor: Option<f64>,
}

const LLAMA: Preset = Preset {
    name: "",
    width: 0,
    layers: 0,
    heads: 0,
    kv_heads: 8,
    head_dim: 64,
    ffn_width: 8192,
    vocab: 128_256,
    context: 131_072,
    rope_base: 500_000.0,
    rope_factor: Some(32.0),
};

const MOBILELLM: Preset = Preset {
    name: "",
    width: 0,
    layers: 0,
    heads: 0,
    kv_heads: 0,
    head_dim: 64,
    ffn_width: 0,
    vocab: 32_000,
    context: 2048,
    rope_base: 10_000.0,
    rope_factor: None,
};

/// Every preset. Sources: `config.json` of meta-llama/Llama-3.2-1B and -3B, of HuggingFaceTB/SmolLM2-135M, and
/// `configs/*/config.json` of facebookresearch/MobileLLM (arXiv 2402.14905).
pub const PRESETS: &[Preset] = &[
    Preset { name: "llama-3.2-1b", width: 2048, layers: 16, heads: 32, ..LLAMA },
    Preset { name: "llama-3.2-3b", width: 3072, layers: 28, heads: 24, head_dim: 128, ..LLAMA },
    Preset {
        name: "smollm2-135m",
        width: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ffn_width: 1536,
        vocab: 49_152,
        context: 8192,
        rope_base: 100_000.0,
        rope_factor: None,
    },
    Preset {
        name: "mobilellm-125m",
        width: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        ffn_width: 1536,
        ..MOBILELLM
    },
    Preset {
        name: "mobilellm-350m",
        width: 960,
        layers: 32,
        heads: 15,
        kv_heads: 5,
        ffn_width: 2560,
        ..MOBILELLM
    },
    Preset {
        name: "mobilellm-600m",
        width: 1152,
        layers: 40,
        heads: 18,
        kv_heads: 6,
        ffn_width: 3072,
        ..MOBILELLM
    },
    Preset {
        name: "mobilellm-1b",
        width: 1280,
        layers: 54,
        heads: 20,
        kv_heads: 5,
        ffn_width: 3584,
        ..MOBILELLM
    },
];

impl Preset {
    /// The preset of this name.
    pub fn named(name: &str) -> Option<Self> {
        PRESETS.iter().copied().find(|preset| preset.name == name)
    }

    /// Rows and columns of what belongs in `slot`; a vector has no rows.
    pub(super) fn dims(&self, slot: Slot) -> Vec<u64> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let dims: &[u32] = match slot {
            Slot::Embedding | Slot::Head => &[self.vocab, self.width],
            Slot::Positions => &[self.context, self.width],
            Slot::FinalNorm => &[self.width],
            Slot::RopeFactors | Slot::ShortRopeFactors | Slot::LongRopeFactors => &[self.head_dim / 2],
            Slot::Block(_, Part::QNorm | Part::KNorm) => &[self.head_dim],
            Slot::Block(_, part) if part.is_norm() => &[self.width],
            Slot::Block(_, Part::Q) => &[queries, self.width],
            Slot::Block(_, Part::K | Part::V) => &[keys, self.width],
            Slot::Block(_, Part::Qkv) => &[queries + 2 * keys, self.width],
            Slot::Block(_, Part::O) => &[self.width, queries],
            Slot::Block(_, Part::GateUp) => &[2 * self.ffn_width, self.width],
            Slot::Block(_, Part::Down) => &[self.width, self.ffn_width],
            Slot::Block(..) => &[self.ffn_width, self.width],
        };
        dims.iter().map(|&dim| dim.into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published counts of weights: each model's card, and the paper's table for MobileLLM.
    #[test]
    fn the_shapes_have_the_published_counts_of_weights() {
        let counts = [
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("smollm2-135m", 134_515_008),
            ("mobilellm-125m", 124_635_456),
            ("mobilellm-350m", 345_355_200),
            ("mobilellm-600m", 603_188_352),
            ("mobilellm-1b", 1_005_461_760),
        ];
        assert_eq!(counts.len(), PRESETS.len());
        for (name, count) in counts {
            let preset = Preset::named(name).unwrap();
            let size = |slot| preset.dims(slot).iter().product::<u64>();
            let block: u64 = Part::LLAMA.iter().map(|&part| size(Slot::Block(0, part))).sum();
            let all = size(Slot::Embedding) + u64::from(preset.layers) * block + size(Slot::FinalNorm);
            assert_eq!(all, count, "{name}");
        }
    }
}
