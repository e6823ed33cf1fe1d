//! How text is cut into words before byte-level merging, by the name in `tokenizer.ggml.pre`.
//!
//! The names are llama.cpp's; the patterns are those published with each model's tokenizer. A wrong one gives
//! wrong tokens without any error, so an unknown name is refused.

use serde_json::Value;
use tokenizers::PreTokenizerWrapper;
use tokenizers::normalizer::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::dialects;
use crate::error::{Error, Result};

/// A way to cut text.
pub(super) struct Splitter {
    names: &'static [&'static str],
    cut: Cut,
    /// Whether a word that is a token as a whole is taken without merging.
    pub(super) whole_words: bool,
    /// Whether models of this family begin with BOS where the file does not say.
    pub(super) add_bos: bool,
}

enum Cut {
    /// GPT-2's pattern.
    Gpt2,
    /// Each digit alone, then GPT-2's pattern.
    DigitsThenGpt2,
    /// A pattern whose matches are the words.
    Pattern(&'static str),
}

const SPLITTERS: &[Splitter] = &[
    Splitter { names: &["gpt-2", "phi-2"], cut: Cut::Gpt2, whole_words: false, add_bos: false },
    Splitter {
        names: &["smollm", "starcoder", "refact"],
        cut: Cut::DigitsThenGpt2,
        whole_words: false,
        add_bos: false,
    },
    Splitter {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2"],
        cut: Cut::Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )),
        whole_words: true,
        add_bos: true,
    },
    Splitter {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )),
        whole_words: false,
        add_bos: false,
    },
];

impl Splitter {
    /// The one that `tokenizer.ggml.pre` names.
    pub(super) fn named(name: &str) -> Result<&'static Self> {
        SPLITTERS.iter().find(|splitter| splitter.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = SPLITTERS.iter().flat_map(|splitter| splitter.names).copied().collect();
            Error::unsupported(format!("the pre-tokenizer {name:?} is not known"))
                .hint(format!("known are {}", known.join(", ")))
        })
    }

    /// The name of the one whose steps, as the crate writes them, are `steps`; `whole_words` is its own.
    pub(super) fn name_of(steps: &[Value], whole_words: bool) -> Result<&'static str> {
        for splitter in SPLITTERS.iter().filter(|splitter| splitter.whole_words == whole_words) {
            if dialects::steps(&splitter.build()?)? == steps {
                return Ok(splitter.names[0]);
            }
        }
        let pattern = steps.iter().find_map(|step| step["pattern"]["Regex"].as_str());
        let steps = || Value::from(steps.to_vec()).to_string();
        Err(Error::unsupported(format!(
            "GGUF has no name for this way to cut words: {}",
            pattern.map_or_else(steps, str::to_owned)
        ))
        .at("pre_tokenizer"))
    }

    /// The crate's form of it; what comes out is in the byte-level alphabet.
    pub(super) fn build(&self) -> Result<PreTokenizerWrapper> {
        let gpt2 = ByteLevel::new(false, false, true);
        let bytes = ByteLevel::new(false, false, false);
        Ok(match self.cut {
            Cut::Gpt2 => gpt2.into(),
            Cut::DigitsThenGpt2 => Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into(),
            Cut::Pattern(pattern) => {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                let split =
                    Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|error| {
                        Error::internal("a splitting pattern does not compile").caused_by(error)
                    })?;
                Sequence::new(vec![split.into(), bytes.into()]).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_splitter_builds_and_names_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for splitter in SPLITTERS {
            splitter.build().unwrap();
            assert!(splitter.names.iter().all(|name| seen.insert(name)));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Splitter::named("zork").err().unwrap();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("zork") && error.to_string().contains("smollm"));
    }
}
