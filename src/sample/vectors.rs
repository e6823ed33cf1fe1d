//! The filters against vectors that were computed by hand from their formulas.

use super::*;

/// The chances 0.5, 0.25, 0.125, 0.125.
const LOGITS: [f32; 4] = [4.0 * LN_2, 3.0 * LN_2, 2.0 * LN_2, 2.0 * LN_2];
const LN_2: f32 = std::f32::consts::LN_2;

fn past(tokens: &[u32]) -> Past<'_> {
    Past { tokens, ..Past::default() }
}

fn after(filter: Filter, logits: &[f32], past: Past) -> Vec<(u32, f32)> {
    filter.check().unwrap();
    let mut candidates = Candidates::new((0..).zip(logits.iter().copied()).collect());
    filter.apply(&mut candidates, &past);
    candidates.entries
}

fn left(filter: Filter, logits: &[f32], past: Past) -> Vec<u32> {
    after(filter, logits, past).into_iter().map(|entry| entry.0).collect()
}

fn logits(filter: Filter, logits: &[f32], tokens: &[u32]) -> Vec<f32> {
    after(filter, logits, past(tokens)).into_iter().map(|entry| entry.1).collect()
}

#[test]
fn typical_keeps_what_is_nearest_to_the_entropy() {
    // H = 0.5 ln 2 + 0.25 · 2 ln 2 + 2 · 0.125 · 3 ln 2 = 1.75 ln 2; off by 0.75, 0.25, 1.25, 1.25 times ln 2.
    let typical = |p| Filter::Typical(Typical { p });
    assert_eq!(left(typical(0.2), &LOGITS, past(&[])), [1]);
    assert_eq!(left(typical(0.24), &LOGITS, past(&[])), [1]);
    assert_eq!(left(typical(0.3), &LOGITS, past(&[])), [0, 1]);
    assert_eq!(left(typical(0.8), &LOGITS, past(&[])), [0, 1, 2]);
    assert_eq!(left(typical(1.0), &LOGITS, past(&[])), [0, 1, 2, 3]);
    assert_eq!(left(typical(0.99), &[1.0, f32::NEG_INFINITY], past(&[])), [0]);
}

#[test]
fn penalties_by_presence_and_by_count() {
    let past = [7, 1, 1, 3, 1];
    let frequency = |last| Filter::FrequencyPenalty(FrequencyPenalty { penalty: 0.5, last });
    let presence = |last| Filter::PresencePenalty(PresencePenalty { penalty: 0.5, last });
    assert_eq!(logits(frequency(5), &[0.0, 2.0, 1.0, -1.0], &past), [0.0, 0.5, 1.0, -1.5]);
    assert_eq!(logits(frequency(2), &[0.0, 2.0, 1.0, -1.0], &past), [0.0, 1.5, 1.0, -1.5]);
    assert_eq!(logits(presence(5), &[0.0, 2.0, 1.0, -1.0], &past), [0.0, 1.5, 1.0, -1.5]);
    assert_eq!(logits(presence(1), &[0.0, 2.0, 1.0, -1.0], &past), [0.0, 1.5, 1.0, -1.0]);
    let repeat = Filter::RepeatPenalty(RepeatPenalty { penalty: 2.0, last: 9 });
    assert_eq!(logits(repeat, &[0.0, 2.0, 1.0, -1.0], &past), [0.0, 1.0, 1.0, -2.0]);
}

#[test]
fn biases_are_added() {
    let bias = |biases: &[(u32, f32)]| Filter::LogitBias(LogitBias { biases: biases.to_vec() });
    assert_eq!(logits(bias(&[(1, 2.0), (0, -0.5)]), &[1.0, 1.0, 1.0], &[]), [0.5, 3.0, 1.0]);
    let never = f32::NEG_INFINITY;
    assert_eq!(logits(bias(&[(2, never), (9, 1.0)]), &[1.0, 1.0, 1.0], &[]), [1.0, 1.0, never]);
    let chain = Chain::new(vec![bias(&[(1, never)])], true, 0).unwrap();
    assert_eq!((chain.sees(), chain.pick(&[1.0, 5.0, 3.0], &[], 0).unwrap()), (Sees::All, 2));
    let nothing = Chain::new(vec![bias(&[(0, never), (1, never)])], true, 0).unwrap();
    assert_eq!(nothing.pick(&[1.0, 5.0], &[], 0).unwrap_err().kind(), Kind::InvalidArgument);
    assert!(Chain::new(vec![bias(&[(0, f32::INFINITY)])], true, 0).is_err());
    assert!(Chain::new(vec![bias(&[(0, f32::NAN)])], true, 0).is_err());
}

#[test]
fn dry_is_dearer_the_longer_the_repetition() {
    let dry = |breakers: &[u32]| {
        Filter::Dry(Dry { multiplier: 0.5, base: 2.0, allowed: 2, last: 99, breakers: breakers.to_vec() })
    };
    // The past ends in 1 2 3, which 4 followed; in 2 3 and in 3, which 5 followed elsewhere.
    let tokens = [1, 2, 3, 4, 2, 3, 5, 3, 0, 1, 2, 3];
    let zeros = [0.0; 6];
    assert_eq!(logits(dry(&[]), &zeros, &tokens), [0.0, 0.0, 0.0, 0.0, -1.0, -0.5]);
    // Over 2 no repetition goes: only 3 is repeated, which is allowed.
    assert_eq!(logits(dry(&[2]), &zeros, &tokens), zeros);
    assert_eq!(logits(dry(&[1]), &zeros, &tokens), [0.0, 0.0, 0.0, 0.0, -0.5, -0.5]);
    // The longest of several counts, and a token that repeats itself too.
    assert_eq!(logits(dry(&[]), &zeros, &[2, 2, 2, 2]), [0.0, 0.0, -1.0, 0.0, 0.0, 0.0]);
    assert_eq!(logits(dry(&[]), &zeros, &[]), zeros);
    let long = Filter::Dry(Dry { multiplier: 1.0, base: 10.0, allowed: 0, last: 9999, breakers: vec![] });
    assert!(logits(long, &zeros, &vec![1; 5000])[1].is_finite());
}

