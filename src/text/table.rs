//! Numbers found by what they stand for, four bytes a place: a hash table that keeps no keys, because who asks has them.

use std::hash::{BuildHasher, RandomState};

/// A place without a number.
const EMPTY: u32 = u32::MAX;

/// An open-addressing table of numbers below [`u32::MAX`].
#[derive(Debug)]
pub(super) struct Table {
    /// A power of two, more than there are numbers.
    places: Vec<u32>,
    /// Unlike in each table, so that no file can be made in which all fall into one place.
    secret: [u64; 2],
}

impl Table {
    /// One with room for `count` numbers.
    pub(super) fn with_room(count: usize) -> Self {
        let state = RandomState::new();
        let places = vec![EMPTY; (count + count / 3 + 1).next_power_of_two()];
        Self { places, secret: [state.hash_one(0), state.hash_one(1)] }
    }

    /// The hash of two numbers.
    pub(super) fn hash(&self, left: u32, right: u32) -> u64 {
        fold((u64::from(left) << 32 | u64::from(right)) ^ self.secret[0], self.secret[1])
    }

    /// The hash of a text.
    pub(super) fn hash_text(&self, text: &str) -> u64 {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().chain([&last]).map(|&word| u64::from_le_bytes(word));
        words.fold(self.secret[0] ^ text.len() as u64, |hash, word| fold(hash ^ word, self.secret[1]))
    }

    /// The number of this hash that `is` it.
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.way(hash)
            .map(|place| self.places[place])
            .take_while(|&number| number != EMPTY)
            .find(|&number| is(number))
    }

    /// Adds a number that is not there. Where there is no room for it, it is not found either.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if let Some(place) = self.way(hash).find(|&place| self.places[place] == EMPTY) {
            self.places[place] = number;
        }
    }

    /// The numbers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.places.iter().copied().filter(|&number| number != EMPTY)
    }

    /// The places where a number of this hash may be, each once.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.places.len() - 1;
        (0..=mask).map(move |step| (hash as usize).wrapping_add(step) & mask)
    }
}

/// Both halves of the product: each bit depends on all of both.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        for count in [0u32, 1, 2, 3, 11, 12, 13, 1000] {
            let mut table = Table::with_room(count as usize);
            for number in 0..count {
                table.insert(table.hash(number / 7, number % 7), number);
            }
            let find = |left: u32, right: u32| {
                table.find(table.hash(left, right), |number| (number / 7, number % 7) == (left, right))
            };
            assert!((0..count).all(|number| find(number / 7, number % 7) == Some(number)), "{count}");
            assert_eq!((find(count, 0), find(0, 7), table.iter().count()), (None, None, count as usize));
        }
    }

    #[test]
    fn a_full_table_ends() {
        let mut table = Table::with_room(1);
        let places = table.places.len() as u32;
        (0..=places).for_each(|number| table.insert(0, number));
        assert_eq!(table.find(0, |number| number == places), None);
        assert_eq!(table.find(0, |number| number == places - 1), Some(places - 1));
    }

    #[test]
    fn texts_that_differ_have_other_hashes() {
        let table = Table::with_room(0);
        let texts = ["", "\0", "\0\0", "a", "a\0", "abcdefgh", "abcdefgh\0", "abcdefghi", "ihgfedcba"];
        let hashes: std::collections::BTreeSet<u64> =
            texts.iter().map(|text| table.hash_text(text)).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_ne!(table.hash(1, 2), table.hash(2, 1));
    }
}
