//! What has been said in another dialect is read there at once, and compared with what was to be said.
//!
//! Apart are the name, the architecture (in GGUF, Mistral is a Llama), the layout and the order of rotated pairs: those are
//! the dialect's own. Two numbers may differ by a rounding: frequencies whose divisors are f32 in GGUF, and Gemma's scale of
//! the embedding, which Hugging Face's dialect rounds to the type of the embedding and GGUF does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dialect, Dtype, Tensor};
use crate::model::{Block, Blueprint, Naming, Part, Rope, Slot};
use crate::quant::Format;

use super::gguf::Vectors;
use super::rope::{SAME_FREQUENCY, near};

/// How far Gemma's scale of the embedding may be off: the rounding unit of BF16.
const SAME_SCALE: f64 = 1.0 / 256.0;

/// Which projections have biases: no setting says so in most dialects, but readers look whether they are there.
pub(super) struct Biases {
    slots: Vec<Slot>,
    /// Whether projections from and to heads have them.
    pub(super) attention: bool,
    /// Whether those of the feed-forward networks do.
    pub(super) ffn: bool,
}

/// Parts that hold the same rows.
const JOINED: &[(Part, &[Part])] =
    &[(Part::Qkv, &[Part::Q, Part::K, Part::V]), (Part::GateUp, &[Part::Gate, Part::Up])];

impl Biases {
    /// Those of `checkpoint`, in slots of joined and of single matrices alike.
    pub(super) fn of(checkpoint: &Checkpoint, blueprint: &Blueprint) -> Self {
        let naming = blueprint.layout.naming;
        let has = |layer, part| checkpoint.tensors.contains_key(&naming.bias(Slot::Block(layer, part)));
        let mut slots = Vec::new();
        for layer in 0..blueprint.layers().count() {
            let mut add = |part| slots.push(Slot::Block(layer, part));
            [Part::O, Part::Down].into_iter().filter(|part| has(layer, *part)).for_each(&mut add);
            for (joined, parts) in JOINED {
                let whole = has(layer, *joined);
                let of_parts: Vec<Part> =
                    parts.iter().copied().filter(|part| whole || has(layer, *part)).collect();
                let any = (!of_parts.is_empty()).then_some(*joined);
                of_parts.into_iter().chain(any).for_each(&mut add);
            }
        }
        let all = |parts: &[Part]| parts.iter().all(|part| slots.contains(&Slot::Block(0, *part)));
        Self {
            attention: all(&[Part::Q, Part::K, Part::V, Part::O]),
            ffn: all(&[Part::Up, Part::Down]),
            slots,
        }
    }
}

/// The blueprint as it is read where `dialect` stands beside weights that are called by `naming`.
///
/// # Errors
/// [`crate::Kind::Unsupported`] where it cannot be read, or is another than `blueprint`.
pub(super) fn judge(
    checkpoint: &Checkpoint,
    blueprint: &Blueprint,
    biases: &Biases,
    dialect: Dialect,
    naming: Naming,
    vectors: &Vectors,
) -> Result<Blueprint> {
    let name = match dialect {
        Dialect::Gguf(_) => "GGUF",
        Dialect::HuggingFace(_) => "Hugging Face's dialect",
        Dialect::Meta(_) => "Meta's dialect",
    };
    let told = mirror(checkpoint, blueprint, biases, dialect, naming, vectors);
    let read = Blueprint::read(&told).map_err(|error| {
        let what = format!("{name} cannot say what this model of the architecture {} is", blueprint.arch);
        Error::unsupported(what).caused_by(error)
    })?;
    match difference(blueprint, &read) {
        None => Ok(read),
        Some(what) => Err(Error::unsupported(format!("{name} has no words for {what}"))
            .at(format!("architecture {}", blueprint.arch))
            .in_file(&checkpoint.path)),
    }
}

