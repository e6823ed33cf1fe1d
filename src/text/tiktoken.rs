//! Llama 3's `tokenizer.model`: a line for each token, its bytes in base64 and its rank. The pair whose bytes have the
//! lowest rank is merged first.
//! What the file leaves to the code, the cut into words and the names of the special tokens, is from
//! `models/llama3/tokenizer.py` of meta-llama/llama-models.

use tokenizers::AddedToken;

use super::merging::Rules;
use super::pieces::merges_by_score;
use super::splitter::Splitter;
use super::tokenizer::Parts;
use super::vocabulary::{Role, Spelling, Vocabulary};
use crate::error::{Error, Result};

/// The tokens of Llama 3; a file with more is of another family, which cuts words in another way.
const MOST_RANKS: usize = 128_000;

/// Special tokens, numbered after the others.
const SPECIALS: u32 = 256;

/// Special tokens with a meaning, by their place among the special tokens; the others are reserved.
const NAMED: &[(u32, &str)] = &[
    (0, "<|begin_of_text|>"),
    (1, "<|end_of_text|>"),
    (4, "<|finetune_right_pad_id|>"),
    (5, "<|step_id|>"),
    (6, "<|start_header_id|>"),
    (7, "<|end_header_id|>"),
    (8, "<|eom_id|>"),
    (9, "<|eot_id|>"),
    (10, "<|python_tag|>"),
    (11, "<|image|>"),
];

pub(super) fn parts(file: &[u8]) -> Result<Parts> {
    let ranks = ranks(file)?;
    let mut vocabulary = Vocabulary::new(Spelling::ByteLevel);
    ranks.iter().try_for_each(|bytes| vocabulary.push(bytes, Role::Text))?;
    let texts = || (0u32..).zip(ranks.iter().map(|bytes| Spelling::byte_level(bytes)));
    if vocabulary.index(ranks.len(), texts().map(|(id, text)| (text, id))) != ranks.len() {
        return Err(Error::bad_file("two tokens have the same bytes"));
    }
    if let Some(byte) = (0..=255).find(|&byte| vocabulary.piece(&Spelling::byte_level(&[byte])).is_none()) {
        return Err(Error::bad_file(format!("there is no token for the byte {byte}")));
    }
    let scores: Vec<f64> = (0..ranks.len()).map(|rank| -(rank as f64)).collect();
    let merges = merges_by_score(&vocabulary, texts(), &scores)?;
    let first = ranks.len() as u32;
    let mut added = Vec::new();
    let mut reserved = 0..;
    for place in 0..SPECIALS {
        let name = NAMED.iter().find(|(at, _)| *at == place).map(|(_, name)| (*name).to_owned());
        let name = name.or_else(|| reserved.next().map(|i| format!("<|reserved_special_token_{i}|>")));
        let name = name.unwrap_or_default();
        vocabulary.push(name.as_bytes(), Role::Special)?;
        added.push((first + place, AddedToken::from(name, true).normalized(false)));
    }
    let splitter = Splitter::named("llama3")?;
    Ok(Parts {
        vocabulary,
        merges,
        unigram: None,
        rules: Rules { whole_words: splitter.whole_words, ..Rules::default() },
        added,
        normalizer: None,
        splitter: Some(splitter.build()?),
        bos: Some(first),
        eos: Some(first + 1),
        add_bos: splitter.add_bos,
        ends: Vec::new(),
    })
}

/// The bytes of the tokens 0, 1, 2, …
fn ranks(file: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut ranks: Vec<(usize, Vec<u8>)> = Vec::new();
    for (i, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let refuse = || Error::bad_file(format!("line {} is no token in base64 with its rank", i + 1));
        let space = line.iter().position(|&byte| byte == b' ').ok_or_else(refuse)?;
        let bytes = base64(&line[..space]).filter(|bytes| !bytes.is_empty()).ok_or_else(refuse)?;
        let rank = std::str::from_utf8(&line[space + 1..]).ok().and_then(|rank| rank.parse().ok());
        ranks.push((rank.ok_or_else(refuse)?, bytes));
        if ranks.len() > MOST_RANKS {
            return Err(Error::unsupported(format!(
                "a tokenizer of more than {MOST_RANKS} tokens in base64"
            ))
            .hint("put the model's tokenizer.json into the folder"));
        }
    }
    ranks.sort_by_key(|&(rank, _)| rank);
    match ranks.iter().enumerate().find(|(i, (rank, _))| i != rank) {
        Some((i, (rank, _))) => Err(Error::bad_file(format!("rank {rank} stands where {i} belongs"))),
        None => Ok(ranks.into_iter().map(|(_, bytes)| bytes).collect()),
    }
}

/// The bytes behind base64 with its padding (RFC 4648), or `None` where it is something else.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_chunks::<4>();
    let mut bytes = Vec::with_capacity(3 * groups.len());
    for (i, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&c| c == b'=').count();
        if padding > 2 || (padding > 0 && i + 1 < groups.len()) {
            return None;
        }
        let sextets = group[..4 - padding].iter().try_fold(0u32, |bits, &c| Some(bits << 6 | sextet(c)?))?;
        let bits = sextets << (6 * padding);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    rest.is_empty().then_some(bytes)
}

fn sextet(c: u8) -> Option<u32> {
    let value = match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_the_rfc_has_it() {
        let cases = [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")];
        for (text, due) in cases {
            assert_eq!(base64(text.as_bytes()).unwrap(), due.as_bytes());
        }
        assert_eq!(base64(b"+/8=").unwrap(), [0xfb, 0xff]);
        for bad in ["Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9!", "Zm9\u{e9}"] {
            assert!(base64(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn files_that_make_no_vocabulary_are_refused() {
        let lines = |ranks: &[(&str, &str)]| {
            ranks.iter().map(|(text, rank)| format!("{text} {rank}\n")).collect::<String>()
        };
        let cases = [
            (lines(&[("Zg==", "0"), ("Zm8=", "2")]), "rank 2 stands where 1 belongs"),
            (lines(&[("Zg==", "0"), ("Zm8=", "0")]), "rank 0 stands where 1 belongs"),
            (lines(&[("Zg==", "0"), ("Zg==", "1")]), "the same bytes"),
            (lines(&[("Zg==", "0")]), "no token for the byte 0"),
            (lines(&[("", "0")]), "line 1 is no token"),
            (lines(&[("Zg==", "-1")]), "line 1 is no token"),
            ("Zg==".to_owned(), "line 1 is no token"),
            ("Zg== 0\n".repeat(MOST_RANKS + 1), "more than 128000"),
        ];
        for (file, says) in cases {
            let error = parts(file.as_bytes()).err().expect(says);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
