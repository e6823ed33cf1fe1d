//! Seats and pages: whose keys and values are on the device.
//!
//! A session that computes has a *seat*: a line in the page table, and the pages that its positions have filled. All of
//! it is derived from the history: whoever loses the seat computes again.

use std::ops::Range;

use crate::kernel::PAGE;
use crate::model::Lowered;

/// A place in the KV cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// The line in the page table.
    pub(super) sequence: u32,
    /// By position / [`PAGE`].
    pub(super) pages: Vec<u32>,
    /// How many of them the device has been told of.
    pub(super) told: usize,
}

/// The places of a KV cache that nobody has.
#[derive(Debug)]
pub(super) struct Pool {
    sequences: Vec<u32>,
    pages: Vec<u32>,
    /// By page: how many seats have it.
    holders: Vec<u32>,
    touched: u32,
}

impl Pool {
    /// All places of each KV cache.
    pub(super) fn of(lowered: &Lowered) -> Vec<Self> {
        lowered.caches.iter().map(|cache| Self::new(cache.sequences.clone(), cache.options.pages)).collect()
    }

    fn new(sequences: Range<u32>, pages: u32) -> Self {
        let holders = vec![0; pages as usize];
        Self { sequences: sequences.rev().collect(), pages: (0..pages).rev().collect(), holders, touched: 0 }
    }

    /// A seat without pages, if one is free.
    pub(super) fn sit(&mut self) -> Option<Seat> {
        self.sequences.pop().map(|sequence| Seat { sequence, pages: Vec::new(), told: 0 })
    }

    /// Gives `seat` pages for `positions` positions: whether there were enough. The pages it got stay with it.
    pub(super) fn grow(&mut self, seat: &mut Seat, positions: u32) -> bool {
        let wanted = positions.div_ceil(PAGE) as usize;
        while seat.pages.len() < wanted {
            let Some(page) = self.pages.pop() else { return false };
            self.touched = self.touched.max(page + 1);
            self.holders[page as usize] = 1;
            seat.pages.push(page);
        }
        true
    }

    /// Pages that anybody has had: those below this number.
    pub(super) fn touched(&self) -> u32 {
        self.touched
    }

    /// Gives `seat`, which has no pages, the first `count` of another one's, which keeps them. Nobody may write to them then:
    /// see [`Self::own`].
    pub(super) fn share(&mut self, seat: &mut Seat, other: &[u32], count: usize) {
        seat.pages = other[..count].to_vec();
        for &page in &seat.pages {
            self.holders[page as usize] += 1;
        }
    }

    /// Makes sure that `seat` may write from `position` on: where a page of those is another one's too, it and all behind it go,
    /// and with them what was computed there. How much of `computed` is left.
    pub(super) fn own(&mut self, seat: &mut Seat, computed: u32) -> u32 {
        let first = (computed / PAGE) as usize;
        let shared = |page: &u32| self.holders[*page as usize] > 1;
        let Some(at) = seat.pages.iter().skip(first).position(shared).map(|at| first + at) else {
            return computed;
        };
        let gone = seat.pages.split_off(at);
        self.give_back(gone);
        seat.told = seat.told.min(at);
        computed.min(at as u32 * PAGE)
    }

    /// Takes a seat back with all its pages.
    pub(super) fn leave(&mut self, seat: Seat) {
        self.give_back(seat.pages);
        self.sequences.push(seat.sequence);
    }

    fn give_back(&mut self, pages: Vec<u32>) {
        for page in pages {
            let holders = &mut self.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                self.pages.push(page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_page_is_nobodys_to_write_and_free_when_all_have_left() {
        let mut pool = Pool::new(0..3, 4);
        let mut first = pool.sit().unwrap();
        assert!(pool.grow(&mut first, 2 * PAGE + 1));
        let mut second = pool.sit().unwrap();
        pool.share(&mut second, &first.pages, 2);
        assert_eq!(second.pages, first.pages[..2]);
        // Behind what is shared each writes where it likes.
        assert_eq!(pool.own(&mut first, 2 * PAGE), 2 * PAGE);
        assert_eq!(first.pages.len(), 3);
        assert!(pool.grow(&mut second, 2 * PAGE + 1));
        assert_ne!(first.pages[2], second.pages[2]);
        // Who goes back into it loses it, with what was computed there.
        (second.told, second.pages[2]) = (3, second.pages[2]);
        assert_eq!(pool.own(&mut second, PAGE + 7), PAGE);
        assert_eq!((second.pages.len(), second.told), (1, 1));
        assert_eq!(pool.own(&mut first, PAGE + 7), PAGE + 7, "alone by now");
        pool.leave(first);
        assert!(!pool.grow(&mut second, 5 * PAGE));
        assert_eq!(second.pages.len(), 4, "all but none");
        pool.leave(second);
        assert_eq!(pool.pages.len(), 4);
    }

    #[test]
    fn pages_are_never_shared_by_chance_and_never_lost() {
        let mut pool = Pool::new(5..7, 3);
        let mut first = pool.sit().unwrap();
        let mut second = pool.sit().unwrap();
        assert!(pool.sit().is_none());
        assert!(pool.grow(&mut first, PAGE + 1));
        assert!(pool.grow(&mut second, 1));
        assert!(!pool.grow(&mut second, PAGE + 1));
        let mut all: Vec<u32> = first.pages.iter().chain(&second.pages).copied().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(pool.touched(), 3);
        pool.leave(first);
        assert!(pool.grow(&mut second, 3 * PAGE));
        assert_ne!(second.sequence, pool.sit().unwrap().sequence);
    }
}