/// A checkpoint of what readers of settings look up among the tensors.
fn mirror(
    checkpoint: &Checkpoint,
    blueprint: &Blueprint,
    biases: &Biases,
    dialect: Dialect,
    naming: Naming,
    vectors: &Vectors,
) -> Checkpoint {
    let embedding = checkpoint.tensors.get(&blueprint.layout.naming.weight(Slot::Embedding));
    let format = match embedding.map(|tensor| tensor.dtype) {
        Some(Dtype::Format(format @ (Format::BF16 | Format::F16))) => format,
        _ => Format::F32,
    };
    let tensor = |name: String, dims: &[u64], format, values: &[f32]| {
        let (dims, bytes) = (dims.to_vec(), Format::F32.encode(values).into());
        let file = Arc::from(checkpoint.path.as_path());
        Tensor { name, dims, dtype: Dtype::Format(format), bytes, file, offset: 0 }
    };
    let rows = [u64::from(blueprint.vocab), u64::from(blueprint.width)];
    let head = (!blueprint.tied).then_some(Slot::Head);
    let matrices = [Slot::Embedding].into_iter().chain(head);
    let matrices = matrices.map(|slot| tensor(naming.weight(slot), &rows, format, &[]));
    let biases = biases.slots.iter().map(|slot| tensor(naming.bias(*slot), &[], Format::F32, &[]));
    let vectors = vectors
        .iter()
        .map(|(slot, values)| tensor(naming.weight(*slot), &[values.len() as u64], Format::F32, values));
    let tensors: BTreeMap<String, Tensor> =
        matrices.chain(biases).chain(vectors).map(|tensor| (tensor.name.clone(), tensor)).collect();
    Checkpoint { path: checkpoint.path.clone(), dialect, tensors }
}

/// The first thing that `read` lacks of `given` or has otherwise.
fn difference(given: &Blueprint, read: &Blueprint) -> Option<String> {
    let layers = |blueprint: &Blueprint| blueprint.blocks.iter().map(|block| block.layer).collect::<Vec<_>>();
    let of_model = [
        ("layers that are computed twice", layers(given) == layers(read)),
        ("its width", given.width == read.width),
        ("its vocabulary", given.vocab == read.vocab),
        ("its context", given.context == read.context),
        (
            "its scale of the embedding",
            near(read.embedding_scale.into(), given.embedding_scale.into(), SAME_SCALE),
        ),
        ("vectors of positions", given.positions == read.positions),
        ("its norms", given.norm == read.norm && given.norm_eps == read.norm_eps),
        ("its cap of logits", given.logit_cap == read.logit_cap),
        ("a head that is or is not the embedding", given.tied == read.tied),
        ("its rotary frequencies", same_ropes(&given.ropes, &read.ropes)),
        ("a temperature of attention", given.temperature == read.temperature),
    ];
    let of_model = of_model.into_iter().find(|(_, same)| !same).map(|(what, _)| what.to_owned());
    let of_blocks = || {
        given.blocks.iter().zip(&read.blocks).find_map(|(given, read)| {
            different(given, read).map(|what| format!("{what} of layer {}", given.layer))
        })
    };
    of_model.or_else(of_blocks)
}

fn different(given: &Block, read: &Block) -> Option<&'static str> {
    let (a, b) = (&given.attention, &read.attention);
    let of_block = [
        ("the rotation", a.rope == b.rope),
        ("the window", a.window == b.window),
        ("the norms of heads", a.head_norm == b.head_norm),
        ("the cap of scores", a.cap == b.cap),
        ("the scale of scores", a.scale == b.scale),
        ("the temperature", a.tempered == b.tempered),
        ("the heads", (a.heads, a.kv_heads, a.head_dim) == (b.heads, b.kv_heads, b.head_dim)),
        ("the feed-forward network", (given.ffn, given.ffn_width) == (read.ffn, read.ffn_width)),
        ("the norms behind each half", given.post_norms == read.post_norms),
    ];
    // What is new in the type is not silently passed over.
    of_block
        .into_iter()
        .find(|(_, same)| !same)
        .map(|(what, _)| what)
        .or((given != read).then_some("something"))
}

fn same_ropes(given: &[Rope], read: &[Rope]) -> bool {
    given.len() == read.len() && given.iter().zip(read).all(|(given, read)| same_rope(given, read))
}

fn same_rope(given: &Rope, read: &Rope) -> bool {
    let same = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b, SAME_FREQUENCY))
    };
    let same_long = match (&given.long, &read.long) {
        (None, None) => true,
        (Some((above, freqs)), Some((read_above, read_freqs))) => {
            above == read_above && same(freqs, read_freqs)
        }
        _ => false,
    };
    given.dims == read.dims
        && given.attention_factor == read.attention_factor
        && same(&given.inv_freq, &read.inv_freq)
        && same_long
}
