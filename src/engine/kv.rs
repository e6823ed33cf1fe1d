//! Seats and pages: whose keys and values are on the device.
//!
//! A session that computes has a *seat*: a line in the page table, and the pages that its positions have filled. All of
//! it is derived from the history: whoever loses the seat computes again.

use crate::kernel::PAGE;

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

/// The places that nobody has.
#[derive(Debug)]
pub(super) struct Pool {
    sequences: Vec<u32>,
    pages: Vec<u32>,
    touched: u32,
}

impl Pool {
    pub(super) fn new(sequences: u32, pages: u32) -> Self {
        Self { sequences: (0..sequences).rev().collect(), pages: (0..pages).rev().collect(), touched: 0 }
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
            seat.pages.push(page);
        }
        true
    }

    /// Pages that anybody has had: those below this number.
    pub(super) fn touched(&self) -> u32 {
        self.touched
    }

    /// Takes a seat back with all its pages.
    pub(super) fn leave(&mut self, seat: Seat) {
        self.pages.extend(seat.pages);
        self.sequences.push(seat.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_never_shared_and_never_lost() {
        let mut pool = Pool::new(2, 3);
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
