//! SentencePiece's unigram model: of all ways to cut a text into pieces the one with the highest sum of scores.
//! Kudo 2018, "Subword Regularization"; the scores are added as f32, as the library does, so that ties fall alike.

use std::collections::HashMap;

use tokenizers::Token;

/// How far below the lowest score an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Pieces with their scores.
#[derive(Debug)]
pub(super) struct Unigram {
    pieces: HashMap<String, (u32, f32)>,
    /// Bytes of the longest piece.
    longest: usize,
    unknown_score: f32,
    unknown: u32,
    /// The tokens of the 256 bytes, where characters without a piece fall back to them.
    bytes: Option<Box<[u32; 256]>>,
}

/// The best way to a place in the text.
#[derive(Clone, Copy)]
struct Step {
    score: f32,
    /// Where its last piece begins.
    from: usize,
    /// That piece; `None` is an unknown character.
    id: Option<u32>,
}

impl Unigram {
    /// A model of `pieces` with finite scores; `lowest` is that of the normal ones.
    pub(super) fn new(
        pieces: HashMap<String, (u32, f32)>,
        lowest: f32,
        unknown: u32,
        bytes: Option<Box<[u32; 256]>>,
    ) -> Self {
        let longest = pieces.keys().map(String::len).max().unwrap_or(0);
        Self { pieces, longest, unknown_score: lowest - UNKNOWN_PENALTY, unknown, bytes }
    }

    /// The tokens of `text`. Neighbouring unknown characters become one token.
    pub(super) fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut after_unknown = false;
        for (range, id) in self.best(text) {
            let part = &text[range.clone()];
            match (id, &self.bytes) {
                (Some(id), _) => tokens.push(Token::new(id, part.to_owned(), (range.start, range.end))),
                (None, Some(bytes)) => {
                    let byte = |byte: u8| bytes[usize::from(byte)];
                    tokens.extend(
                        part.bytes().map(|b| Token::new(byte(b), part.to_owned(), (range.start, range.end))),
                    );
                }
                (None, None) if after_unknown => {}
                (None, None) => {
                    tokens.push(Token::new(self.unknown, part.to_owned(), (range.start, range.end)));
                }
            }
            after_unknown = id.is_none();
        }
        tokens
    }

    /// The pieces of the best way, in their order.
    fn best(&self, text: &str) -> Vec<(std::ops::Range<usize>, Option<u32>)> {
        let mut steps: Vec<Option<Step>> = vec![None; text.len() + 1];
        for (from, c) in text.char_indices() {
            let score =
                if from == 0 { 0.0 } else { steps[from].map_or(f32::NEG_INFINITY, |step| step.score) };
            let mut covered = false;
            let mut offer = |to: usize, score: f32, id| {
                if steps[to].is_none_or(|best| score > best.score) {
                    steps[to] = Some(Step { score, from, id });
                }
            };
            let one = from + c.len_utf8();
            let ends = text[from..].char_indices().map(|(at, c)| from + at + c.len_utf8());
            for to in ends.take_while(|to| to - from <= self.longest) {
                if let Some(&(id, own)) = self.pieces.get(&text[from..to]) {
                    offer(to, score + own, Some(id));
                    covered |= to == one;
                }
            }
            if !covered {
                offer(one, score + self.unknown_score, None);
            }
        }
        let mut way = Vec::new();
        let mut at = text.len();
        while let Some(step) = steps[at].filter(|_| at > 0) {
            way.push((step.from..at, step.id));
            at = step.from;
        }
        way.reverse();
        way
    }
}
