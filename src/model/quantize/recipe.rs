//! Which tensor gets which format.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dtype, NewTensor, Tensor};
use crate::model::{Naming, Slot};
use crate::quant::Format;

/// A format for all weight matrices, and others for some.
#[derive(Clone, Debug)]
pub struct Recipe {
    format: Format,
    /// The first pattern that fits a name counts.
    rules: Vec<(String, Format)>,
    /// Formats by name, before everything else.
    like: BTreeMap<String, Format>,
}

impl Recipe {
    /// Every matrix in `format`, the embedding in one of at least 6 bits.
    pub fn all(format: Format) -> Self {
        Self { format, rules: Vec::new(), like: BTreeMap::new() }
    }

    /// With the rules of `text` first: `PATTERN=FORMAT`, separated by commas or lines; `*` in a pattern stands for any
    /// letters, and `#` begins a comment.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] naming the rule.
    pub fn with_rules(mut self, text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line));
        for rule in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|rule| !rule.is_empty()) {
            let parsed = rule
                .split_once('=')
                .and_then(|(pattern, format)| Some((pattern.trim(), Format::named_in_gguf(format.trim())?)));
            let Some((pattern, format)) = parsed else {
                return Err(Error::invalid(format!("{rule:?} is no rule"))
                    .hint("PATTERN=FORMAT would work, such as *attn_v*=q8_0"));
            };
            self.rules.push((pattern.to_owned(), format));
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

    /// The tensors of the new file.
    pub(super) fn apply(&self, checkpoint: &Checkpoint) -> Result<Vec<NewTensor>> {
        let names = || checkpoint.tensors.keys();
        if let Some((pattern, _)) =
            self.rules.iter().find(|(pattern, _)| !names().any(|name| fits(pattern, name)))
        {
            return Err(Error::invalid(format!("the pattern {pattern:?} fits no tensor")));
        }
        let tensors = checkpoint.tensors.values();
        tensors
            .map(|tensor| {
                let format = self.format_of(tensor)?;
                Ok(NewTensor { name: tensor.name.clone(), dims: tensor.dims.clone(), format })
            })
            .collect()
    }

    fn format_of(&self, tensor: &Tensor) -> Result<Format> {
        let old = tensor.format()?;
        if let Some(format) = self.like.get(&tensor.name) {
            return Ok(*format);
        }
        if !is_weight(tensor) {
            return Ok(old);
        }
        let rule = self.rules.iter().find(|(pattern, _)| fits(pattern, &tensor.name));
        let format = match rule {
            Some((_, format)) => *format,
            None if is_vocabulary(&tensor.name) => self.format.for_vocabulary(tensor.dims[1]),
            None => self.format,
        };
        Ok(format.for_columns(tensor.dims[1]))
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.format)?;
        self.rules.iter().try_for_each(|(pattern, format)| write!(f, ", {pattern}={format}"))?;
        match self.like.len() {
            0 => Ok(()),
            count => write!(f, ", {count} tensors as in another file"),
        }
    }
}

/// Whether a tensor is a matrix of products, or the embedding.
fn is_weight(tensor: &Tensor) -> bool {
    let is_float_or_codes = matches!(tensor.dtype, Dtype::Format(_));
    let is_matrix = tensor.dims.len() == 2 && tensor.dims[0] > 1 && tensor.name.ends_with(".weight");
    let is_table =
        ["norm", "position_embd", "token_types", "rope_"].iter().any(|part| tensor.name.contains(part));
    is_float_or_codes && is_matrix && !is_table
}

/// Whether a tensor has a row for each token.
fn is_vocabulary(name: &str) -> bool {
    [Slot::Embedding, Slot::Head].iter().any(|&slot| Naming::Gguf.weight(slot) == name)
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
