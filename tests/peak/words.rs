//! Vocabularies as large as Gemma 3's, in the forms that files have: 262,144 tokens, and half a million ways to make one
//! of two others.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use pocketlm::Format;
use pocketlm::base::Seed;
use pocketlm::format::{Array, Checkpoint, Dialect, Dtype, Metadata, Value};
use serde_json::json;

/// Tokens of all.
pub(super) const COUNT: u32 = 262_144;

/// Types of tokens by their number in the files.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const BYTE: i64 = 6;

/// The longest token, in letters.
const LONGEST: usize = 8;

/// Tokens with their types; each is the sooner made by merging the lower its id.
pub(super) struct Words {
    texts: Vec<String>,
    types: Vec<i64>,
}

impl Words {
    /// Byte-level.
    pub(super) fn byte_level() -> Self {
        let letters = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
        let letters = letters.filter_map(char::from_u32).map(|letter| (letter.to_string(), NORMAL));
        Self::grown([("<s>".into(), CONTROL), ("</s>".into(), CONTROL)].into_iter().chain(letters), 'Ġ')
    }

    /// SentencePiece's.
    pub(super) fn sentence_piece() -> Self {
        let names = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
        let names = names.map(|(name, kind)| (name.to_owned(), kind));
        let bytes = (0..=255).map(|byte: u8| (format!("<0x{byte:02X}>"), BYTE));
        let letters = ('a'..='z').chain(['▁']).map(|letter| (letter.to_string(), NORMAL));
        Self::grown(names.into_iter().chain(bytes).chain(letters), '▁')
    }

    /// With longer and longer tokens of some letters.
    fn grown(first: impl Iterator<Item = (String, i64)>, space: char) -> Self {
        let (mut texts, mut types): (Vec<String>, Vec<i64>) = first.unzip();
        let letters: Vec<String> = ('a'..='n').chain([space]).map(String::from).collect();
        let mut grown = letters.clone();
        let mut known: HashSet<String> = texts.iter().cloned().collect();
        let mut random = Seed::new(9);
        while texts.len() < COUNT as usize {
            let before = random.below(grown.len() as u64) as usize;
            let behind = random.below(letters.len() as u64) as usize;
            let text = format!("{}{}", grown[before], letters[behind]);
            if text.chars().count() <= LONGEST && known.insert(text.clone()) {
                grown.push(text.clone());
                texts.push(text);
            }
        }
        types.resize(texts.len(), NORMAL);
        Self { texts, types }
    }

    /// Each way to make a token of two others.
    pub(super) fn merges(&self) -> Vec<(&str, &str)> {
        let usual = self.texts.iter().zip(&self.types).filter(|(_, kind)| **kind == NORMAL);
        let usual: Vec<&str> = usual.map(|(text, _)| text.as_str()).collect();
        let known: HashSet<&str> = usual.iter().copied().collect();
        let cuts = |text: &'_ str| -> Vec<usize> { text.char_indices().skip(1).map(|(at, _)| at).collect() };
        let pairs = usual.iter().flat_map(|text| cuts(text).into_iter().map(|at| text.split_at(at)));
        pairs.filter(|(left, right)| known.contains(left) && known.contains(right)).collect()
    }

    fn scores(&self) -> impl Iterator<Item = f32> {
        (0..self.texts.len()).map(|id| -(id as f32))
    }

    /// GGUF's keys, with merges or with scores.
    pub(super) fn metadata(&self, is_byte_level: bool) -> Metadata {
        let list = |texts: Vec<String>| Value::Array(Array::Text(texts));
        let mut entries = vec![
            ("tokens", list(self.texts.clone())),
            ("token_type", Value::Array(Array::Signed(self.types.clone()))),
        ];
        entries.extend(match is_byte_level {
            true => [
                ("model", Value::Text("gpt2".into())),
                ("pre", Value::Text("gpt-2".into())),
                (
                    "merges",
                    list(self.merges().iter().map(|(left, right)| format!("{left} {right}")).collect()),
                ),
            ],
            false => [
                ("model", Value::Text("llama".into())),
                ("pre", Value::Text("default".into())),
                ("scores", Value::Array(Array::Float(self.scores().map(f64::from).collect()))),
            ],
        });
        let mut metadata = Metadata::default();
        for (key, value) in entries {
            metadata.insert(format!("tokenizer.ggml.{key}"), value).expect("a key once");
        }
        metadata
    }

    /// `tokenizer.json`, as Gemma 3's.
    pub(super) fn write_json(&self, path: &Path) {
        let vocab: serde_json::Map<String, serde_json::Value> =
            self.texts.iter().zip(0..).map(|(text, id): (_, u32)| (text.clone(), id.into())).collect();
        let special = self.texts.iter().zip(&self.types).enumerate();
        let special =
            special.filter(|(_, (_, kind))| [UNKNOWN, CONTROL].contains(*kind)).map(|(id, (text, _))| {
                json!({"id": id, "content": text, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
            });
        let file = json!({
            "added_tokens": special.collect::<Vec<_>>(),
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                "invert": false},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false, "vocab": vocab, "merges": self.merges()},
        });
        fs::write(path, file.to_string()).expect("written");
    }

    /// SentencePiece's `tokenizer.model`: a message with a message for each token.
    pub(super) fn write_model(&self, path: &Path) {
        let mut file = BufWriter::new(File::create(path).expect("a file"));
        let mut put = |bytes: &[u8]| file.write_all(bytes).expect("written");
        for ((text, kind), score) in self.texts.iter().zip(&self.types).zip(self.scores()) {
            let head = [0x0a, (text.len() + 9) as u8, 0x0a, text.len() as u8];
            put(&[&head, text.as_bytes(), &[0x15], &score.to_le_bytes(), &[0x18, *kind as u8]].concat());
        }
        // Of the trainer: BPE (3), byte fallback (35). Of the normalizer: no space at the start (3), spaces as they are (4).
        put(&[0x12, 5, 0x18, 2, 0x98, 0x02, 1, 0x1a, 4, 0x18, 0, 0x20, 0]);
    }
}

/// A folder like that of the fixture `gemma3` with an embedding of as many rows.
pub(super) fn write_folder(fixture: &Path, folder: &Path) {
    let model = Checkpoint::open(fixture).expect("the fixture");
    let Dialect::HuggingFace(files) = &model.dialect else { panic!("another dialect") };
    let mut config =
        serde_json::from_slice::<serde_json::Value>(&files.config.as_ref().expect("settings").to_json())
            .expect("JSON");
    config["vocab_size"] = json!(COUNT);
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let rows = vec![0; COUNT as usize * config["hidden_size"].as_u64().expect("a width") as usize * 2];
    let tensors = model.tensors.values().map(|tensor| {
        let mut dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
        let is_embedding = tensor.name.contains("embed_tokens");
        if is_embedding {
            dims[0] = COUNT as usize;
        }
        assert_eq!(tensor.dtype, Dtype::Format(Format::F16));
        let bytes = if is_embedding { &rows[..] } else { &tensor.bytes[..] };
        (
            tensor.name.as_str(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::F16, dims, bytes).expect("a tensor"),
        )
    });
    safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).expect("written");
}
