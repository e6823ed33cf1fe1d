//! The WebGPU floor is enough: whatever a model's shape and format, no buffer is larger than what every device binds, but for
//! those that the caller's own choices make so, which are refused before loading. And cut matrices give the same tokens.

use std::sync::Arc;

use pocketlm::backend::Order;
use pocketlm::format::Checkpoint;
use pocketlm::kernel::{ArgKind, KernelId, KvType};
use pocketlm::model::synth::{PRESETS, Preset, write};
use pocketlm::model::{
    Attention, Block, BlockWeights, Blueprint, CacheOptions, Linear, LowerOptions, Lowered, NormWeights,
    Weights, outline,
};
use pocketlm::plan::Item;
use pocketlm::quant::{Matrix, Rows};
use pocketlm::{Format, Result};

/// The largest binding, and the most of them, that WebGPU promises.
const BINDING: u64 = 128 << 20;
const BINDINGS: usize = 8;

/// Rows that nobody reads.
#[derive(Debug)]
struct Nothing;

impl Rows for Nothing {
    fn write(&self, _row: usize, _bytes: &mut [u8]) {
        unreachable!("an outline reads no weights");
    }

    fn release(&self) {}
}

/// Shapes beyond the presets: the largest vocabulary there is (Gemma 3's, 270M and 4B), and wide heads.
const MORE: &[Preset] = &[
    Preset {
        name: "gemma-3-270m",
        width: 640,
        layers: 18,
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
        ffn_width: 2048,
        vocab: 262_144,
        context: 32_768,
        rope_base: 1e6,
        rope_factor: None,
    },
    Preset {
        name: "gemma-3-4b",
        width: 2560,
        layers: 34,
        heads: 8,
        kv_heads: 4,
        head_dim: 256,
        ffn_width: 10_240,
        vocab: 262_144,
        context: 131_072,
        rope_base: 1e6,
        rope_factor: None,
    },
];

/// The blueprint of a shape, from a file of the same architecture that is small.
fn blueprint(preset: &Preset) -> Blueprint {
    let width = preset.head_dim;
    let small = Preset { layers: 1, vocab: 300, width, heads: 1, kv_heads: 1, ffn_width: 64, ..*preset };
    let mut file = Vec::new();
    write(&small, Format::Q8_0, 1, &mut file, &mut |_, _| Ok(())).expect("a model");
    let checkpoint = Checkpoint::from_bytes("small.gguf", file.into()).expect("a GGUF");
    let small = Blueprint::read(&checkpoint).expect("a blueprint");
    let attention =
        Attention { heads: preset.heads, kv_heads: preset.kv_heads, ..small.blocks[0].attention.clone() };
    let block = Block { attention, ffn_width: preset.ffn_width, ..small.blocks[0].clone() };
    let blocks = (0..preset.layers).map(|layer| Block { layer, ..block.clone() }).collect();
    Blueprint { width: preset.width, vocab: preset.vocab, blocks, ..small }
}

fn matrix(format: Format, rows: u32, cols: u32) -> Matrix {
    Matrix::made("w", format, rows as usize, cols as usize, Arc::new(Nothing)).expect("whole blocks")
}

/// Weights of a shape in a format, of which only the sizes are there.
fn weights(blueprint: &Blueprint, format: Format) -> Weights {
    let width = blueprint.width;
    let norm = || NormWeights { gain: vec![1.0; width as usize], bias: None };
    let linear = |rows, cols| Linear::plain(matrix(format.for_columns(u64::from(cols)), rows, cols));
    let block = |block: &Block| {
        let Attention { heads, kv_heads, head_dim, .. } = block.attention;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        BlockWeights {
            attention_norm: norm(),
            q: linear(queries, width),
            k: linear(keys, width),
            v: linear(keys, width),
            head_norms: None,
            o: linear(width, queries),
            post_norms: None,
            ffn_norm: norm(),
            gate: Some(linear(block.ffn_width, width)),
            up: linear(block.ffn_width, width),
            down: linear(width, block.ffn_width),
        }
    };
    Weights {
        embedding: matrix(format.for_vocabulary(u64::from(width)), blueprint.vocab, width),
        embedding_post: Vec::new(),
        positions: None,
        blocks: blueprint.layers().map(block).collect(),
        final_norm: norm(),
        head: None,
    }
}

fn lowered(blueprint: &Blueprint, weights: &Weights, context: u32, kv: KvType) -> Result<Lowered> {
    let options = LowerOptions {
        context,
        caches: vec![CacheOptions::full(kv, context, 2)],
        prefill_rows: 256.min(context),
        decode_rows: 4,
        outputs: 4,
        top: 64,
        max_matrix_bytes: BINDING,
        fused: true,
        calibrates: false,
        int8_activations: false,
    };
    outline(blueprint, weights, options)
}

/// The names of what is larger than a binding.
fn too_large(lowered: &Lowered) -> Vec<String> {
    let items =
        lowered.store.items().map(|(_, item)| (item.name().to_owned(), Order::Gpu.item(item).largest));
    let temps = lowered.plans().map(|plan| (plan.name.clone(), Order::Gpu.temps(plan).largest));
    items.chain(temps).filter(|&(_, bytes)| bytes > BINDING).map(|(name, _)| name).collect()
}

