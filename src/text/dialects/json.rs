//! `tokenizer.json` and `tokenizer_config.json`, as the `tokenizers` library reads them and tools built on it expect.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::format::Config;
use crate::text::tokenizer::{Parts, ends};
use crate::text::vocabulary::{SPACE, Spelling};

/// `tokenizer.json`.
pub(super) fn describe(parts: &Parts, texts: &[Option<String>]) -> Result<Vec<u8>> {
    if parts.unigram.is_some() {
        return Err(Error::unsupported("a unigram tokenizer cannot be written as tokenizer.json"));
    }
    let mut vocab = Map::new();
    for (id, text) in texts.iter().enumerate() {
        let Some(text) = text else { continue };
        if let Some(first) = vocab.insert(text.clone(), json!(id)) {
            return Err(Error::unsupported(format!("tokens {first} and {id} are both {text:?}"))
                .hint("tokenizer.json has an id for each text"));
        }
    }
    let added = parts.added.iter().map(|(id, token)| {
        json!({
            "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
            "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
        })
    });
    let text = |id: u32| texts.get(id as usize).and_then(Option::as_deref);
    let merges = parts.merges.iter().map(|merge| json!([text(merge.left), text(merge.right)]));
    let rules = &parts.rules;
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.splitter,
        "post_processor": post_processor(parts, texts),
        "decoder": decoder(parts),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": rules.unknown.and_then(text),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": rules.fuse_unknown,
            "byte_fallback": rules.byte_fallback,
            "ignore_merges": rules.whole_words,
            "vocab": vocab,
            "merges": merges.collect::<Vec<_>>(),
        },
    });
    Ok(format!("{file}\n").into_bytes())
}

/// BOS before a text, where the model expects it.
fn post_processor(parts: &Parts, texts: &[Option<String>]) -> Value {
    let Some(bos) = parts.bos.filter(|_| parts.add_bos) else { return Value::Null };
    let Some(Some(text)) = texts.get(bos as usize) else { return Value::Null };
    let token = |kind: u32| json!({ "SpecialToken": { "id": text, "type_id": kind } });
    let sequence = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
    let mut special = Map::new();
    special.insert(text.clone(), json!({ "id": text, "ids": [bos], "tokens": [text] }));
    json!({
        "type": "TemplateProcessing",
        "single": [token(0), sequence("A", 0)],
        "pair": [token(0), sequence("A", 0), token(1), sequence("B", 1)],
        "special_tokens": special,
    })
}

fn decoder(parts: &Parts) -> Value {
    match parts.vocabulary.spelling() {
        Spelling::ByteLevel => {
            json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true })
        }
        Spelling::Space => {
            let mut steps = vec![
                json!({ "type": "Replace", "pattern": { "String": SPACE.to_string() }, "content": " " }),
                json!({ "type": "ByteFallback" }),
                json!({ "type": "Fuse" }),
            ];
            if parts.vocabulary.leading_space {
                steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
            }
            json!({ "type": "Sequence", "decoders": steps })
        }
    }
}

/// `tokenizer_config.json`.
pub(super) fn settings(parts: &Parts, texts: &[Option<String>], chat_template: Option<String>) -> Config {
    let text = |id: Option<u32>| id.and_then(|id| texts.get(id as usize).cloned().flatten());
    let config = json!({
        "add_bos_token": parts.add_bos,
        "add_eos_token": false,
        "bos_token": text(parts.bos),
        "eos_token": text(parts.eos),
        "unk_token": text(parts.rules.unknown),
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    known(config)
}

/// `generation_config.json`: where generation begins and ends.
pub(super) fn generation(parts: &Parts) -> Config {
    let ends = ends(&parts.vocabulary, &parts.ends, parts.eos);
    // EOS stands first: some readers take one.
    let first = parts.eos.into_iter().chain(ends.iter().copied().filter(|&id| Some(id) != parts.eos));
    let ends: Vec<u32> = first.collect();
    let ends = (!ends.is_empty()).then_some(ends);
    known(json!({ "bos_token_id": parts.bos, "eos_token_id": ends }))
}

/// Settings without those that are not known.
fn known(config: Value) -> Config {
    let mut map = config.as_object().cloned().unwrap_or_default();
    map.retain(|_, value| !value.is_null());
    Config::from(map)
}
