//! What each token is: its bytes and its kind. Decoding needs nothing else.

use crate::error::{Error, Result};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A piece of text.
    Text,
    /// A piece of text that is found before any splitting.
    Added,
    /// A single byte, for text that no piece covers.
    Byte,
    /// Steers the model and is no text: begin, end, turn marks, unknown.
    Special,
}

/// The bytes and roles of tokens 0, 1, 2, … in two flat arrays.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    roles: Vec<Option<Role>>,
    /// Whether the spelling puts a space before the text, which decoding takes away.
    pub(super) leading_space: bool,
}

impl Vocabulary {
    /// Appends the next token.
    pub(super) fn push(&mut self, bytes: &[u8], role: Role) -> Result<()> {
        self.append(bytes, Some(role))
    }

    /// Appends an id that no token has.
    pub(super) fn push_hole(&mut self) -> Result<()> {
        self.append(&[], None)
    }

    fn append(&mut self, bytes: &[u8], role: Option<Role>) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        let end = u32::try_from(self.bytes.len());
        self.ends.push(end.map_err(|_| Error::bad_file("the vocabulary has more than 4 GiB of text"))?);
        self.roles.push(role);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.roles.len()
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.role(id)?;
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.bytes[start..self.ends[id] as usize])
    }

    pub(super) fn role(&self, id: u32) -> Option<Role> {
        *self.roles.get(id as usize)?
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        0..self.len() as u32
    }
}

/// How a vocabulary spells bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2: each byte is a printable character.
    ByteLevel,
    /// SentencePiece: text with `▁` for the space.
    Space,
}

/// SentencePiece's visible space.
pub(super) const SPACE: char = '▁';

impl Spelling {
    /// The byte-level text of a token.
    pub(super) fn byte_level(bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| char_of(byte)).collect()
    }

    /// The bytes that the token `text` stands for.
    pub(super) fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            // A token that leaves the alphabet stands for itself, as in the library that made it.
            Self::ByteLevel => {
                text.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| text.as_bytes().to_vec())
            }
            Self::Space => text.replace(SPACE, " ").into_bytes(),
        }
    }
}

/// The byte that `<0x0A>` names.
pub(super) fn named_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte behind a character of GPT-2's alphabet: printable Latin-1 stands for itself, and the other 68
/// bytes are numbered from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let hidden = |c: u32| match c {
        0..=32 => Some(c),
        33..=66 => Some(c - 33 + 127),
        67 => Some(173),
        _ => None,
    };
    let byte = match u32::from(c) {
        c @ (33..=126 | 161..=172 | 174..=255) => Some(c),
        c => hidden(c.checked_sub(256)?),
    };
    byte.and_then(|byte| u8::try_from(byte).ok())
}

/// The character of GPT-2's alphabet for a byte.
fn char_of(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match code {
        33..=126 | 161..=172 | 174..=255 => code,
        0..=32 => 256 + code,
        127..=160 => 256 + code - 127 + 33,
        _ => 256 + 67,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_alphabet_is_the_librarys_and_covers_every_byte() {
        let alphabet = ByteLevel::alphabet();
        let bytes: BTreeSet<u8> = alphabet.iter().map(|&c| byte_of(c).unwrap()).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert!((0..=255).all(|byte| byte_of(char_of(byte)) == Some(byte)));
        let strangers = (0..0x3000).filter_map(char::from_u32).filter(|c| !alphabet.contains(c));
        assert!(strangers.into_iter().all(|c| byte_of(c).is_none()));
        assert_eq!(
            [byte_of('Ġ'), byte_of('Ċ'), byte_of('Ń'), byte_of('é')],
            [Some(32), Some(10), Some(173), Some(233)]
        );
    }

    #[test]
    fn spellings() {
        assert_eq!(Spelling::ByteLevel.bytes("Ġthe"), b" the");
        assert_eq!(Spelling::ByteLevel.bytes("a b"), b"a b");
        assert_eq!(Spelling::Space.bytes("▁the"), b" the");
        assert_eq!((named_byte("<0x0A>"), named_byte("<0x+1>"), named_byte("<0xA>")), (Some(10), None, None));
    }
}
