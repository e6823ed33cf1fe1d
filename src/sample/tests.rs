//! Laws of the chain.

use super::*;

fn chain(filters: Vec<Filter>) -> Chain {
    Chain::new(filters, false, 42).unwrap()
}

fn logits() -> Vec<f32> {
    crate::base::Seed::new(3).vector(1000, 8.0)
}

#[test]
fn greedy_takes_the_largest_and_the_smaller_token_among_equals() {
    let chain = Chain::new(Vec::new(), true, 0).unwrap();
    assert_eq!(chain.pick(&[1.0, 3.0, 3.0, 2.0], &[], 0).unwrap(), 1);
    assert_eq!(chain.sees(), Sees::Best);
}

#[test]
fn what_a_chain_sees_suffices() {
    let chain = chain(vec![
        Filter::TopK(TopK { k: 40 }),
        Filter::TopP(TopP { p: 0.9 }),
        Filter::Temperature(Temperature { temperature: 1.3 }),
    ]);
    assert_eq!(chain.sees(), Sees::Top(40));
    let logits = logits();
    let mut top = Candidates::new(logits.iter().enumerate().map(|(t, &l)| (t as u32, l)).collect());
    top.keep_largest(40);
    for step in 0..200 {
        let from_top = chain.pick_from(top.clone(), &[], step).unwrap();
        assert_eq!(chain.pick(&logits, &[], step).unwrap(), from_top);
    }
}

#[test]
fn a_lowered_chain_picks_the_same_tokens() {
    let mut seed = crate::base::Seed::new(8);
    let mut kinds = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let top = 1 + seed.below(64) as usize;
        let mut entries: Vec<(u32, f32)> =
            (0..top as u32).zip(seed.vector(top, 9.0)).map(|(t, l)| (t, (8.0 * l).round() / 8.0)).collect();
        entries.sort_by(order);
        let filters: Vec<Filter> = (0..seed.below(5))
            .map(|_| {
                let number = seed.signed().abs();
                match seed.below(4) {
                    0 => Filter::TopK(TopK { k: seed.below(70) as u32 }),
                    1 => Filter::TopP(TopP { p: number }),
                    2 => Filter::MinP(MinP { p: number / 2.0 }),
                    _ => Filter::Temperature(Temperature { temperature: 3.0 * number + 0.01 }),
                }
            })
            .collect();
        let chain = Chain::new(filters, false, seed.bits()).unwrap();
        let first = seed.below(100) as u32;
        let stages = chain.lower(first).unwrap();
        let logits: Vec<f32> = entries.iter().map(|entry| entry.1).collect();
        for step in 0..8u32 {
            let (token, _) = entries[stages.draw(&logits, first + step)];
            let picked = chain.pick_from(Candidates::new(entries.clone()), &[], step.into());
            assert_eq!(picked.unwrap(), token, "{chain}");
            kinds.insert(token);
        }
    }
    assert!(kinds.len() > 30, "draws of all kinds: {kinds:?}");
}

#[test]
fn what_a_device_cannot_do_is_not_lowered() {
    let penalty = Filter::RepeatPenalty(RepeatPenalty { penalty: 1.1, last: 64 });
    assert_eq!(chain(vec![Filter::TopK(TopK { k: 4 }), penalty]).lower(0), None);
    assert_eq!(chain(vec![Filter::TopK(TopK { k: 4 }); 7]).lower(0), None);
    assert_eq!(Chain::new(Vec::new(), true, 0).unwrap().lower(0), None);
    assert_eq!(chain(vec![Filter::TopK(TopK { k: 0 })]).sees(), Sees::All);
}

#[test]
fn draws_follow_the_probabilities() {
    let chain = chain(vec![Filter::Temperature(Temperature { temperature: 1.0 })]);
    let logits = [1.0f32.ln(), 2.0f32.ln(), 5.0f32.ln()];
    let mut counts = [0u32; 3];
    for step in 0..8000 {
        counts[chain.pick(&logits, &[], step).unwrap() as usize] += 1;
    }
    // Three standard deviations of a binomial count of 8000.
    for (count, expected) in counts.iter().zip([1000.0, 2000.0, 5000.0f64]) {
        assert!((f64::from(*count) - expected).abs() < 3.0 * 45.0, "{counts:?}");
    }
}

#[test]
fn a_seed_gives_one_answer_and_another_seed_another() {
    let logits = logits();
    let warm = |seed| {
        let filters = vec![Filter::Temperature(Temperature { temperature: 2.0 })];
        let chain = Chain::new(filters, false, seed).unwrap();
        (0..20).map(|step| chain.pick(&logits, &[], step).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(warm(1), warm(1));
    assert_ne!(warm(1), warm(2));
}

#[test]
fn not_a_number_is_refused() {
    let chain = Chain::new(Vec::new(), true, 0).unwrap();
    assert_eq!(chain.pick(&[1.0, f32::NAN], &[], 0).unwrap_err().kind(), Kind::WrongNumbers);
    let inf = f32::INFINITY;
    for logits in [&[1.0, inf][..], &[-inf, -inf], &[-inf, f32::NAN], &[]] {
        assert_eq!(chain.pick(logits, &[], 0).unwrap_err().kind(), Kind::WrongNumbers, "{logits:?}");
    }
    // A token may be impossible.
    assert_eq!(chain.pick(&[-inf, 0.0, -inf], &[], 0).unwrap(), 1);
    let drawn = Chain::new(vec![Filter::TopK(TopK { k: 3 })], false, 5).unwrap();
    assert!((0..50).all(|step| drawn.pick(&[-inf, 0.0, -inf], &[], step).unwrap() == 1));
    assert!(drawn.pick(&[-inf; 3], &[], 0).is_err());
}

#[test]
fn a_penalty_lowers_what_was_said() {
    let greedy = |penalty| {
        let filter = Filter::RepeatPenalty(RepeatPenalty { penalty, last: 64 });
        Chain::new(vec![filter], true, 0).unwrap()
    };
    assert_eq!(greedy(1.0).pick(&[2.0, 1.5], &[0], 0).unwrap(), 0);
    assert_eq!(greedy(2.0).pick(&[2.0, 1.5], &[0], 0).unwrap(), 1);
    assert_eq!(greedy(2.0).pick(&[-2.0, -3.0], &[0], 0).unwrap(), 1);
    assert_eq!(greedy(2.0).sees(), Sees::All);
}

#[test]
fn absurd_numbers_are_refused() {
    assert!(Chain::new(vec![Filter::TopP(TopP { p: f32::NAN })], false, 0).is_err());
    assert!(Chain::new(vec![Filter::Temperature(Temperature { temperature: -1.0 })], false, 0).is_err());
    assert!(Chain::new(vec![Filter::MinP(MinP { p: 2.0 })], false, 0).is_err());
    assert!(
        Chain::new(vec![Filter::RepeatPenalty(RepeatPenalty { penalty: 0.0, last: 1 })], false, 0).is_err()
    );
}
