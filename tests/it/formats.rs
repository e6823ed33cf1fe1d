//! Model files, sound and malformed, through the whole path that loads one.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use pocketlm::format::{Checkpoint, Dialect};
use pocketlm::model::{Blueprint, Weights};
use pocketlm::text::Tokenizer;
use pocketlm::{Error, Format, Kind, Result};

use crate::data::{self, Scratch};

/// Generous for a file of at most 200 KB on a slow machine; a loader that believes a count takes far longer.
const TIME_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, serde::Deserialize)]
struct Case {
    file: String,
    verdict: String,
    says: String,
}

/// What loading refuses, with what kind, and what the message must name. Cases that are absent load.
const REFUSED: &[(&str, Kind, &str)] = &[
    ("align_inconsistent.gguf", Kind::BadFile, "byte 5904, tensor blk.0.attn_norm.weight"),
    ("align_not_pow2.gguf", Kind::BadFile, "48 is not a power of two"),
    ("align_wrong_type.gguf", Kind::BadFile, "general.alignment"),
    ("architecture_unknown.gguf", Kind::Unsupported, "\"zork\" is not supported"),
    ("array_length_max.gguf", Kind::BadFile, "byte 157, x.a"),
    ("array_length_past_end.gguf", Kind::BadFile, "byte 157, x.a"),
    ("array_nested_deep.gguf", Kind::Unsupported, "byte 156, x.deep"),
    ("context_0.gguf", Kind::BadFile, "the context is 0"),
    ("data_missing.gguf", Kind::BadFile, "tensor token_embd.weight"),
    ("data_truncated_half.gguf", Kind::BadFile, "past the end of the file, which has 40000 bytes"),
    ("data_truncated_one.gguf", Kind::BadFile, "tensor output_norm.weight"),
    ("dim_0.gguf", Kind::BadFile, "tensor blk.0.attn_q.weight"),
    ("dims_5.gguf", Kind::BadFile, "5 dimensions"),
    ("dims_bytes_wrap.gguf", Kind::BadFile, "multiply to more than can be addressed"),
    ("dims_count_max.gguf", Kind::BadFile, "4294967295 dimensions"),
    ("dims_padding_wraps.gguf", Kind::BadFile, "tensor output_norm.weight"),
    ("eps_nan.gguf", Kind::BadFile, "NaN cannot be the epsilon"),
    ("file_magic_only.gguf", Kind::BadFile, "byte 4"),
    ("heads_do_not_divide.gguf", Kind::BadFile, "64 does not divide into 5 heads"),
    ("key_duplicate.gguf", Kind::BadFile, "llama.block_count"),
    ("key_too_long.gguf", Kind::BadFile, "a key of 70000 bytes"),
    ("kv_heads_do_not_divide.gguf", Kind::BadFile, "3 key-value heads"),
    ("layers_float_type.gguf", Kind::BadFile, "llama.block_count"),
    ("layers_max.gguf", Kind::BadFile, "the number of layers is 4294967295"),
    ("layers_negative_type.gguf", Kind::BadFile, "llama.block_count"),
    ("magic_wrong.gguf", Kind::BadFile, "byte 0"),
    ("n_kv_2e31.gguf", Kind::BadFile, "byte 16"),
    ("n_kv_max.gguf", Kind::BadFile, "byte 16"),
    ("n_tensors_plus_one.gguf", Kind::BadFile, "a tensor name of 0 bytes"),
    ("no_block_count.gguf", Kind::BadFile, "llama.block_count"),
    ("no_head_count.gguf", Kind::BadFile, "llama.attention.head_count"),
    ("offset_overlap.gguf", Kind::BadFile, "tensor blk.1.attn_q.weight"),
    ("bos_out_of_range.gguf", Kind::BadFile, "the BOS token is 300"),
    ("merge_missing_token.gguf", Kind::BadFile, "which is no token"),
    ("merge_no_space.gguf", Kind::BadFile, "without a space"),
    ("no_tokens_key.gguf", Kind::BadFile, "tokenizer.ggml.tokens"),
    ("pre_unknown.gguf", Kind::Unsupported, "\"zork\" is not known"),
    ("token_duplicate.gguf", Kind::BadFile, "merge 40"),
    ("token_type_short.gguf", Kind::BadFile, "10 entries for 300 tokens"),
    ("token_type_unknown.gguf", Kind::BadFile, "type 99"),
    ("rope_base_inf.gguf", Kind::BadFile, "inf cannot be the base"),
    ("rope_dims_too_many.gguf", Kind::BadFile, "32 elements of a head"),
    ("string_length_max.gguf", Kind::BadFile, "byte 153, x.s"),
    ("string_value_not_utf8.gguf", Kind::BadFile, "general.name"),
    ("tensor_missing.gguf", Kind::BadFile, "tensor output_norm.weight"),
    ("tensor_name_duplicate.gguf", Kind::BadFile, "tensor blk.0.attn_q.weight"),
    ("tensor_name_length_max.gguf", Kind::BadFile, "byte 24"),
    ("tensor_name_not_utf8.gguf", Kind::BadFile, "byte 6987"),
    ("tensor_wrong_shape.gguf", Kind::BadFile, "[32, 64]"),
    ("type_removed_4.gguf", Kind::Unsupported, "Q4_2 (removed) is not supported"),
    ("value_type_max.gguf", Kind::BadFile, "byte 149, x.y"),
    ("version_huge.gguf", Kind::Unsupported, "GGUF version 2147483392"),
    ("version_swapped.gguf", Kind::Unsupported, "big-endian"),
    ("vocab_empty.gguf", Kind::BadFile, "the vocabulary is empty"),
    ("vocab_more_tokens.gguf", Kind::BadFile, "310 tokens, but the embedding has 300 rows"),
    ("width_wrong.gguf", Kind::BadFile, "tensor token_embd.weight"),
    ("cf_heads_string", Kind::BadFile, "config.json, num_attention_heads"),
    ("cf_nan_eps", Kind::BadFile, "config.json"),
    ("ix_map_not_strings", Kind::BadFile, "model.safetensors.index.json, tensor b"),
    ("ix_path_absolute", Kind::BadFile, "\"/etc/hostname\" is not a file name inside the folder"),
    ("ix_shard_missing", Kind::NotFound, "model-00002-of-00002.safetensors"),
    ("ix_tensor_not_in_shard", Kind::BadFile, "tensor zz"),
    ("pt_deep_marks.pth", Kind::Unsupported, "a compressed entry"),
    ("pt_global_unknown.pth", Kind::Unsupported, "\"mylib.layers.Secret\""),
    ("pt_inst_system.pth", Kind::Unsupported, "the pickle opcode S"),
    ("pt_long_negative_length.pth", Kind::Unsupported, "the pickle opcode \\x8b"),
    ("pt_memo_index_max.pth", Kind::BadFile, "memo slot 4294967295"),
    ("pt_memo_missing.pth", Kind::BadFile, "was never written"),
    ("pt_no_stop.pth", Kind::BadFile, "the pickle ends too soon"),
    ("pt_not_zip.pth", Kind::Unsupported, "Git LFS pointer"),
    ("pt_reduce_system.pth", Kind::Unsupported, "\"posix.system\""),
    ("pt_size_wraps.pth", Kind::BadFile, "multiply to more than can be addressed"),
    ("pt_stack_global.pth", Kind::Unsupported, "\"os.system\""),
    ("pt_stack_underflow.pth", Kind::BadFile, "not on the stack"),
    ("pt_storage_key_path.pth", Kind::BadFile, "no storage \"../../../etc/hostname\""),
    ("pt_storage_too_large.pth", Kind::BadFile, "has 16 bytes, the pickle says 4398046511104"),
    ("pt_storage_type_unknown.pth", Kind::Unsupported, "\"torch.ZorkStorage\""),
    ("pt_stride_0_large.pth", Kind::BadFile, "pass the end of the storage"),
    ("pt_unicode_length_max.pth", Kind::BadFile, "the pickle ends too soon"),
    ("pt_view_past_end.pth", Kind::BadFile, "pass the end of the storage"),
    ("pt_zip_bomb.pth", Kind::Unsupported, "a compressed entry"),
    ("pt_zip_truncated.pth", Kind::BadFile, "no directory at its end"),
    ("st_dtype_number.safetensors", Kind::BadFile, "byte 8"),
    ("st_header_big.safetensors", Kind::BadFile, "overlaps"),
    ("st_header_length_0.safetensors", Kind::BadFile, "byte 8"),
    ("st_header_length_huge.safetensors", Kind::BadFile, "1099511627776 bytes"),
    ("st_header_not_json.safetensors", Kind::BadFile, "byte 8"),
    ("st_header_not_utf8.safetensors", Kind::BadFile, "byte 10"),
    ("st_metadata_not_strings.safetensors", Kind::BadFile, "expected a string"),
    ("st_name_duplicate.safetensors", Kind::BadFile, "\"a\" is there twice"),
    ("st_offsets_float.safetensors", Kind::BadFile, "floating point `0.5`"),
    ("st_offsets_hole.safetensors", Kind::BadFile, "leaves a hole"),
    ("st_offsets_overlap.safetensors", Kind::BadFile, "overlaps"),
    ("st_shape_bytes_wrap.safetensors", Kind::BadFile, "tensor a"),
    ("st_shape_negative.safetensors", Kind::BadFile, "`-2`"),
    ("st_shape_wraps.safetensors", Kind::BadFile, "tensor a"),
    ("st_size_mismatch.safetensors", Kind::BadFile, "the bytes 0 to 12 are not the 16"),
    ("st_truncated_data.safetensors", Kind::BadFile, "should end at 16, but ends at 8"),
];

