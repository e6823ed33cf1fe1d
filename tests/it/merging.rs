//! Merging against the `tokenizers` crate's, which wants ten times the memory: random vocabularies with every rule, and
//! the vocabularies of real models.

use std::collections::{HashMap, HashSet};

use pocketlm::Kind;
use pocketlm::base::Seed;
use pocketlm::format::{Config, Dialect};
use pocketlm::text::{self, Special, Tokenizer};
use serde_json::{Value, json};
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

use crate::data;
use crate::text::{from_json, metadata, smollm2_json, smollm2_vectors, vocab};

/// Characters of one to four bytes, the space in both spellings, and what looks like a byte's token.
const LETTERS: [&str; 12] = ["a", "b", "c", "d", " ", "▁", "Ġ", "é", "€", "🦙", "<0x61>", "ſ"];

/// A vocabulary as `tokenizer.json` has it.
#[derive(Clone, Debug)]
struct Words {
    vocab: Vec<(String, u32)>,
    merges: Vec<(String, String)>,
    /// A special token, which text must never become.
    special: Option<String>,
    unknown: Option<String>,
    byte_fallback: bool,
    fuse_unknown: bool,
    whole_words: bool,
    byte_level: bool,
}

fn chance(random: &mut Seed, percent: u64) -> bool {
    random.below(100) < percent
}

fn pick<'a, T>(random: &mut Seed, of: &'a [T]) -> &'a T {
    &of[random.below(of.len() as u64) as usize]
}

fn shuffle<T>(random: &mut Seed, list: &mut [T]) {
    (1..list.len()).for_each(|at| list.swap(at, random.below(at as u64 + 1) as usize));
}

impl Words {
    fn random(random: &mut Seed) -> Self {
        let unknown = chance(random, 60).then(|| "<unk>".to_owned());
        let mut texts: Vec<String> = unknown.iter().cloned().collect();
        texts.extend(LETTERS.iter().filter(|_| chance(random, 70)).map(|&letter| letter.to_owned()));
        if chance(random, 60) {
            let share = *pick(random, &[100, 98, 50]);
            let bytes = (0..=255u8).filter(|_| chance(random, share));
            texts.extend(bytes.map(|byte| format!("<0x{byte:02X}>")).filter(|text| text != "<0x61>"));
        }
        texts.extend(["a", "b", ""].map(str::to_owned));
        texts.sort();
        texts.dedup();
        let mut merges = Vec::new();
        for _ in 0..random.below(40) {
            let pair = (pick(random, &texts).clone(), pick(random, &texts).clone());
            let whole = format!("{}{}", pair.0, pair.1);
            if !texts.contains(&whole) {
                texts.push(whole);
            }
            merges.push(pair);
        }
        let known: HashSet<&str> = texts.iter().map(String::as_str).collect();
        for text in &texts {
            for (at, _) in text.char_indices().skip(1).filter(|_| chance(random, 50)) {
                let (left, right) = text.split_at(at);
                if known.contains(left) && known.contains(right) {
                    merges.push((left.to_owned(), right.to_owned()));
                }
            }
        }
        shuffle(random, &mut merges);
        shuffle(random, &mut texts);
        let special =
            chance(random, 30).then(|| pick(random, &texts).clone()).filter(|text| *text != "<unk>");
        let mut id = 0;
        let mut next = |_: &String| {
            id += *pick(random, &[1, 1, 1, 1, 1, 1, 1, 1, 2, 0]);
            id
        };
        let ids: Vec<u32> = texts.iter().map(&mut next).collect();
        Self {
            vocab: texts.into_iter().zip(ids).collect(),
            merges,
            special,
            unknown,
            byte_fallback: chance(random, 50),
            fuse_unknown: chance(random, 50),
            whole_words: chance(random, 30),
            byte_level: chance(random, 30),
        }
    }