#[test]
fn every_shape_in_every_format_stays_below_the_floor() {
    for preset in PRESETS.iter().chain(MORE) {
        let blueprint = blueprint(preset);
        for format in Format::all_in_gguf() {
            let weights = weights(&blueprint, format);
            for &kv in KvType::ALL {
                let usual = lowered(&blueprint, &weights, 4096.min(preset.context), kv).expect("plans");
                assert_eq!(too_large(&usual), [""; 0], "{} in {format}", preset.name);
                let matrices = usual.store.items().filter(|(_, item)| matches!(item, Item::Matrix(_)));
                assert!(matrices.count() >= blueprint.blocks.len() * 4);
            }
        }
        // All that it was trained for: keys and values may be too many, which is refused; nothing else is.
        let weights = weights(&blueprint, Format::Q4_0);
        let longest = lowered(&blueprint, &weights, preset.context, KvType::F16).expect("plans");
        let names = too_large(&longest);
        let is_kv = |name: &String| name.ends_with(".keys") || name.ends_with(".values");
        assert!(names.iter().all(is_kv), "{}: {names:?}", preset.name);
        assert_eq!(names.is_empty(), preset.context <= 32_768, "{}", preset.name);
    }
}

#[test]
fn a_matrix_that_is_not_cut_is_seen() {
    let preset = PRESETS[0];
    let blueprint = blueprint(&preset);
    let weights = weights(&blueprint, Format::F32);
    let cut = lowered(&blueprint, &weights, 4096, KvType::F16).expect("plans");
    let options = LowerOptions { max_matrix_bytes: u64::MAX, ..cut.options.clone() };
    let whole = outline(&blueprint, &weights, options).expect("plans");
    assert_eq!(too_large(&cut), [""; 0]);
    assert!(too_large(&whole).contains(&"w".to_owned()), "an embedding of a gibibyte");
}

#[test]
fn no_kernel_binds_more_than_the_floor_has() {
    for &id in KernelId::ALL {
        let kernel = id.kernel();
        let bindings = kernel.args.iter().map(|&kind| if kind == ArgKind::Matrix { 2 } else { 1 });
        assert!(bindings.sum::<usize>() <= BINDINGS, "{}", kernel.name);
    }
}

#[cfg(feature = "wgpu")]
mod cut {
    use std::path::PathBuf;

    use pocketlm::{
        Device, Engine, EngineOptions, GenerateOptions, Kind, Limits, LoadOptions, Model, Prompt, Verdict,
    };

    use super::*;
    use crate::data::{fixture, real_model};

    fn engine(limits: Limits) -> Engine {
        let device = Device::Gpu;
        // Trusted: a check brings buffers of its own.
        let (exact, pinned, trusted) = (true, true, true);
        Engine::new(EngineOptions { device, limits, exact, pinned, trusted, ..EngineOptions::default() })
    }

    fn options() -> LoadOptions {
        LoadOptions { context: Some(96), sessions: 1, prefill: 32, outputs: 1, ..LoadOptions::default() }
    }

    fn load(path: &PathBuf, limits: Limits) -> Model {
        engine(limits).load(path, &options(), |_| Ok(())).expect("it loads")
    }

    fn told(model: &Model, tokens: u32) -> Vec<u32> {
        let prompt = Prompt::Tokens((1..=20).map(|at| at * 7).collect());
        let options =
            GenerateOptions { max_tokens: Some(tokens), ignore_end: true, ..GenerateOptions::default() };
        model.session().generate(&prompt, &options).expect("begins").finish().expect("ends").tokens
    }

    fn matrices(model: &Model) -> usize {
        let is_matrix = |item: &Item| matches!(item, Item::Matrix(_));
        model.inspect(|lowered| lowered.store.items().filter(|(_, item)| is_matrix(item)).count())
    }

    /// Small buffers: the real model in a mebibyte, a small one in less.
    #[test]
    fn cut_matrices_give_the_same_tokens() {
        if crate::gpu::gpu().is_none() {
            return;
        }
        let mebibyte = Limits::Buffer(1 << 20);
        let small = Limits::Buffer(48 << 10);
        let files = [(real_model(), mebibyte, 8), (fixture("stories260k/stories260K-f32.gguf"), small, 30)];
        for (path, limits, tokens) in &files {
            let (whole, cut) = (load(path, Limits::Device), load(path, *limits));
            let (pieces, uncut) = (matrices(&cut), matrices(&whole));
            assert!(pieces > uncut, "{}: {pieces} pieces of {uncut} matrices", path.display());
            assert_eq!(told(&cut, *tokens), told(&whole, *tokens), "{}", path.display());
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_what_would_work() {
        if crate::gpu::gpu().is_none() {
            return;
        }
        let engine = engine(Limits::Floor);
        let many = LoadOptions { context: Some(8192), sessions: 128, ..options() };
        let estimate = engine.estimate(real_model(), &many).expect("an estimate");
        assert_eq!(estimate.verdict, Verdict::OverBuffer, "{estimate:?}");
        assert_eq!(estimate.largest_allowed, Some(BINDING));
        let refused = engine.load(real_model(), &many, |_| Ok(())).expect_err("keys of 384 MiB");
        let said = refused.to_string();
        assert_eq!(refused.kind(), Kind::OutOfMemory);
        for words in ["keys", "128.0 MiB", "a context of ", "sessions"] {
            assert!(said.contains(words), "{words:?} is not in {said:?}");
        }
        let remedy = estimate.remedies.iter().find(|remedy| remedy.sessions < 128).expect("fewer sessions");
        let fewer = LoadOptions { sessions: remedy.sessions, ..many };
        assert!(engine.estimate(real_model(), &fewer).expect("an estimate").fits());
    }
}