fn cases(folder: &str, belongs: impl Fn(&serde_json::Value) -> bool) -> Vec<Case> {
    let text = fs::read(data::shared(folder).join("cases.json")).expect("cases.json");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("a list of cases");
    let mine = all.into_iter().filter(belongs);
    mine.map(|case| serde_json::from_value(case).expect("file, verdict, says")).collect()
}

/// Everything that is done with a file before its first token.
pub(crate) fn load(path: &Path) -> Result<(Blueprint, Weights)> {
    let checkpoint = Checkpoint::open(path)?;
    match &checkpoint.dialect {
        Dialect::Gguf(metadata) if metadata.iter().any(|(key, _)| key.starts_with("tokenizer.ggml.")) => {
            Tokenizer::from_gguf(metadata).map(drop)?;
        }
        Dialect::HuggingFace(folder) => {
            if let Some(json) = &folder.tokenizer_json {
                Tokenizer::from_json(json, folder.tokenizer_config.as_ref()).map(drop)?;
            }
        }
        Dialect::Meta(folder) => {
            if let Some(model) = &folder.tokenizer_model {
                Tokenizer::from_model(model, None).map(drop)?;
            }
        }
        // A model without a tokenizer is a model: it takes and gives ids.
        Dialect::Gguf(_) => {}
    }
    let blueprint = Blueprint::read(&checkpoint)?;
    let weights = Weights::gather(&checkpoint, &blueprint)?;
    Ok((blueprint, weights))
}

