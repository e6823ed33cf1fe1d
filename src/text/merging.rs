//! Byte-pair encoding: a word's characters become tokens, and of all neighbours that a merge names those of the first
//! merge become one, until none are left. Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
//! Units"; what of it files take for granted is as in the `tokenizers` crate, against which `tests/it/merging.rs` holds it.
//!
//! A merge is three numbers in a list and a place in a table, 16 to 20 bytes, because there can be half a million.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use tokenizers::AddedToken;

use super::table::Table;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// Two tokens and the one that their texts joined are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) whole: u32,
}

/// What a file says of its merges, on the way to a list.
pub(super) struct MergeReader<'a> {
    vocabulary: &'a Vocabulary,
    special: HashSet<&'a str>,
    merges: Vec<Merge>,
    /// How many have been read.
    count: usize,
    refused: Option<Error>,
    whole: String,
}

impl<'a> MergeReader<'a> {
    /// One for some `room` merges of the pieces of `vocabulary`.
    pub(super) fn new(vocabulary: &'a Vocabulary, added: &'a [(u32, AddedToken)], room: usize) -> Self {
        let special =
            added.iter().filter(|(_, token)| token.special).map(|(_, token)| token.content.as_str());
        Self {
            vocabulary,
            special: special.collect(),
            merges: Vec::with_capacity(room),
            count: 0,
            refused: None,
            whole: String::new(),
        }
    }

    /// Takes the next merge, the texts of a pair, or what else it is. One that needs a special token is left out: text must
    /// never become one.
    pub(super) fn read(&mut self, pair: Result<(&str, &str), String>) {
        let at = self.count;
        self.count += 1;
        let refused = match pair {
            Ok((left, right)) => match self.resolve(left, right) {
                Ok(merge) => return self.merges.push(merge),
                Err(text) if self.special.contains(text.as_str()) => return,
                Err(text) => format!("merge {at}, {left:?} and {right:?}, needs {text:?}, which is no token"),
            },
            Err(other) => format!("merge {at} is {other}"),
        };
        self.refused.get_or_insert_with(|| Error::bad_file(refused));
    }

    /// The pieces of a merge, or the first text that is none.
    fn resolve(&mut self, left: &str, right: &str) -> Result<Merge, String> {
        self.whole.clear();
        self.whole.push_str(left);
        self.whole.push_str(right);
        let piece = |text: &str| self.vocabulary.piece(text).ok_or_else(|| text.to_owned());
        Ok(Merge { left: piece(left)?, right: piece(right)?, whole: piece(&self.whole)? })
    }

    /// Forgets what it has read.
    pub(super) fn restart(&mut self) {
        self.merges.clear();
        (self.count, self.refused) = (0, None);
    }

    /// The merges, the first to be done first.
    ///
    /// # Errors
    /// The first of them that cannot be.
    pub(super) fn finish(mut self) -> Result<Vec<Merge>> {
        self.merges.shrink_to_fit();
        self.refused.map_or(Ok(self.merges), Err)
    }
}

/// Merges by their rank, and found by their pair.
#[derive(Debug)]
struct Merges {
    list: Vec<Merge>,
    ranks: Table,
}

impl Merges {
    fn new(list: Vec<Merge>) -> Result<Self> {
        let count = u32::try_from(list.len());
        let count = count.map_err(|_| Error::bad_file("more merges than can be numbered"))?;
        let mut merges = Self { ranks: Table::with_room(list.len()), list };
        // Of two of the same pair the last counts.
        for rank in (0..count).rev() {
            let Merge { left, right, .. } = merges.at(rank);
            if merges.rank(left, right).is_none() {
                merges.ranks.insert(merges.ranks.hash(left, right), rank);
            }
        }
        Ok(merges)
    }

    fn at(&self, rank: u32) -> Merge {
        self.list[rank as usize]
    }

    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let is = |rank| {
            let merge = self.at(rank);
            (merge.left, merge.right) == (left, right)
        };
        self.ranks.find(self.ranks.hash(left, right), is)
    }
}

/// What a file says of its model besides pieces and merges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// What stands for a character that neither pieces nor bytes cover; without one it is left out.
    pub(super) unknown: Option<u32>,
    /// Whether characters without a piece fall back to `<0x..>` tokens.
    pub(super) byte_fallback: bool,
    /// Whether neighbouring unknown characters become one token.
    pub(super) fuse_unknown: bool,
    /// Whether a word that is a piece is taken without merging.
    pub(super) whole_words: bool,
}

/// The characters that are looked up once and for all: those of the byte-level alphabet, and some more.
const COMMON: usize = 0x180;

