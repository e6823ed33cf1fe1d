//! What the dialects call the same tensor.

use crate::format::Dialect;

/// A place for a tensor in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The rows that tokens become, `(vocab, width)`.
    Embedding,
    /// The gain of the norm before the head, `(width)`.
    FinalNorm,
    /// The matrix to logits, `(vocab, width)`.
    Head,
    /// Divisors of the rotary frequencies, `(rope.dims / 2)`.
    RopeFactors,
    /// A part of the block with this index.
    Block(usize, Part),
}

/// A place for a tensor in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gain of the norm before attention, `(width)`.
    AttentionNorm,
    /// To queries, `(heads · head_dim, width)`.
    Q,
    /// To keys, `(kv_heads · head_dim, width)`.
    K,
    /// To values, `(kv_heads · head_dim, width)`.
    V,
    /// From the heads back, `(width, heads · head_dim)`.
    O,
    /// The gain of the norm before the feed-forward network, `(width)`.
    FfnNorm,
    /// The gate of SwiGLU, `(ffn_width, width)`.
    Gate,
    /// Up, `(ffn_width, width)`.
    Up,
    /// Down, `(width, ffn_width)`.
    Down,
}

/// A way to name tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `blk.0.attn_q.weight`
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace,
    /// `layers.0.attention.wq.weight`
    Meta,
}

impl Naming {
    /// The naming of a checkpoint's dialect.
    pub fn of(dialect: &Dialect) -> Self {
        match dialect {
            Dialect::Gguf(_) => Self::Gguf,
            Dialect::HuggingFace(_) => Self::HuggingFace,
            Dialect::Meta(_) => Self::Meta,
        }
    }

    /// The name of the weight in `slot`.
    pub fn weight(self, slot: Slot) -> String {
        format!("{}.weight", self.stem(slot))
    }

    /// The name of the bias in `slot`.
    pub fn bias(self, slot: Slot) -> String {
        format!("{}.bias", self.stem(slot))
    }

    /// How the names of all tensors in blocks begin.
    pub fn block_prefix(self) -> &'static str {
        match self {
            Self::Gguf => "blk.",
            Self::HuggingFace => "model.layers.",
            Self::Meta => "layers.",
        }
    }

    /// What the names of the tensors in `slot` begin with.
    pub(super) fn stem(self, slot: Slot) -> String {
        match (self, slot) {
            (Self::Gguf, Slot::Embedding) => "token_embd".to_owned(),
            (Self::Gguf, Slot::FinalNorm) => "output_norm".to_owned(),
            (Self::Gguf, Slot::Head) => "output".to_owned(),
            (Self::Gguf, Slot::Block(block, part)) => format!("blk.{block}.{}", part.gguf()),
            (Self::HuggingFace, Slot::Embedding) => "model.embed_tokens".to_owned(),
            (Self::HuggingFace, Slot::FinalNorm) => "model.norm".to_owned(),
            (Self::HuggingFace, Slot::Head) => "lm_head".to_owned(),
            (Self::HuggingFace, Slot::Block(block, part)) => {
                format!("model.layers.{block}.{}", part.hugging_face())
            }
            (Self::Meta, Slot::Embedding) => "tok_embeddings".to_owned(),
            (Self::Meta, Slot::FinalNorm) => "norm".to_owned(),
            (Self::Meta, Slot::Head) => "output".to_owned(),
            (Self::Meta, Slot::Block(block, part)) => format!("layers.{block}.{}", part.meta()),
            (_, Slot::RopeFactors) => "rope_freqs".to_owned(),
        }
    }
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 9] = [
        Self::AttentionNorm,
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::FfnNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Whether the part is the gain of a norm, a vector without a bias.
    pub fn is_norm(self) -> bool {
        matches!(self, Self::AttentionNorm | Self::FfnNorm)
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attn_norm",
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::O => "attn_output",
            Self::FfnNorm => "ffn_norm",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    fn hugging_face(self) -> &'static str {
        match self {
            Self::AttentionNorm => "input_layernorm",
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::FfnNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    fn meta(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention_norm",
            Self::Q => "attention.wq",
            Self::K => "attention.wk",
            Self::V => "attention.wv",
            Self::O => "attention.wo",
            Self::FfnNorm => "ffn_norm",
            Self::Gate => "feed_forward.w1",
            Self::Up => "feed_forward.w3",
            Self::Down => "feed_forward.w2",
        }
    }
}
