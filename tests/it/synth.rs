//! Models with random weights: the file is what was asked for, whatever the format, and a model can be made of it.

use std::fs;

use pocketlm::base::Bytes;
use pocketlm::format::{Checkpoint, Dialect, NewTensor, write_gguf};
use pocketlm::model::synth::{PRESETS, Preset, write};
use pocketlm::model::{Blueprint, Part, Transform, Weights};
use pocketlm::{Error, Format, Kind, Result};

use crate::data::Scratch;
use crate::program::{End, pocketlm};

fn file(preset: &Preset, format: Format, seed: u64) -> Vec<u8> {
    let mut file = Vec::new();
    write(preset, format, seed, &mut file, &mut |_, _| Ok(()))
        .unwrap_or_else(|error| panic!("{format}: {error}"));
    file
}

fn read(file: Vec<u8>) -> (Blueprint, Weights, Checkpoint) {
    let checkpoint = Checkpoint::from_bytes("synth.gguf", Bytes::from(file)).expect("a GGUF");
    let blueprint = Blueprint::read(&checkpoint).expect("a blueprint");
    let weights = Weights::gather(&checkpoint, &blueprint).expect("every slot filled");
    (blueprint, weights, checkpoint)
}

/// The smallest shape, with a small vocabulary: what is judged is the form.
fn small(name: &str) -> Preset {
    Preset { layers: 2, vocab: 300, ..Preset::named(name).expect("a preset") }
}

#[test]
fn every_shape_is_read_as_the_blueprint_it_was_written_as() {
    for preset in PRESETS {
        let preset = Preset { layers: 1, vocab: 300, ..*preset };
        let (blueprint, weights, checkpoint) = read(file(&preset, Format::Q4_0, 1));
        let block = &blueprint.blocks[0];
        let read = Preset {
            width: blueprint.width,
            layers: blueprint.blocks.len() as u32,
            heads: block.attention.heads,
            kv_heads: block.attention.kv_heads,
            head_dim: block.attention.head_dim,
            ffn_width: block.ffn_width,
            vocab: blueprint.vocab,
            context: blueprint.context,
            ..preset
        };
        assert_eq!(read, preset);
        assert!(blueprint.tied && weights.head.is_none(), "{}", preset.name);
        assert_eq!(checkpoint.tensors.contains_key("rope_freqs.weight"), preset.rope_factor.is_some());
        let slowest = blueprint.ropes[0].inv_freq.last().expect("frequencies");
        let plain = preset.rope_base.powf(2.0 / f64::from(preset.head_dim) - 1.0);
        let divisor = plain / preset.rope_factor.unwrap_or(1.0);
        assert!((slowest / divisor - 1.0).abs() < 1e-6, "{}: {slowest} is not {divisor}", preset.name);
    }
}

#[test]
fn a_seed_gives_one_file_in_every_format() {
    for format in Format::all_in_gguf() {
        let preset = small("llama-3.2-1b");
        let preset = Preset { layers: 1, ffn_width: 512, ..preset };
        let first = file(&preset, format, 7);
        assert!(first == file(&preset, format, 7), "{format}: two files of one seed differ");
        assert!(first != file(&preset, format, 8), "{format}: two seeds give one file");
        let (_, weights, _) = read(first);
        let embedded = match format {
            Format::F32 | Format::F64 | Format::F16 | Format::BF16 | Format::Q8_0 => format,
            _ => Format::Q6_K,
        };
        assert_eq!(weights.embedding.format(), embedded);
        assert_eq!(weights.blocks[0].down.base.format(), format);
    }
}