/// Whether what happened is what the case and the list of refusals ask for.
fn judge(case: &Case, happened: Result<(), Error>, took: Duration) -> Result<(), String> {
    let listed = REFUSED.iter().find(|(file, ..)| *file == case.file);
    let loads = ["load", "load_then_error"].contains(&case.verdict.as_str());
    let wrong = match (happened, listed) {
        _ if loads && listed.is_some() => "the list says refused, the case says loads".to_owned(),
        _ if case.verdict == "reject" && listed.is_none() => {
            "the case says refused, the list is silent".to_owned()
        }
        _ if took > TIME_LIMIT => format!("took {took:?}"),
        (Ok(()), None) => return Ok(()),
        (Ok(()), Some(_)) => "loaded".to_owned(),
        (Err(error), None) => format!("refused: {error}"),
        (Err(error), Some((_, kind, says))) => {
            if error.kind() == *kind && error.to_string().contains(says) {
                return Ok(());
            }
            format!("{error:?} where {kind:?} with {says:?} is expected")
        }
    };
    Err(format!("{} ({}): {wrong}", case.file, case.says))
}

fn judge_all(folder: &str, cases: &[Case], load: impl Fn(&Path) -> Result<()>) {
    assert!(!cases.is_empty());
    let folder = data::shared(folder);
    let judged = cases.iter().map(|case| {
        let start = Instant::now();
        let happened = load(&folder.join(&case.file));
        judge(case, happened, start.elapsed())
    });
    let wrong: Vec<String> = judged.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn malformed_gguf_is_refused_with_its_place() {
    let cases = cases("badgguf", |_| true);
    assert_eq!(cases.len(), 64);
    judge_all("badgguf", &cases, |path| load(path).map(|_| ()));
}

#[test]
fn malformed_safetensors_are_refused_with_their_place() {
    let cases_of = |kind: &'static str| cases("badfiles", move |case| case["kind"] == kind);
    // A file of tensors alone is no model, so only opening it can succeed.
    judge_all("badfiles", &cases_of("safetensors"), |path| Checkpoint::open(path).map(|_| ()));
    judge_all("badfiles", &cases_of("sharded"), |path| Checkpoint::open(path).map(|_| ()));
    judge_all("badfiles", &cases_of("config"), |path| load(path).map(|_| ()));
}

#[test]
fn malformed_torch_files_are_refused_and_nothing_is_run() {
    let cases = cases("badfiles", |case| case["kind"] == "torch");
    assert_eq!(cases.len(), 21);
    judge_all("badfiles", &cases, |path| Checkpoint::open(path).map(|_| ()));
    // What the hostile ones would leave, if any of it ran.
    assert!(!Path::new("pwned").exists());
}

#[test]
fn the_judge_can_say_no() {
    let case =
        |file: &str, verdict: &str| Case { file: file.into(), verdict: verdict.into(), says: String::new() };
    let (bad, good) = (case("dims_5.gguf", "reject"), case("valid.gguf", "load"));
    let right = || Err(Error::bad_file("5 dimensions"));
    let soon = Duration::ZERO;
    assert!(judge(&bad, right(), soon).is_ok());
    assert!(judge(&bad, right(), 2 * TIME_LIMIT).is_err());
    assert!(judge(&bad, Ok(()), soon).is_err());
    assert!(judge(&bad, Err(Error::bad_file("6 dimensions")), soon).is_err());
    assert!(judge(&bad, Err(Error::unsupported("5 dimensions")), soon).is_err());
    assert!(judge(&good, Ok(()), soon).is_ok());
    assert!(judge(&good, right(), soon).is_err());
    assert!(judge(&case("dims_5.gguf", "load"), right(), soon).is_err());
    assert!(judge(&case("valid.gguf", "reject"), right(), soon).is_err());
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = fs::read(data::shared("badgguf").join("valid.gguf")).expect("valid.gguf");
    let folder = Scratch::new();
    let path = folder.join("cut.gguf");
    fs::write(&path, &whole).expect("a scratch file");
    let file = fs::File::options().write(true).open(&path).expect("a scratch file");
    load(&path).expect("whole");
    // Every byte of the header, then steps through the data.
    let cuts = (0..7008).chain((7008..whole.len()).step_by(101)).chain([whole.len() - 1]);
    for cut in cuts.collect::<Vec<_>>().into_iter().rev() {
        file.set_len(cut as u64).expect("a cut");
        let error = load(&path).map(|_| ()).expect_err(&format!("cut at {cut}"));
        assert_eq!(error.kind(), Kind::BadFile, "cut at {cut}: {error}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let folder = Scratch::new();
    let valid = data::shared("badgguf").join("valid.gguf");
    // Where counts, lengths, types and offsets stand.
    let header = 7008;
    flip(&valid, &folder.join("flipped.gguf"), header, 8000);
    let valid = data::shared("badfiles").join("valid.safetensors");
    let whole = fs::metadata(&valid).expect("valid.safetensors").len() as usize;
    flip(&valid, &folder.join("flipped.safetensors"), whole, 4000);
}

/// Loads `rounds` copies of `valid`, each with one to four of its first `span` bytes changed.
pub(crate) fn flip(valid: &Path, copy: &Path, span: usize, rounds: usize) {
    let whole = fs::read(valid).expect("a valid file");
    fs::write(copy, &whole).expect("a scratch file");
    let mut file = fs::File::options().write(true).open(copy).expect("a scratch file");
    let mut write = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(&[byte])).expect("a byte");
    };
    let mut random = Random(1);
    for round in 0..rounds {
        let places: Vec<usize> = (0..1 + round % 4).map(|_| random.below(span)).collect();
        places
            .iter()
            .for_each(|&at| write(at, [0, 0xff, whole[at] ^ 1, random.below(256) as u8][random.below(4)]));
        let start = Instant::now();
        if let Err(error) = load(copy) {
            assert_ne!(error.kind(), Kind::Internal, "round {round}, bytes {places:?}: {error}");
        }
        assert!(start.elapsed() < TIME_LIMIT, "round {round}, bytes {places:?}");
        places.iter().for_each(|&at| write(at, whole[at]));
    }
}

/// A small generator (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

#[test]
fn a_vocabulary_alone_opens_and_says_what_it_lacks() {
    let checkpoint =
        Checkpoint::open(data::shared("vocab").join("ggml-vocab-llama-bpe.gguf")).expect("opens");
    assert!(checkpoint.tensors.is_empty());
    let error = Blueprint::read(&checkpoint).expect_err("no weights");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("no weights"), "{error}");
}

