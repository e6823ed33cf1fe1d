//! Tokens to text, as they come: whole characters only.

use std::sync::Arc;

use super::vocabulary::{Role, Vocabulary};

/// An incremental decoder. What [`push`](Decoder::push) returns, joined, with [`finish`](Decoder::finish) at the
/// end, is what [`Tokenizer::decode`](super::Tokenizer::decode) gives for the whole.
#[derive(Clone, Debug)]
pub struct Decoder {
    vocabulary: Arc<Vocabulary>,
    keep_special: bool,
    drop_space: bool,
    /// Special tokens that are spelled out all the same.
    kept: Vec<u32>,
    /// The start of a character whose end has not come yet: at most 3 bytes between calls.
    pending: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(vocabulary: Arc<Vocabulary>, drop_space: bool, keep_special: bool) -> Self {
        Self { vocabulary, keep_special, drop_space, kept: Vec::new(), pending: Vec::new() }
    }

    /// With the space that the spelling puts before a text: what the bytes of the tokens say, and nothing else.
    #[must_use]
    pub fn as_spelled(mut self) -> Self {
        self.drop_space = false;
        self
    }

    /// With these special tokens spelled out.
    #[must_use]
    pub fn keeping(mut self, tokens: Vec<u32>) -> Self {
        self.kept = tokens;
        self
    }

    /// The characters that `id` completes, or none. Bytes that can be no UTF-8 become U+FFFD; an id outside
    /// the vocabulary is no text.
    pub fn push(&mut self, id: u32) -> String {
        let is_kept = self.keep_special || self.kept.contains(&id);
        if self.vocabulary.role(id) == Some(Role::Special) && !is_kept {
            return String::new();
        }
        let Some(mut bytes) = self.vocabulary.bytes(id) else { return String::new() };
        if self.drop_space && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.drop_space = false;
        }
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - incomplete_tail(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        text
    }

    /// What is left: U+FFFD where a character never came to its end.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// How many bytes at the end may still become a character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let incomplete = |&length: &usize| {
        let tail = &bytes[bytes.len() - length..];
        std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).rev().find(incomplete).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Spelling;
    use super::*;

    /// Every byte is a token.
    fn bytewise() -> Decoder {
        let mut vocabulary = Vocabulary::new(Spelling::Space);
        for byte in 0..=255u8 {
            vocabulary.push(&[byte], Role::Byte).unwrap();
        }
        Decoder::new(Arc::new(vocabulary), false, false)
    }

    #[test]
    fn characters_come_whole() {
        let mut stream = bytewise();
        let pieces: Vec<String> = "aé€🦙".bytes().map(|byte| stream.push(byte.into())).collect();
        assert_eq!(pieces, ["a", "", "é", "", "", "€", "", "", "", "🦙"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn what_can_be_no_character_does_not_wait() {
        let mut stream = bytewise();
        assert_eq!(stream.push(0xff), "\u{fffd}");
        assert_eq!(stream.push(0xe2), "");
        assert_eq!(stream.push(0x41), "\u{fffd}A");
        assert_eq!(stream.push(0xf0), "");
        assert_eq!(stream.push(0x9f), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn any_bytes_give_what_they_give_whole() {
        let mut seed = 1u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..12)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // Mostly lead and continuation bytes, so that characters begin and break.
                    [0x41, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xa0, 0xf0, 0x9f, 0xf4, 0x90, 0xff]
                        [(seed >> 33) as usize % 12]
                })
                .collect();
            let mut stream = bytewise();
            let mut text: String = bytes.iter().map(|&byte| stream.push(byte.into())).collect();
            text += &stream.finish();
            assert_eq!(text, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }
}