#[test]
fn a_factor_beside_a_matrix_scales_its_outputs() {
    let (_, _, checkpoint) = read(file(&small("llama-3.2-1b"), Format::NVFP4, 1));
    let Dialect::Gguf(metadata) = &checkpoint.dialect else { panic!("another dialect") };
    let mut tensors = Vec::new();
    for tensor in checkpoint.tensors.values() {
        let (name, format) = (tensor.name.clone(), tensor.format().unwrap());
        tensors.push(NewTensor { name, dims: tensor.dims.clone(), format });
    }
    let added = |name: &str| NewTensor { name: name.to_owned(), dims: vec![1], format: Format::F32 };
    tensors.extend(["blk.0.attn_k.scale", "blk.0.attn_k.input_scale"].map(added));
    let read_with = |factor: f32| {
        let mut file = Vec::new();
        write_gguf(&mut file, metadata, &tensors, |tensor, out| {
            let old = checkpoint.tensors.get(&tensor.name);
            Ok(out.write_all(old.map_or(&factor.to_le_bytes()[..], |old| &old.bytes))?)
        })
        .unwrap();
        let checkpoint = Checkpoint::from_bytes("factor.gguf", Bytes::from(file)).unwrap();
        Weights::gather(&checkpoint, &Blueprint::read(&checkpoint).unwrap())
    };
    let weights = read_with(0.25).unwrap();
    let block = &weights.blocks[0];
    assert_eq!(block.k.post, [Transform::Scale(vec![0.25; block.k.rows() as usize].into())]);
    assert!(block.q.post.is_empty());
    let error = read_with(f32::NAN).unwrap_err();
    assert!(error.kind() == Kind::BadFile && error.to_string().contains("attn_k.scale"), "{error}");
}

#[test]
fn rows_that_are_no_whole_blocks_get_smaller_ones() {
    let formats = [(Format::Q4_K, Format::Q5_0), (Format::Q6_K, Format::Q8_0), (Format::Q4_1, Format::Q4_1)];
    for (asked, written) in formats {
        let (_, weights, _) = read(file(&small("smollm2-135m"), asked, 1));
        assert_eq!(weights.embedding.format(), Format::Q8_0);
        assert_eq!(weights.blocks[1].q.base.format(), written, "576 columns");
        let down = if asked.block_len() == 256 { asked } else { written };
        assert_eq!(weights.blocks[1].down.base.format(), down, "1536 columns");
    }
}

#[test]
fn the_writer_stops_where_it_is_told_to() {
    let stop = |done: u64, total: u64| -> Result<()> {
        assert!(done <= total);
        if done < total / 2 { Ok(()) } else { Err(Error::new(Kind::Cancelled, "enough")) }
    };
    let mut file = Vec::new();
    let error = write(&small("mobilellm-125m"), Format::F16, 1, &mut file, &mut { stop }).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let whole = Checkpoint::from_bytes("half.gguf", Bytes::from(file));
    assert!(whole.is_err(), "half a file was read");
    let none = Preset { layers: 0, ..small("mobilellm-125m") };
    assert_eq!(
        write(&none, Format::F16, 1, &mut Vec::new(), &mut { stop }).unwrap_err().kind(),
        Kind::InvalidArgument
    );
}

#[test]
fn a_written_model_generates_and_a_wrong_call_leaves_nothing() {
    let scratch = Scratch::new();
    let out = scratch.join("small.gguf");
    let path = out.to_str().expect("a path in UTF-8");
    let run = |words: &[&str]| End::of(&pocketlm(&scratch, words).output().expect("the program starts"));
    let written = run(&["synth", "mobilellm-125m", "--to", "Q4_0", "--layers", "2", path]);
    assert!(written.fine().contains("mobilellm-125m"), "{written:?}");
    let again = scratch.join("again.gguf");
    run(&["synth", "mobilellm-125m", "--layers", "2", again.to_str().unwrap()]).fine();
    assert!(fs::read(&out).unwrap() == fs::read(&again).unwrap(), "q4_0 and seed 1 are the defaults");
    let told = run(&["generate", "-m", path, "--device", "cpu", "-p", "the cat", "-n", "5", "--json"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["tokens"].as_array().map(Vec::len), Some(5));
    assert_eq!(told["prompt_tokens"][0], 31998, "the beginning of a text");

    run(&["synth", "llama-9", path]).fails(2, &["llama-9", "llama-3.2-1b"]);
    run(&["synth", "llama-3.2-1b", "--to", "q9", path]).fails(2, &["q9", "q4_0"]);
    run(&["synth", "llama-3.2-1b", "--layers", "17", path]).fails(2, &["17", "16"]);
    let nowhere = scratch.join("no").join("such.gguf");
    run(&["synth", "llama-3.2-1b", nowhere.to_str().unwrap()]).fails(3, &["such.gguf"]);
    let left = fs::read_dir(&*scratch).unwrap().count();
    assert_eq!(left, 2, "a part of a file was left");
}

#[test]
fn parts_are_all_filled() {
    let (_, _, checkpoint) = read(file(&small("mobilellm-350m"), Format::Q8_0, 1));
    assert_eq!(checkpoint.tensors.len(), 2 + 2 * Part::LLAMA.len());
}