#[test]
fn xtc_takes_out_all_top_choices_but_the_least() {
    let xtc = |probability, threshold| Filter::Xtc(Xtc { probability, threshold });
    assert_eq!(left(xtc(1.0, 0.2), &LOGITS, past(&[])), [1, 2, 3]);
    assert_eq!(left(xtc(1.0, 0.1), &LOGITS, past(&[])), [3]);
    assert_eq!(left(xtc(1.0, 0.4), &LOGITS, past(&[])), [0, 1, 2, 3]);
    assert_eq!(left(xtc(1.0, 0.6), &LOGITS, past(&[])), [0, 1, 2, 3]);
    assert_eq!(left(xtc(0.0, 0.1), &LOGITS, past(&[])), [0, 1, 2, 3]);
    let often =
        (0..4000).filter(|&step| left(xtc(0.25, 0.2), &LOGITS, Past { step, ..Past::default() }).len() == 3);
    // Three standard deviations of a binomial count of 4000.
    assert!((often.count() as f64 - 1000.0).abs() < 3.0 * 27.4);
}

#[test]
fn mirostat_follows_the_surprise() {
    // Surprises of 1, 2, 3, 3 bits.
    let mirostat = |tau| Mirostat { tau, eta: 0.5 };
    let limited = |limit| Past { limit: Some(limit), ..Past::default() };
    assert_eq!(left(Filter::Mirostat(mirostat(1.1)), &LOGITS, past(&[])), [0, 1]);
    assert_eq!(left(Filter::Mirostat(mirostat(1.0)), &LOGITS, limited(3.5)), [0, 1, 2, 3]);
    assert_eq!(left(Filter::Mirostat(mirostat(1.0)), &LOGITS, limited(0.1)), [0]);
    // Of the first two, whose chances are then 2/3 and 1/3, the second has log₂ 3 bits.
    let two = Candidates::new(vec![(0, LOGITS[0]), (1, LOGITS[1])]);
    let next = mirostat(1.0).next(&two, 1, &limited(2.0));
    assert!((next - (2.0 - 0.5 * (3f64.log2() - 1.0))).abs() < 1e-6);
    let chain = Chain::new(vec![Filter::Mirostat(mirostat(1.5))], false, 3).unwrap();
    let (mut limit, mut sum) = (None, 0.0);
    let many: Vec<f32> = (0..200).map(|i| -0.05 * i as f32).collect();
    let chances = {
        let candidates = Candidates::new((0..).zip(many.iter().copied()).collect());
        candidates.probabilities()
    };
    for step in 0..2000 {
        let picked = chain.pick_allowed(&many, None, Past { step, limit, ..Past::default() }).unwrap();
        limit = picked.limit;
        sum += -chances[picked.token as usize].log2();
    }
    // The tokens are as surprising as was wished, among those that are left; by all tokens they are a little more so.
    assert!((1.4..5.0).contains(&(sum / 2000.0)), "{}", sum / 2000.0);
    assert_eq!((chain.sees(), chain.lower(0)), (Sees::All, None));
}

#[test]
fn of_what_is_allowed_the_likeliest_is_taken() {
    let greedy = Chain::new(Vec::new(), true, 0).unwrap();
    let pick = |logits: &[f32], allowed: &[u32]| {
        greedy.pick_allowed(logits, Some(allowed), Past::default()).map(|picked| picked.token)
    };
    assert_eq!(pick(&[5.0, 1.0, 3.0], &[0b110]).unwrap(), 2);
    assert_eq!(pick(&[5.0, f32::NEG_INFINITY, f32::NEG_INFINITY], &[0b110]).unwrap(), 1);
    assert_eq!(pick(&[f32::NAN, 1.0, 3.0], &[0b110]).unwrap_err().kind(), Kind::WrongNumbers);
    assert!(pick(&[5.0, 1.0], &[0]).is_err());
    // Beyond the words nothing is allowed.
    assert_eq!(pick(&[0.0; 40].map(|_| 1.0), &[0, 0b10]).unwrap(), 33);
    assert!(pick(&[0.0; 40], &[0]).is_err());
}

#[test]
fn a_chain_is_printed_in_its_order() {
    let chain = Chain::new(
        vec![
            Filter::LogitBias(LogitBias { biases: vec![(3, -1.5), (4, f32::NEG_INFINITY)] }),
            Filter::Dry(Dry { multiplier: 0.8, ..Dry::default() }),
            Filter::Typical(Typical { p: 0.9 }),
            Filter::Xtc(Xtc { probability: 0.5, ..Xtc::default() }),
            Filter::Mirostat(Mirostat::default()),
        ],
        false,
        7,
    );
    let said = "logit-bias 3=-1.5,4=-inf → dry 0.8 · 1.75^(n − 2) over 1024 → typical-p 0.9 → xtc 0.5 from 0.1 → mirostat 5 by 0.1 → seed 7";
    assert_eq!(chain.unwrap().to_string(), said);
}
