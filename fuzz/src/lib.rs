//! What each target does with its bytes. An error is an answer; a panic, a crash, more memory than `memory` allows or
//! more time than `run` allows is a finding.

pub mod memory;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use pocketlm::Bytes;
use pocketlm::engine::saved::Saved;
use pocketlm::format::{Checkpoint, Config, Dialect, HuggingFace, Manifest, Meta};
use pocketlm::model::{Blueprint, Weights};
use pocketlm::text::{
    ChatRequest, ChatTemplate, Constraint, Lexicon, Manner, Message, Reader, Special, Tokenizer, Tool,
};
use sha2::{Digest, Sha256};

/// A template may make texts as large as its limits say.
pub(crate) static MAY_GROW: AtomicBool = AtomicBool::new(false);

/// Where no file lies beside the model.
const NOWHERE: &str = "no-such-folder/";

/// A GGUF file.
pub fn gguf(data: &[u8]) {
    opened("model.gguf", data);
}

/// A safetensors file, or the index of shards.
pub fn safetensors(data: &[u8]) {
    let name = if data.first() == Some(&b'{') { "model.safetensors.index.json" } else { "model.safetensors" };
    opened(name, data);
}

/// A torch checkpoint where the bytes begin as a zip file; else the pickle in one that is sound.
pub fn pickle(data: &[u8]) {
    match data.starts_with(b"PK") {
        true => opened("model.pth", data),
        false => {
            opened("model.pth", &zip(&[("a/data.pkl", data), ("a/data/0", &[0; 64]), ("a/version", b"3\n")]))
        }
    }
}

/// Everything that is done with a file before a device is chosen.
fn opened(name: &str, data: &[u8]) {
    let bytes = Bytes::from(data.to_vec());
    let Ok(checkpoint) = Checkpoint::from_bytes(&format!("{NOWHERE}{name}"), bytes) else { return };
    understood(&checkpoint);
}

fn understood(checkpoint: &Checkpoint) {
    if let Ok(Some(tokenizer)) = Tokenizer::of(&checkpoint.dialect) {
        encoded(&tokenizer);
        // Compiled by the target of templates; here it would cost a thread each time.
        _ = Tokenizer::chat_template(&checkpoint.dialect, Some(&tokenizer));
    }
    if let Ok(blueprint) = Blueprint::read(checkpoint) {
        _ = Weights::gather(checkpoint, &blueprint);
    }
}

/// A `config.json` over the tensors of a tiny model.
pub fn config(data: &[u8]) {
    static TENSORS: LazyLock<Checkpoint> = LazyLock::new(|| {
        let file = include_bytes!("../../tests/fixtures/archs/qwen3/model.safetensors");
        Checkpoint::from_bytes(&format!("{NOWHERE}model.safetensors"), Bytes::from(&file[..]))
            .expect("a fixture")
    });
    let Ok(config) = Config::parse(data) else { return };
    let quantized = (data.len() % 2 == 0).then(|| config.clone());
    let files = HuggingFace { config: Some(config), hf_quant_config: quantized, ..HuggingFace::default() };
    let dialect = Dialect::HuggingFace(Box::new(files));
    let checkpoint = Checkpoint { path: "model".into(), dialect, tensors: TENSORS.tensors.clone() };
    understood(&checkpoint);
}

/// `tokenizer.json`, or `tokenizer.model` in either of its forms.
pub fn tokenizer(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let bytes = Bytes::from(rest.to_vec());
    let hugging_face = |files| Dialect::HuggingFace(Box::new(files));
    let dialect = match first % 3 {
        0 => hugging_face(HuggingFace { tokenizer_json: Some(bytes), ..HuggingFace::default() }),
        1 => hugging_face(HuggingFace { tokenizer_model: Some(bytes), ..HuggingFace::default() }),
        _ => Dialect::Meta(Box::new(Meta { tokenizer_model: Some(bytes), ..Meta::default() })),
    };
    if let Ok(Some(tokenizer)) = Tokenizer::of(&dialect) {
        encoded(&tokenizer);
    }
}

/// Text to tokens and back.
fn encoded(tokenizer: &Tokenizer) {
    for text in
        ["", "Hello  wörld!\n\n<|im_end|>\u{1f600}\u{301} 1234", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    {
        let Ok(tokens) = tokenizer.encode(text, Special::Parse) else { continue };
        _ = tokenizer.decode(&tokens, true);
        let mut decoder = tokenizer.decoder(None, false);
        tokens.iter().for_each(|&token| drop(decoder.push(token)));
        drop(decoder.finish());
    }
    drop(tokenizer.decode(&[0, 1, u32::MAX, 1 << 20], false));
}

/// The source of a chat template.
pub fn template(data: &[u8]) {
    MAY_GROW.store(true, Ordering::Relaxed);
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::new(source, "<s>", "</s>") else { return };
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", "Hi {{ 1 }}"),
        Message::new("assistant", ""),
    ];
    _ = template.render(&ChatRequest::new(&messages, SystemTime::UNIX_EPOCH));
}

