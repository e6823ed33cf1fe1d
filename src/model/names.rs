//! What the dialects call the same tensor.

/// A place for a tensor in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The rows that tokens become, `(vocab, width)`.
    Embedding,
    /// The vectors of positions, `(context, width)`.
    Positions,
    /// The gain of the norm before the head, `(width)`.
    FinalNorm,
    /// The matrix to logits, `(vocab, width)`.
    Head,
    /// Divisors of the rotary frequencies, `(rope.dims / 2)`.
    RopeFactors,
    /// The same for contexts up to that of the first training.
    ShortRopeFactors,
    /// The same for longer ones.
    LongRopeFactors,
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
    /// All three, rows after rows.
    Qkv,
    /// The gain of the norm of each head of queries, `(head_dim)`.
    QNorm,
    /// That of keys, `(head_dim)`.
    KNorm,
    /// From the heads back, `(width, heads · head_dim)`.
    O,
    /// The gain of the norm of what attention adds, `(width)`.
    PostAttentionNorm,
    /// The gain of the norm before the feed-forward network, `(width)`.
    FfnNorm,
    /// The gate of the feed-forward network, `(ffn_width, width)`.
    Gate,
    /// Up, `(ffn_width, width)`.
    Up,
    /// Both, rows after rows.
    GateUp,
    /// Down, `(width, ffn_width)`.
    Down,
    /// The gain of the norm of what the feed-forward network adds, `(width)`.
    PostFfnNorm,
}

/// A way to name tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Naming {
    /// `blk.0.attn_q.weight`
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace(&'static Stems),
    /// `layers.0.attention.wq.weight`
    Meta,
}

/// The names of an architecture in Hugging Face's dialect, without `.weight` and `.bias`.
#[derive(Debug, PartialEq)]
pub struct Stems {
    /// The embedding.
    pub embedding: &'static str,
    /// The vectors of positions.
    pub positions: &'static str,
    /// The last norm.
    pub final_norm: &'static str,
    /// How the names of all tensors in blocks begin, up to the index.
    pub blocks: &'static str,
    /// Parts that are not called as in Llama.
    pub parts: &'static [(Part, &'static str)],
}

impl Stems {
    /// Those of Llama.
    pub const LLAMA: Self = Self {
        embedding: "model.embed_tokens",
        positions: "model.embed_positions",
        final_norm: "model.norm",
        blocks: "model.layers.",
        parts: &[],
    };
}

impl Naming {
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
            Self::HuggingFace(stems) => stems.blocks,
            Self::Meta => "layers.",
        }
    }

    /// What the names of the tensors in `slot` begin with.
    pub(super) fn stem(self, slot: Slot) -> String {
        let name = match (self, slot) {
            (Self::Gguf, Slot::Block(block, part)) => return format!("blk.{block}.{}", part.gguf()),
            (Self::HuggingFace(stems), Slot::Block(block, part)) => {
                let own = stems.parts.iter().find(|(own, _)| *own == part);
                let name = own.map_or_else(|| part.hugging_face(), |(_, name)| name);
                return format!("{}{block}.{name}", stems.blocks);
            }
            (Self::Gguf, Slot::Embedding) => "token_embd",
            (Self::Gguf, Slot::Positions) => "position_embd",
            (Self::Gguf, Slot::FinalNorm) => "output_norm",
            (Self::Gguf, Slot::Head) => "output",
            (Self::HuggingFace(stems), Slot::Embedding) => stems.embedding,
            (Self::HuggingFace(stems), Slot::Positions) => stems.positions,
            (Self::HuggingFace(stems), Slot::FinalNorm) => stems.final_norm,
            (Self::HuggingFace(_), Slot::Head) => "lm_head",
            (Self::Meta, Slot::Block(block, part)) => return format!("layers.{block}.{}", part.meta()),
            (Self::Meta, Slot::Embedding) => "tok_embeddings",
            (Self::Meta, Slot::Positions) => "pos_embeddings",
            (Self::Meta, Slot::FinalNorm) => "norm",
            (Self::Meta, Slot::Head) => "output",
            (_, Slot::RopeFactors) => "rope_freqs",
            (_, Slot::ShortRopeFactors) => "rope_factors_short",
            (_, Slot::LongRopeFactors) => "rope_factors_long",
        };
        name.to_owned()
    }
}

impl Part {
    /// The parts of a block of Llama.
    pub const LLAMA: [Self; 9] = [
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

    /// Whether the part is the gain of a norm.
    pub fn is_norm(self) -> bool {
        matches!(
            self,
            Self::AttentionNorm
                | Self::QNorm
                | Self::KNorm
                | Self::PostAttentionNorm
                | Self::FfnNorm
                | Self::PostFfnNorm
        )
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attn_norm",
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::Qkv => "attn_qkv",
            Self::QNorm => "attn_q_norm",
            Self::KNorm => "attn_k_norm",
            Self::O => "attn_output",
            Self::PostAttentionNorm => "post_attention_norm",
            Self::FfnNorm => "ffn_norm",
            Self::Gate => "ffn_gate",
            Self::Up | Self::GateUp => "ffn_up",
            Self::Down => "ffn_down",
            Self::PostFfnNorm => "post_ffw_norm",
        }
    }

    fn hugging_face(self) -> &'static str {
        match self {
            Self::AttentionNorm => "input_layernorm",
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::Qkv => "self_attn.qkv_proj",
            Self::QNorm => "self_attn.q_norm",
            Self::KNorm => "self_attn.k_norm",
            Self::O => "self_attn.o_proj",
            // Gemma's word for it; Llama calls the norm before the feed-forward network so, and has no other.
            Self::PostAttentionNorm | Self::FfnNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::GateUp => "mlp.gate_up_proj",
            Self::Down => "mlp.down_proj",
            Self::PostFfnNorm => "post_feedforward_layernorm",
        }
    }

    fn meta(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention_norm",
            Self::Q => "attention.wq",
            Self::K => "attention.wk",
            Self::V => "attention.wv",
            Self::Qkv => "attention.wqkv",
            Self::QNorm => "attention.q_norm",
            Self::KNorm => "attention.k_norm",
            Self::O => "attention.wo",
            Self::PostAttentionNorm => "post_attention_norm",
            Self::FfnNorm => "ffn_norm",
            Self::Gate => "feed_forward.w1",
            Self::Up => "feed_forward.w3",
            Self::GateUp => "feed_forward.w13",
            Self::Down => "feed_forward.w2",
            Self::PostFfnNorm => "post_ffn_norm",
        }
    }
}
