//! What `tokenizer.json` says, read without a tree of its vocabulary and merges: as one they would take ten times the memory
//! of the tokenizer that is made of them.
//!
//! The file is read twice, since merges are told by the vocabulary, wherever in the file it stands. Of two entries of a name
//! the last counts.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::merging::MergeReader;

/// The file but for its merges.
#[derive(Default)]
pub(super) struct Outline {
    /// All but the model.
    pub(super) file: Map<String, Value>,
    /// The model without vocabulary and merges, where it is an object.
    pub(super) model: Option<Map<String, Value>>,
    /// The model's vocabulary, where it is an object.
    pub(super) vocab: Option<Listed>,
    /// What the model has under `merges`, if anything: whether it is a list.
    pub(super) merges: Option<bool>,
}

/// Texts with their ids, in the file's order.
#[derive(Default)]
pub(super) struct Listed {
    texts: String,
    /// Where each text ends, and its id; `None` for what is none.
    entries: Vec<(usize, Option<u32>)>,
}

impl Listed {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, Option<u32>)> {
        let start = |at: usize| at.checked_sub(1).map_or(0, |before| self.entries[before].0);
        let entries = self.entries.iter().enumerate();
        entries.map(move |(at, &(end, id))| (&self.texts[start(at)..end], id))
    }
}

/// Everything but the merges.
pub(super) fn outline(json: &[u8]) -> serde_json::Result<Outline> {
    let mut outline = Outline::default();
    read(json, InFile(&mut outline))?;
    Ok(outline)
}

/// The merges of the model, an entry after the other.
pub(super) fn merges(json: &[u8], reader: &mut MergeReader) -> serde_json::Result<()> {
    read(json, Entry("model", Entry("merges", InMerges(reader))))
}

/// Reads an object.
fn read<W: Wanted>(json: &[u8], wanted: W) -> serde_json::Result<()> {
    let mut file = serde_json::Deserializer::from_slice(json);
    if !As(wanted).deserialize(&mut file)? {
        return Err(serde_json::Error::custom("no object"));
    }
    file.end()
}

/// What somebody looks for in a value: `true` where it was of the kind that is wanted. Any other is passed over.
trait Wanted: Sized {
    fn text(&mut self, _: &str) -> bool {
        false
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<bool, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn object<'de, A: MapAccess<'de>>(&mut self, mut object: A) -> Result<bool, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}

/// Whatever is there, as what is wanted.
struct As<W>(W);

impl<'de, W: Wanted> DeserializeSeed<'de> for As<W> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<bool, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de, W: Wanted> Visitor<'de> for As<W> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(mut self, text: &str) -> Result<bool, E> {
        Ok(self.0.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, list: A) -> Result<bool, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, object: A) -> Result<bool, A::Error> {
        self.0.object(object)
    }
}

/// The text itself, put behind what is there.
struct Behind<'a>(&'a mut String);

impl Wanted for Behind<'_> {
    fn text(&mut self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}

/// The value of a name in an object.
struct Entry<W>(&'static str, W);

impl<W: Wanted> Wanted for Entry<W> {
    fn object<'de, A: MapAccess<'de>>(&mut self, mut object: A) -> Result<bool, A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            if key == self.0 {
                object.next_value_seed(As(&mut self.1))?;
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(true)
    }
}

impl<W: Wanted> Wanted for &mut W {
    fn text(&mut self, text: &str) -> bool {
        W::text(self, text)
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, list: A) -> Result<bool, A::Error> {
        W::list(self, list)
    }

    fn object<'de, A: MapAccess<'de>>(&mut self, object: A) -> Result<bool, A::Error> {
        W::object(self, object)
    }
}

struct InFile<'a>(&'a mut Outline);

impl Wanted for InFile<'_> {
    fn object<'de, A: MapAccess<'de>>(&mut self, mut object: A) -> Result<bool, A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            if key == "model" {
                (self.0.model, self.0.vocab, self.0.merges) = (None, None, None);
                let mut model = Map::new();
                let is_object = object.next_value_seed(As(InModel(&mut model, self.0)))?;
                self.0.model = is_object.then_some(model);
            } else {
                self.0.file.insert(key, object.next_value()?);
            }
        }
        Ok(true)
    }
}

struct InModel<'a>(&'a mut Map<String, Value>, &'a mut Outline);

impl Wanted for InModel<'_> {
    fn object<'de, A: MapAccess<'de>>(&mut self, mut object: A) -> Result<bool, A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "vocab" => {
                    let mut vocab = Listed::default();
                    let is_object = object.next_value_seed(As(&mut vocab))?;
                    self.1.vocab = is_object.then_some(vocab);
                }
                "merges" => self.1.merges = Some(object.next_value_seed(As(List))?),
                _ => _ = self.0.insert(key, object.next_value()?),
            }
        }
        Ok(true)
    }
}

impl Wanted for Listed {
    fn object<'de, A: MapAccess<'de>>(&mut self, mut object: A) -> Result<bool, A::Error> {
        while object.next_key_seed(As(Behind(&mut self.texts)))?.is_some() {
            let id = object.next_value::<Value>()?.as_u64().and_then(|id| u32::try_from(id).ok());
            self.entries.push((self.texts.len(), id));
        }
        Ok(true)
    }
}

/// Whether it is a list.
struct List;

impl Wanted for List {
    fn list<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<bool, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(true)
    }
}

struct InMerges<'a, 'b>(&'a mut MergeReader<'b>);

impl Wanted for InMerges<'_, '_> {
    fn list<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<bool, A::Error> {
        self.0.restart();
        let mut pair = Pair::default();
        while let Some(is_pair) = list.next_element_seed(As(&mut pair))? {
            let (left, right) = pair.text.split_at(pair.cut);
            self.0.read(if is_pair { Ok((left, right)) } else { Err("no pair of pieces".to_owned()) });
            pair.text.clear();
            pair.cut = 0;
        }
        Ok(true)
    }
}

/// Two pieces: `"left right"`, or a list of both.
#[derive(Default)]
struct Pair {
    text: String,
    /// Where the second begins.
    cut: usize,
}

impl Wanted for Pair {
    fn text(&mut self, text: &str) -> bool {
        let Some((left, right)) = text.split_once(' ') else { return false };
        self.text.extend([left, right]);
        self.cut = left.len();
        true
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<bool, A::Error> {
        let is_left = list.next_element_seed(As(Behind(&mut self.text)))?;
        self.cut = self.text.len();
        let is_right = list.next_element_seed(As(Behind(&mut self.text)))?;
        let is_more = list.next_element::<IgnoredAny>()?.is_some();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok((is_left, is_right, is_more) == (Some(true), Some(true), false))
    }
}
