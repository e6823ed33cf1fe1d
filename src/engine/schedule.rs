//! The schedule: who gets how many rows of the next submission. A pure choice, with no clock and no device.

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of its history that are not computed yet, at least 1.
    pub pending: u32,
}

/// Rows of the next submission for one demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The demand, by its place in the list.
    pub demand: usize,
    /// Rows, at least 1.
    pub rows: u32,
}

/// Shares `rows` among `demands`, beginning with the one at `turn`: first a row for each, so that nobody starves
/// while somebody reads a long prompt, then the rest in order. At most `outputs` demands are finished by it.
///
/// The slices come in the order of the demands' turns and never hold more rows than a demand has pending.
pub fn schedule(demands: &[Demand], turn: usize, rows: u32, outputs: u32) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let (mut rows_left, mut outputs_left) = (rows, outputs);
    let order = (0..demands.len()).map(|i| (turn + i) % demands.len());
    for demand in order {
        let finishes = demands[demand].pending == 1;
        if rows_left == 0 || demands[demand].pending == 0 || (finishes && outputs_left == 0) {
            continue;
        }
        rows_left -= 1;
        outputs_left -= u32::from(finishes);
        slices.push(Slice { demand, rows: 1 });
    }
    for slice in &mut slices {
        let missing = demands[slice.demand].pending - slice.rows;
        let whole = missing <= rows_left;
        let more = match whole && outputs_left == 0 {
            // Its last row would have wanted an output: it stops one short.
            true => missing.saturating_sub(1),
            false => missing.min(rows_left),
        };
        outputs_left -= u32::from(more == missing && more > 0);
        slice.rows += more;
        rows_left -= more;
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    /// Runs demands to their end and checks the laws on the way.
    fn run(pending: &[u32], rows: u32, outputs: u32) {
        let mut demands: Vec<Demand> = pending.iter().map(|&pending| Demand { pending }).collect();
        let mut waited = vec![0; demands.len()];
        for turn in 0.. {
            if demands.iter().all(|demand| demand.pending == 0) {
                return;
            }
            let slices = schedule(&demands, turn % demands.len(), rows, outputs);
            assert!(slices.iter().map(|slice| slice.rows).sum::<u32>() <= rows, "within the rows");
            assert!(slices.iter().all(|slice| slice.rows >= 1));
            let finished = slices.iter().filter(|slice| demands[slice.demand].pending == slice.rows).count();
            assert!(finished <= outputs as usize, "within the outputs");
            for demand in 0..demands.len() {
                let mine: Vec<_> = slices.iter().filter(|slice| slice.demand == demand).collect();
                assert!(mine.len() <= 1, "at most one slice each");
                waited[demand] =
                    if mine.is_empty() && demands[demand].pending > 0 { waited[demand] + 1 } else { 0 };
                assert!(waited[demand] <= demands.len(), "nobody starves: {pending:?}, {rows} rows");
            }
            for slice in slices {
                demands[slice.demand].pending -= slice.rows;
            }
        }
    }

    #[test]
    fn every_token_once_nobody_starves_nothing_over_budget() {
        let mut seed = Seed::new(11);
        for _ in 0..500 {
            let count = 1 + seed.below(7) as usize;
            let pending: Vec<u32> = (0..count).map(|_| 1 + seed.below(300) as u32).collect();
            run(&pending, 1 + seed.below(64) as u32, 1 + seed.below(4) as u32);
        }
    }

    #[test]
    fn a_lone_prompt_takes_all_rows() {
        assert_eq!(schedule(&[Demand { pending: 100 }], 0, 32, 1), [Slice { demand: 0, rows: 32 }]);
        assert_eq!(schedule(&[Demand { pending: 20 }], 0, 32, 1), [Slice { demand: 0, rows: 20 }]);
        assert_eq!(schedule(&[], 0, 32, 1), []);
    }
}