/// The messages of a conversation, in JSON, rendered by a template that looks into all of them.
pub fn messages(data: &[u8]) {
    MAY_GROW.store(true, Ordering::Relaxed);
    static TEMPLATE: LazyLock<ChatTemplate> = LazyLock::new(|| {
        let source = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ m | tojson }}\
                      {% if m.content is string %}{{ m.content.split('</think>')[-1] }}{% else %}{% for c in m.content %}\
                      {{ c.text }}{% endfor %}{% endif %}{% for t in m.tool_calls or [] %}{{ t.function.name }}\
                      {{ t.function.arguments | tojson(indent=2) }}{% endfor %}{% endfor %}{{ tools | tojson }}";
        ChatTemplate::new(source, "<s>", "</s>").expect("a template")
    });
    let Ok(mut messages) = serde_json::from_slice::<Vec<serde_json::Map<String, serde_json::Value>>>(data)
    else {
        return;
    };
    let extra = if messages.len() > 2 { messages.pop().unwrap_or_default() } else { Default::default() };
    let messages: Vec<Message> = messages.into_iter().map(Message).collect();
    let request = ChatRequest { extra, ..ChatRequest::new(&messages, SystemTime::UNIX_EPOCH) };
    _ = TEMPLATE.render(&request);
}

/// A saved session: as it is, and with the length and the sum that it should have.
pub fn session(data: &[u8]) {
    read_session(data.to_vec());
    let mut sound = b"pocketlm\x01\0\0\0".to_vec();
    sound.extend((data.len() as u64 + 52).to_le_bytes());
    sound.extend(data);
    let sum = Sha256::digest(&sound);
    sound.extend_from_slice(&sum);
    read_session(sound);
}

fn read_session(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let Ok(saved) = Saved::read(&bytes) else { return };
    let mut again = Vec::new();
    saved.write(&mut again).expect("it was read");
    assert_eq!(Saved::read(&Bytes::from(again)).expect("it was written"), saved);
}

/// A manifest; what follows a zero byte is its signature.
pub fn manifest(data: &[u8]) {
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let json = parts.next().unwrap_or_default();
    if let Ok(manifest) = Manifest::parse(json) {
        let again = manifest.to_json().expect("it was read");
        assert_eq!(Manifest::parse(again.as_bytes()).expect("it was written"), manifest);
        _ = manifest.chunks("model".as_ref(), &Default::default());
    }
    if let Some(signature) = parts.next() {
        assert!(Manifest::parse_signed(json, signature, KEY).is_err(), "nobody has signed it");
        if let Ok(key) = std::str::from_utf8(signature) {
            _ = Manifest::parse_signed(json, signature, key);
        }
    }
}

/// A zip file whose entries are stored as they are.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let at = file.len() as u32;
        let sizes = [content.len() as u32; 2].map(u32::to_le_bytes).concat();
        let names = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        file.extend([b"PK\x03\x04", &[0; 14][..], &sizes, &names, name.as_bytes(), content].concat());
        let rest = [&[0; 10][..], &at.to_le_bytes()].concat();
        directory.extend([b"PK\x01\x02", &[0; 16][..], &sizes, &names, &rest, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let end = [(directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
    file.extend(directory);
    file.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &end, &[0; 2]].concat());
    file
}

/// A constraint of the kind that the first byte says, and some tokens under it; or an answer with calls of tools.
pub fn answers(data: &[u8]) {
    static STORIES: &[u8] = include_bytes!("../../tests/fixtures/stories260k/stories260K-f32.gguf");
    static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
        let checkpoint =
            Checkpoint::from_bytes("model.gguf", Bytes::from(STORIES.to_vec())).expect("the fixture");
        let tokenizer = Tokenizer::of(&checkpoint.dialect).expect("its tokenizer").expect("its tokenizer");
        Lexicon::new(&tokenizer.into()).expect("its vocabulary")
    });
    let Some((&kind, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text).into_owned();
    let constraint = match kind % 6 {
        0 => match serde_json::from_str(&text) {
            Ok(schema) => Constraint::JsonSchema(schema),
            Err(_) => return,
        },
        1 => Constraint::Regex(text),
        2 => Constraint::Choice(text.split('\n').map(Into::into).collect()),
        3 => Constraint::Lark(text),
        4 => Constraint::Gbnf(text),
        _ => return called(&text, kind),
    };
    let Ok(mut guide) = LEXICON.guide(&constraint, kind > 127) else { return };
    for turn in 0..12u32 {
        let Ok(words) = guide.allowed() else { return };
        let set: Vec<u32> =
            (0..32 * words.len() as u32).filter(|&t| words[t as usize / 32] >> (t % 32) & 1 == 1).collect();
        let token = set[(turn.wrapping_mul(2_654_435_761) as usize ^ usize::from(kind)) % set.len()];
        // The end of the vocabulary's own is no text.
        if token == 2 || guide.push(token).is_ok_and(|complete| complete) {
            return;
        }
    }
}

/// However an answer is cut into pieces, the same calls are in it.
fn called(text: &str, kind: u8) {
    let manners = [
        Manner::Hermes,
        Manner::Llama,
        Manner::Mistral,
        Manner::Gemma,
        Manner::Gemma4,
        Manner::Phi,
        Manner::Lfm,
        Manner::Coder,
    ];
    let manner = manners[usize::from(kind / 6) % manners.len()];
    let parameters = serde_json::json!({"properties": {"b": {"type": "string"}, "c": {}}});
    let tool = Tool { name: "a".into(), description: String::new(), parameters };
    let calls = |size: usize| {
        let mut reader = Reader::new(manner, vec![tool.clone()], 1);
        let chars: Vec<char> = text.chars().collect();
        let mut news: Vec<_> = chars
            .chunks(size.max(1))
            .flat_map(|piece| reader.push(&piece.iter().collect::<String>()))
            .collect();
        news.extend(reader.finish());
        let calls = news.into_iter().filter(|news| matches!(news, pocketlm::text::News::Call(_)));
        calls.collect::<Vec<_>>()
    };
    assert_eq!(calls(1), calls(usize::MAX));
}
