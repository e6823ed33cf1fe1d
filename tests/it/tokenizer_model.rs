//! `tokenizer.model` in its forms, against what their libraries make of the same texts (`tools/fixtures/tokenizer_model.py`).

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use pocketlm::format::Config;
use pocketlm::text::{ChatRequest, ChatTemplate, Message, Special, Tokenizer};
use pocketlm::{Error, Kind};
use serde_json::Value;

use crate::data;

fn path(name: &str) -> PathBuf {
    data::fixture("tokenizers").join(name)
}

fn file(name: &str) -> Vec<u8> {
    fs::read(path(name)).expect("the fixture")
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_model(&file(&format!("{name}.model")), None)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Each text with its tokens under `key`; texts without the key are left out.
pub(crate) fn vectors(key: &str) -> Vec<(String, Vec<u32>)> {
    let text = String::from_utf8(file("vectors.jsonl")).expect("UTF-8");
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let ids = serde_json::from_value(value.get(key)?.clone()).expect("ids");
        Some((value["text"].as_str().expect("a text").to_owned(), ids))
    };
    text.lines().filter_map(line).collect()
}

fn wrong(tokenizer: &Tokenizer, key: &str, special: Special) -> Vec<String> {
    let vectors = vectors(key);
    assert!(!vectors.is_empty());
    let judge = |(text, due): &(String, Vec<u32>)| {
        let got = tokenizer.encode(text, special).expect("tokens");
        (got != *due).then(|| format!("{text:?} gives {got:?}, not {due:?}"))
    };
    vectors.iter().filter_map(judge).collect()
}

fn agrees(name: &str) -> Tokenizer {
    let tokenizer = tokenizer(name);
    let wrong = wrong(&tokenizer, name, Special::Plain);
    assert!(wrong.is_empty(), "{name}: {} texts:\n{}", wrong.len(), wrong.join("\n"));
    tokenizer
}

#[test]
fn llama_3_cuts_as_tiktoken_does() {
    let tokenizer = agrees("llama3");
    assert_eq!(wrong(&tokenizer, "llama3_special", Special::Parse), [""; 0]);
    let first = 900;
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()),
        (1156, Some(first), Some(first + 1))
    );
    assert!(tokenizer.add_bos());
    assert_eq!(tokenizer.ends(), [first + 1, first + 8, first + 9]);
    assert_eq!(tokenizer.token_text(first + 9).as_deref(), Some("<|eot_id|>"));
    assert_eq!(tokenizer.token_text(first + 255).as_deref(), Some("<|reserved_special_token_245|>"));
    for (text, ids) in vectors("llama3") {
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
}

#[test]
fn llama_2_cuts_as_sentencepiece_does() {
    let tokenizer = agrees("llama2");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), true));
    for (text, ids) in vectors("llama2") {
        // SentencePiece spells a visible space in the text like a space.
        assert_eq!(tokenizer.decode(&ids, true), text.replace('▁', " "));
    }
}

#[test]
fn unigrams_are_cut_as_sentencepiece_does() {
    agrees("unigram");
    agrees("unknown");
}

#[test]
fn the_vectors_notice_another_model() {
    assert!(!wrong(&tokenizer("unigram"), "llama2", Special::Plain).is_empty());
    assert!(!wrong(&tokenizer("unknown"), "unigram", Special::Plain).is_empty());
    assert!(!wrong(&tokenizer("llama3"), "llama3_special", Special::Plain).is_empty());
    // Two tokens of neighbouring rank change their places.
    let lines = String::from_utf8(file("llama3.model")).expect("ASCII");
    let mut tokens: Vec<&str> = lines.lines().map(|line| line.split_once(' ').expect("a rank").0).collect();
    tokens.swap(256, 257);
    let swapped: String =
        tokens.iter().enumerate().map(|(rank, token)| format!("{token} {rank}\n")).collect();
    let swapped = Tokenizer::from_model(swapped.as_bytes(), None).expect("a tokenizer");
    assert!(!wrong(&swapped, "llama3", Special::Plain).is_empty());
}

#[test]
fn tokens_that_the_settings_add_are_found() {
    let config = |tokens: &str| {
        Config::parse(format!("{{\"add_bos_token\": false, \"added_tokens_decoder\": {tokens}}}").as_bytes())
            .expect("JSON")
    };
    let with = |tokens: &str| Tokenizer::from_model(&file("llama2.model"), Some(&config(tokens)));
    let one = r#"{"0": {"content": "<unk>", "special": true}, "700": {"content": "<|im_start|>", "special": true},
        "701": {"content": "<tool>"}}"#;
    let tokenizer = with(one).expect("a tokenizer");
    assert!(!tokenizer.add_bos() && tokenizer.is_special(700) && !tokenizer.is_special(701));
    let ids = tokenizer.encode("<|im_start|><tool>", Special::Parse).expect("tokens");
    assert_eq!(ids, [700, 701]);
    assert!(tokenizer.encode("<|im_start|>", Special::Plain).expect("tokens").len() > 1);
    for bad in [r#"{"702": {"content": "x"}}"#, r#"{"x": {"content": "x"}}"#, r#"{"700": {}}"#] {
        let error = with(bad).expect_err(bad);
        assert!(
            error.kind() == Kind::BadFile && error.to_string().contains("added_tokens_decoder"),
            "{error}"
        );
    }
}

/// The example of the model card.
#[test]
fn llama_3_converses_as_its_card_says() {
    let tokenizer = tokenizer("llama3");
    let source = tokenizer.family_template().expect("Llama 3's");
    let template = ChatTemplate::new(source, "<|begin_of_text|>", "").expect("compiles");
    let messages = [Message::new("system", " Be brief.\n"), Message::new("user", "Why?")];
    let text = template.render(&ChatRequest::new(&messages, SystemTime::UNIX_EPOCH)).expect("renders");
    let due = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(text, due);
    let ids = tokenizer.encode(&text, Special::Parse).expect("tokens");
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_special(id)).count(), 9);
    assert!(crate::tokenizer_model::tokenizer("llama2").family_template().is_none());
}

#[test]
fn flipped_and_cut_models_never_panic() {
    let mut random = pocketlm::base::Seed::new(3);
    for name in ["llama2", "unigram", "llama3"] {
        let whole = file(&format!("{name}.model"));
        for round in 0..600u64 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 4 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.below(256) as u8;
            }
            if round % 8 == 0 {
                bytes.truncate(random.below(whole.len() as u64) as usize);
            }
            let judge = |error: &Error| assert_ne!(error.kind(), Kind::Internal, "{name} {round}: {error}");
            match Tokenizer::from_model(&bytes, None) {
                Ok(tokenizer) => {
                    let ids = tokenizer.encode("a few words 🦙 <|eot_id|>", Special::Parse);
                    ids.iter().for_each(|ids| _ = tokenizer.decode(ids, false));
                    ids.as_ref().err().into_iter().for_each(judge);
                }
                Err(error) => judge(&error),
            }
        }
    }
}
