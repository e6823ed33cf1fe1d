//! What each token is: its bytes and its kind, and which of them a text may become. Decoding needs the first two.

use std::collections::HashMap;

use super::table::Table;
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

/// The bytes and roles of tokens 0, 1, 2, … in flat arrays.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    roles: Vec<Option<Role>>,
    spelling: Spelling,
    /// The tokens that cutting a text may give, by their texts, which follow from their bytes.
    pieces: Table,
    /// Those whose texts do not.
    odd: HashMap<String, u32>,
    /// Whether the spelling puts a space before the text, which decoding takes away.
    pub(super) leading_space: bool,
}

impl Vocabulary {
    /// No tokens yet.
    pub(super) fn new(spelling: Spelling) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            roles: Vec::new(),
            spelling,
            pieces: Table::with_room(0),
            odd: HashMap::new(),
            leading_space: false,
        }
    }

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
        // One id is nobody's, and means that there is none.
        if self.roles.len() >= u32::MAX as usize {
            return Err(Error::bad_file("the vocabulary has more tokens than ids"));
        }
        Ok(())
    }

    /// Says which tokens cutting a text may give: at most `count`, with their texts in the file, whose ids have been
    /// pushed. Of two with the same text the first counts. Gives their number.
    pub(super) fn index<T: AsRef<str>>(
        &mut self,
        count: usize,
        pieces: impl IntoIterator<Item = (T, u32)>,
    ) -> usize {
        self.pieces = Table::with_room(count);
        self.odd = HashMap::new();
        let mut number = 0;
        for (text, id) in pieces.into_iter().take(count) {
            let text = text.as_ref();
            if self.piece(text).is_some() {
                continue;
            }
            if self.is_spelled(id, text) {
                self.pieces.insert(self.pieces.hash_text(text), id);
            } else {
                self.odd.insert(text.to_owned(), id);
            }
            number += 1;
        }
        number
    }

    /// The token that is this text and that cutting may give.
    pub(super) fn piece(&self, text: &str) -> Option<u32> {
        let usual = self.pieces.find(self.pieces.hash_text(text), |id| self.is_spelled(id, text));
        // Most vocabularies have no others.
        usual.or_else(|| if self.odd.is_empty() { None } else { self.odd.get(text).copied() })
    }

    /// The tokens that cutting may give, with their texts in the file, in no order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (String, u32)> {
        let usual = self.pieces.iter().filter_map(|id| Some((self.text(id)?, id)));
        usual.chain(self.odd.iter().map(|(text, &id)| (text.clone(), id)))
    }

    /// The pieces among them whose texts do not follow from their bytes.
    pub(super) fn odd_pieces(&self) -> impl Iterator<Item = (&str, u32)> {
        self.odd.iter().map(|(text, &id)| (text.as_str(), id))
    }

    /// The text of a token in the file as it follows from its bytes; `None` where they are no text.
    pub(super) fn text(&self, id: u32) -> Option<String> {
        let bytes = self.bytes(id)?;
        match self.role(id)? {
            Role::Text => self.spelling.text(bytes),
            Role::Byte => Some(format!("<0x{:02X}>", bytes.first()?)),
            Role::Added | Role::Special => String::from_utf8(bytes.to_vec()).ok(),
        }
    }

    /// Whether [`text`](Self::text) says this.
    fn is_spelled(&self, id: u32, text: &str) -> bool {
        let (Some(bytes), Some(role)) = (self.bytes(id), self.role(id)) else { return false };
        match role {
            Role::Text => self.spelling.spells(bytes, text),
            Role::Byte => {
                let is_upper = !text.bytes().any(|digit| digit.is_ascii_lowercase() && digit != b'x');
                is_upper && named_byte(text).is_some_and(|byte| [byte] == bytes)
            }
            Role::Added | Role::Special => bytes == text.as_bytes(),
        }
    }

    /// Gives back what was kept for more tokens.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.roles.shrink_to_fit();
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

    pub(super) fn spelling(&self) -> Spelling {
        self.spelling
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

    /// The text whose [`bytes`](Self::bytes) these are; of two the usual one, without characters from outside.
    fn text(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::ByteLevel => Some(Self::byte_level(bytes)),
            Self::Space => {
                Some(std::str::from_utf8(bytes).ok()?.replace(' ', SPACE.encode_utf8(&mut [0; 4])))
            }
        }
    }

    /// Whether [`text`](Self::text) says this.
    fn spells(self, bytes: &[u8], text: &str) -> bool {
        match self {
            Self::ByteLevel => text.chars().map(byte_of).eq(bytes.iter().map(|&byte| Some(byte))),
            Self::Space => {
                let mut rest = bytes;
                let follows = text.chars().all(|c| {
                    let due = if c == SPACE { ' ' } else { c };
                    let behind = rest.strip_prefix(due.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = behind.unwrap_or_default();
                    behind.is_some() && c != ' '
                });
                follows && rest.is_empty()
            }
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

    #[test]
    fn what_is_spelled_is_found_by_its_text() {
        for (spelling, texts) in [
            (Spelling::ByteLevel, ["Ġthe", "é", "ÃĬ", "a b", "Ġ", ""]),
            (Spelling::Space, ["▁the", "é", " x", "▁x", "▁", ""]),
        ] {
            let mut vocabulary = Vocabulary::new(spelling);
            for text in texts {
                vocabulary.push(&spelling.bytes(text), Role::Text).unwrap();
            }
            vocabulary.push(b"\n", Role::Byte).unwrap();
            vocabulary.push("▁a b".as_bytes(), Role::Added).unwrap();
            vocabulary.push_hole().unwrap();
            let all = [&texts[..], &["<0x0A>", "▁a b", "<hole>", "<0x0a>", "Ġthe", "▁the"]].concat();
            let ids = [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 1, 1];
            let count = vocabulary.index(all.len(), all.iter().zip(ids));
            assert_eq!(count, 11, "one is there twice");
            let first = |text: &str| all.iter().position(|other| *other == text).map(|at| ids[at]);
            for text in &all {
                assert_eq!(vocabulary.piece(text), first(text), "{text:?}");
            }
            for stranger in ["the", " the", "x", "\n", "<0x0B>", "a", "▁a", "Ġa"] {
                assert_eq!(vocabulary.piece(stranger), None, "{stranger:?}");
            }
            let pieces: HashMap<String, u32> = vocabulary.pieces().collect();
            assert!(pieces.len() == count && pieces.iter().all(|(text, id)| first(text) == Some(*id)));
            assert!(vocabulary.odd_pieces().all(|(text, id)| vocabulary.text(id).as_deref() != Some(text)));
        }
    }
}
