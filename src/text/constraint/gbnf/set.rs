//! Sets of characters.

use std::fmt::Write;

/// Characters, in ranges that are in order and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(Vec<(u32, u32)>);

const LAST: u32 = char::MAX as u32;

impl Set {
    pub(super) fn all() -> Self {
        Self(vec![(0, LAST)])
    }

    pub(super) fn of(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut().filter(|range| first <= range.1.saturating_add(1)) {
                Some(range) => range.1 = range.1.max(last),
                None => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub(super) fn one(c: char) -> Self {
        Self(vec![(u32::from(c), u32::from(c))])
    }

    /// All characters that are not in it.
    pub(super) fn others(&self) -> Self {
        let (mut ranges, mut next) = (Vec::new(), 0);
        for &(first, last) in &self.0 {
            if first > next {
                ranges.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= LAST {
            ranges.push((next, LAST));
        }
        Self(ranges)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the characters of another, and says whether there were any new.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let before = std::mem::take(&mut self.0);
        *self = Self::of(before.iter().chain(&other.0).copied().collect());
        self.0 != before
    }

    /// Whether they have a character in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
    }

    /// As a regular expression; surrogates are no characters to it.
    pub(super) fn regex(&self) -> String {
        let mut regex = String::from("[");
        for &(first, last) in &self.0 {
            for (first, last) in [(first, last.min(0xd7ff)), (first.max(0xe000), last)] {
                if first <= last {
                    let _infallible = write!(regex, "\\u{{{first:x}}}-\\u{{{last:x}}}");
                }
            }
        }
        regex + "]"
    }
}