    fn ours(&self) -> Tokenizer {
        from_json(&self.json(), None).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `tokenizer.json`.
    fn json(&self) -> Value {
        let vocab: serde_json::Map<String, Value> =
            self.vocab.iter().map(|(text, id)| (text.clone(), json!(id))).collect();
        let id = |text: &String| vocab[text].clone();
        let added: Vec<Value> = self
            .special
            .iter()
            .map(|text| {
                json!({"id": id(text), "content": text, "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false})
            })
            .collect();
        let decoder = if self.byte_level { "ByteLevel" } else { "Metaspace" };
        let decoder =
            json!({"type": decoder, "add_prefix_space": false, "trim_offsets": true, "replacement": "▁"});
        json!({
            "added_tokens": added, "decoder": decoder,
            "model": {"type": "BPE", "unk_token": self.unknown, "fuse_unk": self.fuse_unknown,
                "byte_fallback": self.byte_fallback, "ignore_merges": self.whole_words,
                "merges": self.merges, "vocab": vocab},
        })
    }

    fn theirs(&self) -> BPE {
        let special = self.special.as_deref();
        let vocab: HashMap<String, u32> =
            self.vocab.iter().filter(|(text, _)| Some(text.as_str()) != special).cloned().collect();
        let is_sound = |(left, right): &&(String, String)| {
            let whole = format!("{left}{right}");
            [left, right, &whole].iter().all(|text| Some(text.as_str()) != special)
        };
        let mut builder = BPE::builder()
            .vocab_and_merges(
                vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
                self.merges.iter().filter(is_sound).cloned().collect(),
            )
            .byte_fallback(self.byte_fallback)
            .fuse_unk(self.fuse_unknown)
            .ignore_merges(self.whole_words);
        if let Some(unknown) = &self.unknown {
            builder = builder.unk_token(unknown.clone());
        }
        builder.build().expect("a model")
    }
}

fn random_text(random: &mut Seed) -> String {
    let strangers = ["x", "ß", "\u{301}", "中", "<unk>", "\n", "<", "0"];
    let some = |random: &mut Seed| {
        if chance(random, 15) { *pick(random, &strangers) } else { *pick(random, &LETTERS) }
    };
    let run = 1 + random.below(3);
    let length = *pick(random, &[1, 2, 3, 5, 8, 13, 40, 200]);
    (0..random.below(length) + 1).map(|_| some(random).repeat(1 + random.below(run) as usize)).collect()
}

fn ids(model: &BPE, text: &str) -> Vec<u32> {
    model.tokenize(text).expect("tokens").iter().map(|token| token.id).collect()
}

/// The first text that comes out otherwise.
fn difference(ours: &Tokenizer, theirs: &BPE, texts: &[String]) -> Option<String> {
    let mut pairs = texts
        .iter()
        .map(|text| (text, ours.encode(text, Special::Plain).expect("tokens"), ids(theirs, text)));
    pairs
        .find(|(_, ours, theirs)| ours != theirs)
        .map(|(text, ours, theirs)| format!("{text:?} gives {ours:?}, not {theirs:?}"))
}

#[test]
fn random_vocabularies_cut_as_the_crate_does() {
    let mut random = Seed::new(11);
    // How many of the faults that a rule or an order can have are seen.
    let mut noticed = [0; 5];
    for round in 0..600 {
        let words = Words::random(&mut random);
        let mut texts = vec![String::new()];
        texts.extend((0..40).map(|_| random_text(&mut random)));
        let ours = words.ours();
        let wrong = difference(&ours, &words.theirs(), &texts);
        assert!(wrong.is_none(), "{round}: {}: {words:?}", wrong.unwrap_or_default());
        let mut order = words.clone();
        order.merges.reverse();
        let faults = [
            order,
            Words { byte_fallback: !words.byte_fallback, ..words.clone() },
            Words { fuse_unknown: !words.fuse_unknown, ..words.clone() },
            Words { whole_words: !words.whole_words, ..words.clone() },
            Words { merges: words.merges[words.merges.len().min(1)..].to_vec(), ..words.clone() },
        ];
        for (count, fault) in noticed.iter_mut().zip(&faults) {
            *count += u32::from(difference(&ours, &fault.theirs(), &texts).is_some());
        }
    }
    assert!(noticed.iter().all(|&count| count > 20), "{noticed:?}");
}

/// Texts of several kinds: what tokens are made of, and what they are not.
fn texts(tokenizer: &Tokenizer, count: usize, seed: u64) -> Vec<String> {
    let mut random = Seed::new(seed);
    let prose: Vec<String> = smollm2_vectors().into_iter().map(|vector| vector.text).collect();
    let size = tokenizer.vocab_size() as u64;
    let text = |random: &mut Seed| match random.below(4) {
        0 => {
            let token =
                |random: &mut Seed| tokenizer.token_text(random.below(size) as u32).unwrap_or_default();
            (0..random.below(30)).map(|_| token(random)).collect()
        }
        1 => (0..random.below(60)).filter_map(|_| char::from_u32(random.below(0x3_0000) as u32)).collect(),
        2 => (0..random.below(80)).map(|_| char::from(32 + random.below(95) as u8)).collect::<String>(),
        _ => {
            let (one, other) = (pick(random, &prose).clone(), pick(random, &prose).clone());
            format!("{one}{}{other}", " ".repeat(random.below(4) as usize))
        }
    };
    (0..count).map(|_| text(&mut random)).collect()
}

fn crate_ids(theirs: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    theirs.encode(text, false).expect("tokens").get_ids().to_vec()
}

/// Whole tokenizers, from the same `tokenizer.json`.
fn assert_alike(name: &str, json: &[u8], ours: &[&Tokenizer], count: usize) {
    let theirs = tokenizers::Tokenizer::from_bytes(json).expect("a tokenizer");
    for text in texts(ours[0], count, 5) {
        let due = crate_ids(&theirs, &text);
        for tokenizer in ours {
            assert_eq!(tokenizer.encode(&text, Special::Parse).expect("tokens"), due, "{name}: {text:?}");
        }
    }
}

#[test]
fn real_vocabularies_cut_as_the_crate_does() {
    let json = smollm2_json();
    let from_json = from_json(&json, None).expect("a tokenizer");
    let from_gguf = Tokenizer::from_gguf(&metadata(&data::real_model())).expect("a tokenizer");
    assert_alike("SmolLM2", json.to_string().as_bytes(), &[&from_json, &from_gguf], 4000);
    for name in ["gpt-2", "llama-bpe", "qwen2", "llama-spm"] {
        let words = text::to_hugging_face(&Dialect::Gguf(vocab(name))).expect("words");
        let file = |name: &str| &words.files.iter().find(|(file, _)| *file == name).expect("a file").1;
        let config = Config::parse(file("tokenizer_config.json")).expect("JSON");
        let from_json = Tokenizer::from_json(file("tokenizer.json"), Some(&config)).expect("a tokenizer");
        let from_gguf = Tokenizer::from_gguf(&vocab(name)).expect("a tokenizer");
        assert_alike(name, file("tokenizer.json"), &[&from_json, &from_gguf], 1000);
    }
}

#[test]
fn another_order_of_a_real_vocabulary_is_noticed() {
    let mut json = smollm2_json();
    let ours = from_json(&json, None).expect("a tokenizer");
    // Two merges of 48,900 change places: they compete for the middle of three.
    let merges = json["model"]["merges"].as_array_mut().expect("merges");
    let sides = |at: usize| merges[at].as_str().and_then(|merge| merge.split_once(' ')).expect("a pair");
    let competes = |&(one, other): &(usize, usize)| sides(one).1 == sides(other).0;
    let (one, other) =
        (1..100).flat_map(|other| (0..other).map(move |one| (one, other))).find(competes).expect("two");
    merges.swap(one, other);
    let theirs = tokenizers::Tokenizer::from_bytes(json.to_string()).expect("a tokenizer");
    let differs =
        |text: &String| ours.encode(text, Special::Parse).expect("tokens") != crate_ids(&theirs, text);
    assert!(texts(&ours, 4000, 5).iter().any(differs));
}

/// A file may tell its merges before its vocabulary, and of two entries of a name the last counts.
#[test]
fn the_parts_of_a_file_come_in_any_order() {
    let rest = r#""decoder": {"type": "ByteLevel"}"#;
    let model = |inside: &str| format!(r#"{{"model": {{"type": "BPE", {inside}}}, {rest}}}"#);
    let vocab = r#""vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3}"#;
    let cases = [
        (model(&format!(r#"{vocab}, "merges": ["a b"]"#)), [2, 0].as_slice()),
        (model(&format!(r#""merges": ["a b"], {vocab}"#)), &[2, 0]),
        (model(&format!(r#""merges": ["a b"], {vocab}, "merges": [["b", "a"]]"#)), &[0, 3]),
        (model(&format!(r#""vocab": {{"x": 0}}, "merges": ["a b", "b a"], {vocab}"#)), &[2, 0]),
        (model(r#""vocab": {"a": 0, "b": 1, "ab": 4, "ab": 2}, "merges": ["\u0061 b"]"#), &[2, 0]),
        (
            format!(r#"{{"model": 5, {rest}, {}"#, &model(&format!(r#"{vocab}, "merges": []"#))[1..]),
            &[0, 1, 0],
        ),
    ];
    for (json, due) in cases {
        let tokenizer =
            Tokenizer::from_json(json.as_bytes(), None).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(tokenizer.encode("aba", Special::Plain).expect("tokens"), due, "{json}");
    }
}

#[test]
fn flipped_and_cut_files_never_panic() {
    let mut random = Seed::new(4);
    let mut read = 0;
    for round in 0..3000 {
        let whole = Words::random(&mut random).json().to_string().into_bytes();
        let mut bytes = whole.clone();
        for _ in 0..1 + round % 3 {
            let at = random.below(bytes.len() as u64) as usize;
            let from = random.below(whole.len() as u64) as usize;
            match random.below(12) {
                0 => bytes[at] = *pick(&mut random, b"\"\\{}[],:-e "),
                1 => bytes[at] = random.below(256) as u8,
                2 => drop(bytes.splice(at..at, whole[from..].iter().take(9).copied()).collect::<Vec<_>>()),
                // What stays JSON: another text or number.
                _ => {
                    _ = bytes[at..]
                        .iter_mut()
                        .find(|byte| byte.is_ascii_digit())
                        .map(|byte| *byte = b'0' + (round % 10) as u8)
                }
            }
        }
        if round % 8 == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        match Tokenizer::from_json(&bytes, None) {
            Ok(tokenizer) => {
                read += 1;
                let text = random_text(&mut random);
                let ids = tokenizer.encode(&text, Special::Parse).expect("tokens");
                tokenizer.decode(&ids, true);
            }
            Err(error) => assert_ne!(error.kind(), Kind::Internal, "{error}"),
        }
    }
    assert!((300..2900).contains(&read), "{read} were read");
}
