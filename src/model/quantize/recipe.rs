//! Which tensor is stored how.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::quant::Format;

use super::coding::Coding;
use super::item::{Item, Role};

/// A coding for all weight matrices, and others for some.
#[derive(Clone, Debug)]
pub struct Recipe {
    coding: Coding,
    /// The first pattern that fits a name counts.
    rules: Vec<(String, Coding)>,
    /// Formats by name, before everything else.
    like: BTreeMap<String, Format>,
    /// The rank of corrections beside the matrices of layers.
    rank: Option<usize>,
}

impl Recipe {
    /// Every matrix in `coding`; embedding and head in one of at least 6 bits, or in floats where their method leaves them.
    pub fn all(coding: impl Into<Coding>) -> Self {
        Self { coding: coding.into(), rules: Vec::new(), like: BTreeMap::new(), rank: None }
    }

    /// With the rules of `text` first: `PATTERN=CODING`, separated by commas or lines; `*` in a pattern stands for any
    /// letters, and `#` begins a comment. Patterns are for names in the new file.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] naming the rule.
    pub fn with_rules(mut self, text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line));
        for rule in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|rule| !rule.is_empty()) {
            let parsed = rule
                .split_once('=')
                .and_then(|(pattern, coding)| Some((pattern.trim(), Coding::named(coding.trim())?)));
            let Some((pattern, coding)) = parsed else {
                return Err(Error::invalid(format!("{rule:?} is no rule"))
                    .hint("PATTERN=FORMAT would work, such as *attn_v*=q8_0"));
            };
            self.rules.push((pattern.to_owned(), coding));
        }
        Ok(self)
    }

    /// With the formats of another file of this model, tensor by tensor.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] for a tensor there in no known format.
    pub fn like(mut self, other: &Checkpoint) -> Result<Self> {
        for tensor in other.tensors.values() {
            self.like.insert(tensor.name.clone(), tensor.format()?);
        }
        Ok(self)
    }

    /// With a correction of this rank beside each matrix of the layers.
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = Some(rank);
        self
    }

    /// Gives each of `items` its coding and rank.
    pub(super) fn apply(&self, items: &mut [Item]) -> Result<()> {
        let unused = |(pattern, _): &&(String, Coding)| !items.iter().any(|item| fits(pattern, &item.name));
        if let Some((pattern, _)) = self.rules.iter().find(unused) {
            return Err(Error::invalid(format!("the pattern {pattern:?} fits no tensor")));
        }
        for item in items {
            item.coding = self.coding_of(item);
            let has_room = item.role == Role::Matrix && !item.coding.is_float();
            item.rank = self
                .rank
                .filter(|_| has_room)
                .map(|rank| rank.min(item.rows.shape().into_iter().min().unwrap_or(0)));
        }
        Ok(())
    }

    fn coding_of(&self, item: &Item) -> Coding {
        if let Some(format) = self.like.get(&item.name) {
            return Coding::Blocks(*format);
        }
        let cols = item.rows.shape()[1] as u64;
        let rule = self.rules.iter().find(|(pattern, _)| fits(pattern, &item.name));
        let coding = match (item.role, rule, self.coding) {
            (Role::Table, ..) => return item.coding,
            (_, Some((_, coding)), _) => *coding,
            (Role::Matrix, None, coding) => coding,
            (Role::Vocabulary, None, Coding::Blocks(format)) => Coding::Blocks(format.for_vocabulary(cols)),
            // The libraries of these codings leave embedding and head as they are.
            (Role::Vocabulary, None, _) if item.coding.is_16_bit() => item.coding,
            (Role::Vocabulary, None, _) => Coding::Blocks(Format::F16),
        };
        coding.for_columns(cols)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.coding)?;
        self.rules.iter().try_for_each(|(pattern, coding)| write!(f, ", {pattern}={coding}"))?;
        self.rank.iter().try_for_each(|rank| write!(f, ", corrections of rank {rank}"))?;
        match self.like.len() {
            0 => Ok(()),
            count => write!(f, ", {count} tensors as in another file"),
        }
    }
}

/// Whether `name` is as `pattern` says; each `*` there stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_shells_have_it() {
        for (pattern, name, expected) in [
            ("*", "blk.0.attn_q.weight", true),
            ("*attn_q*", "blk.0.attn_q.weight", true),
            ("blk.0.*", "blk.0.attn_q.weight", true),
            ("blk.0.*", "blk.10.attn_q.weight", false),
            ("*.weight", "blk.0.attn_q.bias", false),
            ("blk.*.attn_*.weight", "blk.3.attn_v.weight", true),
            ("output.weight", "output.weight", true),
            ("output", "output.weight", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn rules_are_read_and_refused() {
        let recipe = Recipe::all(Format::Q4_0)
            .with_rules("*attn_v*=q8_0, output.weight = Q6_K\n# all\nblk.0.*=f16")
            .unwrap();
        assert_eq!(recipe.to_string(), "q4_0, *attn_v*=q8_0, output.weight=q6_k, blk.0.*=f16");
        for wrong in ["q8_0", "*=", "*=q9", "*=i4"] {
            assert!(Recipe::all(Format::Q4_0).with_rules(wrong).is_err(), "{wrong}");
        }
    }
}
