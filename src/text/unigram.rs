//! SentencePiece's unigram model: of all ways to cut a text into pieces the one with the highest sum of scores.
//! Kudo 2018, "Subword Regularization"; the scores are added as f32, as the library does, so that ties fall alike.

use super::vocabulary::Vocabulary;

/// How far below the lowest score an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The scores of pieces.
#[derive(Debug)]
pub(super) struct Unigram {
    /// By token.
    scores: Vec<f32>,
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
    /// A model of tokens with finite scores, the lowest of normal ones being `lowest`, whose pieces have at most `longest` bytes.
    pub(super) fn new(
        scores: Vec<f32>,
        longest: usize,
        lowest: f32,
        unknown: u32,
        bytes: Option<Box<[u32; 256]>>,
    ) -> Self {
        Self { scores, longest, unknown_score: lowest - UNKNOWN_PENALTY, unknown, bytes }
    }

    /// Adds the tokens of `text` to `ids`. Neighbouring unknown characters become one token.
    pub(super) fn cut(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut after_unknown = false;
        for (range, id) in self.best(vocabulary, text) {
            match (id, &self.bytes) {
                (Some(id), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(text[range].bytes().map(|b| bytes[usize::from(b)])),
                (None, None) if after_unknown => {}
                (None, None) => ids.push(self.unknown),
            }
            after_unknown = id.is_none();
        }
    }

    /// The pieces of the best way, in their order.
    fn best(&self, vocabulary: &Vocabulary, text: &str) -> Vec<(std::ops::Range<usize>, Option<u32>)> {
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
                if let Some(id) = vocabulary.piece(&text[from..to]) {
                    let own = self.scores.get(id as usize).copied().unwrap_or(self.unknown_score);
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