/// A model of merges.
#[derive(Debug)]
pub(super) struct Bpe {
    merges: Merges,
    rules: Rules,
    /// The tokens of the first characters of Unicode.
    common: Box<[Option<u32>]>,
    /// The tokens of the 256 bytes; none where characters do not fall back to them.
    bytes: Box<[Option<u32>]>,
}

impl Bpe {
    /// The model of the pieces of `vocabulary` and merges of them, the first to be done first.
    pub(super) fn new(vocabulary: &Vocabulary, merges: Vec<Merge>, rules: Rules) -> Result<Self> {
        let piece = |c: char| vocabulary.piece(c.encode_utf8(&mut [0; 4]));
        let byte = |byte: u8| vocabulary.piece(&format!("<0x{byte:02X}>"));
        let bytes = if rules.byte_fallback { (0..=255).map(byte).collect() } else { Box::default() };
        let common = (0..COMMON as u32).map(|code| char::from_u32(code).and_then(piece)).collect();
        Ok(Self { merges: Merges::new(merges)?, rules, common, bytes })
    }

    /// Adds the tokens of `word` to `ids`; `work` is room that is used again.
    pub(super) fn cut(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        if word.is_empty() {
            return Ok(());
        }
        if let Some(id) = self.rules.whole_words.then(|| vocabulary.piece(word)).flatten() {
            ids.push(id);
            return Ok(());
        }
        if word.len() >= NONE as usize {
            return Err(Error::invalid("a text of 4 GiB or more without a cut"));
        }
        work.symbols.clear();
        self.begin(vocabulary, word, work);
        work.merge(&self.merges);
        work.tokens(ids);
        Ok(())
    }

    /// Makes a symbol of each character, or of each of its bytes.
    fn begin(&self, vocabulary: &Vocabulary, word: &str, work: &mut Work) {
        let mut unknown = None;
        for c in word.chars() {
            let mut utf8 = [0; 4];
            let piece = match self.common.get(c as usize) {
                Some(piece) => *piece,
                None => vocabulary.piece(c.encode_utf8(&mut utf8)),
            };
            if let Some(id) = piece {
                unknown.take().into_iter().for_each(|unknown| work.push(unknown));
                work.push(id);
                continue;
            }
            let bytes = c.encode_utf8(&mut utf8).bytes().map(|byte| *self.bytes.get(usize::from(byte))?);
            if bytes.clone().all(|id| id.is_some()) {
                // An unknown character waits for the next piece, as in the crate.
                bytes.flatten().for_each(|id| work.push(id));
            } else if let Some(id) = self.rules.unknown {
                let before = unknown.replace(id).filter(|_| !self.rules.fuse_unknown);
                before.into_iter().for_each(|before| work.push(before));
            }
        }
        unknown.into_iter().for_each(|unknown| work.push(unknown));
    }
}

/// The place of no symbol, and the token of one that is part of another.
const NONE: u32 = u32::MAX;

/// A token in a chain of them.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    before: u32,
    behind: u32,
}

/// A word while it is merged.
#[derive(Debug, Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    /// Merges that could be done: the rank, and in the lower half the place.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Work {
    fn push(&mut self, id: u32) {
        let place = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.behind = place;
        }
        self.symbols.push(Symbol { id, before: place.wrapping_sub(1), behind: NONE });
    }

    fn at(&mut self, place: u32) -> Option<&mut Symbol> {
        self.symbols.get_mut(place as usize)
    }

    /// Does the first merge at its first place, until there is none.
    fn merge(&mut self, merges: &Merges) {
        let pairs = (0u64..).zip(self.symbols.windows(2));
        let due = pairs.filter_map(|(place, pair)| {
            merges.rank(pair[0].id, pair[1].id).map(|rank| Reverse(u64::from(rank) << 32 | place))
        });
        self.queue.extend(due);
        while let Some(Reverse(next)) = self.queue.pop() {
            let (merge, place) = (merges.at((next >> 32) as u32), next as u32);
            let left = self.symbols[place as usize];
            let Some(&mut right) = self.at(left.behind) else { continue };
            // Either may have become part of another since.
            if (left.id, right.id) != (merge.left, merge.right) {
                continue;
            }
            self.symbols[left.behind as usize].id = NONE;
            self.symbols[place as usize] = Symbol { id: merge.whole, behind: right.behind, ..left };
            if let Some(behind) = self.at(right.behind) {
                behind.before = place;
                let rank = merges.rank(merge.whole, behind.id);
                self.queue.extend(rank.map(|rank| Reverse(u64::from(rank) << 32 | u64::from(place))));
            }
            if let Some(before) = self.at(left.before) {
                let rank = merges.rank(before.id, merge.whole);
                self.queue.extend(rank.map(|rank| Reverse(u64::from(rank) << 32 | u64::from(left.before))));
            }
        }
    }

    fn tokens(&self, ids: &mut Vec<u32>) {
        ids.extend(self.symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }
}