#[test]
fn the_stories_model_is_read_as_it_is() {
    let (blueprint, weights) =
        load(&data::shared("stories260k").join("stories260K-f32.gguf")).expect("loads");
    assert_eq!((blueprint.arch, blueprint.name.as_str()), ("llama", "stories260K"));
    assert_eq!((blueprint.width, blueprint.vocab, blueprint.context), (64, 512, 512));
    assert_eq!((blueprint.norm_eps, blueprint.tied), (1e-5, true));
    assert_eq!(blueprint.blocks.len(), 5);
    let attention = &blueprint.blocks[0].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (8, 4, 8));
    let expected: Vec<f64> = [0.0, -1.0, -2.0, -3.0].map(|power| 10f64.powf(power)).into();
    for (got, expected) in blueprint.ropes[0].inv_freq.iter().zip(expected) {
        assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
    }
    assert!(weights.head.is_none());
    let down = &weights.blocks[4].down;
    assert_eq!((down.rows(), down.cols, down.base.format()), (64, 172, Format::F32));

    // The first row of the original checkpoint, which begins after seven 32-bit settings.
    let original = fs::read(data::shared("stories260k").join("stories260K.bin")).expect("stories260K.bin");
    let (values, _) = original[28..].as_chunks::<4>();
    let mut row = vec![0.0; 64];
    weights.embedding.decode_row(0, &mut row);
    assert!(row.iter().zip(values).all(|(got, bytes)| *got == f32::from_le_bytes(*bytes)));
}

#[test]
fn the_default_model_is_read_as_it_is() {
    let (blueprint, weights) = load(&data::real_model()).expect("loads");
    assert_eq!((blueprint.width, blueprint.vocab, blueprint.context), (576, 49152, 8192));
    assert_eq!((blueprint.blocks.len(), blueprint.tied, blueprint.norm_eps), (30, true, 1e-5));
    let block = &blueprint.blocks[29];
    let attention = &block.attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim, attention.scale), (9, 3, 64, 0.125));
    assert_eq!(block.ffn_width, 1536);
    let frequencies = &blueprint.ropes[0].inv_freq;
    assert_eq!((frequencies.len(), frequencies[0]), (32, 1.0));
    assert!((frequencies[16] - 1e5f64.powf(-0.5)).abs() < 1e-15);
    assert_eq!(weights.embedding.format(), Format::Q8_0);
    assert_eq!(weights.blocks[29].k.base.format(), Format::Q4_1);
    assert_eq!((weights.blocks[0].k.rows(), weights.blocks[0].k.cols), (192, 576));
}
