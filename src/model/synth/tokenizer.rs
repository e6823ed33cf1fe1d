//! A byte-level vocabulary of any size: the 256 bytes, what a few merges make, fillers, beginning and end.

use crate::error::{Error, Result};
use crate::format::{Array, Metadata, Value};

/// In order, as byte-level BPE spells them; Ġ is the space.
const MERGES: [(&str, &str); 12] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġ", "a"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "w"),
    ("n", "d"),
];

/// What a token is, in `tokenizer.ggml.token_type`.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const UNUSED: i64 = 5;

/// Writes a tokenizer of `vocab` tokens into `metadata`.
pub(super) fn describe(vocab: u32, metadata: &mut Metadata) -> Result<()> {
    let whole: Vec<String> = (0..=255)
        .map(|byte| spelled(byte).to_string())
        .chain(MERGES.iter().map(|(left, right)| format!("{left}{right}")))
        .collect();
    let fillers = (vocab as usize).checked_sub(whole.len() + 2);
    let fillers =
        fillers.ok_or_else(|| Error::internal(format!("a vocabulary of {vocab} does not hold the bytes")))?;
    let mut types = vec![NORMAL; whole.len()];
    types.resize(whole.len() + fillers, UNUSED);
    types.extend([CONTROL; 2]);
    let mut tokens = whole;
    tokens.extend((0..fillers).map(|index| format!("<filler_{index}>")));
    tokens.extend(["<begin>".to_owned(), "<end>".to_owned()]);
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let entries = [
        ("model", Value::Text("gpt2".to_owned())),
        ("pre", Value::Text("gpt-2".to_owned())),
        ("tokens", Value::Array(Array::Text(tokens))),
        ("token_type", Value::Array(Array::Signed(types))),
        ("merges", Value::Array(Array::Text(merges))),
        ("bos_token_id", Value::Unsigned(u64::from(vocab) - 2)),
        ("eos_token_id", Value::Unsigned(u64::from(vocab) - 1)),
        ("add_bos_token", Value::Bool(true)),
    ];
    entries.into_iter().try_for_each(|(key, value)| metadata.insert(format!("tokenizer.ggml.{key}"), value))
}

/// GPT-2's printable letter for a byte: itself where it is printable, else the next free one from U+0100 on.
fn spelled(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return byte.into();
    }
    let rank = (0..byte).filter(|&before| !is_printable(before)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Special, Tokenizer};

    #[test]
    fn text_goes_through_the_bytes_and_back() {
        let mut metadata = Metadata::default();
        describe(300, &mut metadata).unwrap();
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        assert_eq!(tokenizer.vocab_size(), 300);
        let the = tokenizer.encode(" the", Special::Plain).unwrap();
        assert_eq!(the, [262], "three merges");
        let text = "Naïve café, 東京 😀\n\t\0";
        let tokens = tokenizer.encode(text, Special::Plain).unwrap();
        assert_eq!(tokenizer.decode(&tokens, true), text);
        assert!(describe(269, &mut Metadata::default()).is_err());
    }
}
