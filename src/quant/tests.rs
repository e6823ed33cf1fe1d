//! Laws that hold for every format of the list.

use super::{Format, GpuOrder, UNIT};
use crate::base::Seed;

/// Formats whose codes in GPU order are not bits of the file moved, but written out from them.
const WRITTEN_OUT: [Format; 9] = [
    Format::F64,
    Format::TQ1_0,
    Format::IQ1_S,
    Format::IQ1_M,
    Format::IQ2_XXS,
    Format::IQ2_XS,
    Format::IQ2_S,
    Format::IQ3_XXS,
    Format::IQ3_S,
];

/// The others.
fn moved() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| !WRITTEN_OUT.contains(format))
}

/// The bits that are set.
fn ones(words: &[u32]) -> Vec<usize> {
    (0..32 * words.len()).filter(|bit| words[bit / 32] >> (bit % 32) & 1 == 1).collect()
}

/// The row of `k` elements in GPU order: codes, then scales.
fn repacked(format: Format, k: usize, row: &[u8]) -> Vec<u32> {
    let mut words = vec![0; format.code_words(k) + format.scale_words(k)];
    let (codes, scales) = words.split_at_mut(format.code_words(k));
    format.repack(row, codes, scales);
    words
}

fn flipped(row: &[u8], bit: usize) -> Vec<u8> {
    let mut row = row.to_vec();
    row[bit / 8] ^= 1 << (bit % 8);
    row
}

/// Where each bit of a row of `bytes` goes, or what `repack` does that is not moving bits.
fn destinations(bytes: usize, repack: impl Fn(&[u8]) -> Vec<u32>) -> Result<Vec<usize>, String> {
    let zero = vec![0; bytes];
    let mut taken = repack(&zero);
    if !ones(&taken).is_empty() {
        return Err("bits appear from nothing".into());
    }
    let mut places = Vec::with_capacity(8 * bytes);
    for bit in 0..8 * bytes {
        let [place] = ones(&repack(&flipped(&zero, bit)))[..] else {
            return Err(format!("bit {bit} does not go to one place"));
        };
        if taken[place / 32] >> (place % 32) & 1 == 1 {
            return Err(format!("bit {bit} goes where another went"));
        }
        taken[place / 32] |= 1 << (place % 32);
        places.push(place);
    }
    let row: Vec<u8> = Seed::new(1).vector(bytes, 128.0).iter().map(|v| (v + 128.0) as u8).collect();
    let mut moved = vec![0u32; taken.len()];
    for (bit, place) in places.iter().enumerate() {
        moved[place / 32] |= u32::from(row[bit / 8] >> (bit % 8) & 1) << (place % 32);
    }
    if moved != repack(&row) {
        return Err("bits depend on each other".into());
    }
    Ok(places)
}

/// The element whose code holds bit `place` of the codes: the rule of the GPU order.
fn element_at(code_bits: usize, place: usize) -> usize {
    if code_bits > 8 {
        return place / code_bits;
    }
    let (word, byte, field) = (place / 32, place % 32 / 8, place % 8 / code_bits);
    word * (32 / code_bits) + 4 * field + byte
}

fn decoded(format: Format, row: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; row.len() / format.block_bytes() * format.block_len()];
    format.decode(row, &mut out);
    out
}

/// The elements that two rows decode to different bits.
fn changed(a: &[f32], b: &[f32]) -> Vec<usize> {
    (0..a.len()).filter(|&i| a[i].to_bits() != b[i].to_bits()).collect()
}

#[test]
fn repacking_moves_every_bit_to_a_place_of_its_own() {
    for format in moved() {
        for blocks in [1, 2, 3, 33] {
            let repack = |row: &[u8]| repacked(format, blocks * format.block_len(), row);
            // The long rows of the large blocks would only repeat what three blocks show.
            if blocks * format.block_bytes() > 1024 {
                continue;
            }
            if let Err(what) = destinations(blocks * format.block_bytes(), repack) {
                panic!("{format}, {blocks} blocks: {what}");
            }
        }
    }
}

#[test]
fn a_repacking_that_loses_a_bit_is_noticed() {
    let lossy = |row: &[u8]| repacked(Format::Q4_1, 32, row).iter().map(|word| word & !4).collect();
    assert!(destinations(20, lossy).is_err());
    let doubled = |row: &[u8]| repacked(Format::Q4_1, 32, row).iter().map(|word| word | word << 8).collect();
    assert!(destinations(20, doubled).is_err());
}

#[test]
fn codes_stand_where_the_rule_says() {
    for format in moved() {
        let k = 3 * format.block_len().max(UNIT);
        let values = Seed::new(2).vector(k, 1.0);
        let row = format.encode(&values);
        let (before, code_bits) = (decoded(format, &row), format.layout().gpu_order().code_bits);
        let places = destinations(row.len(), |row| repacked(format, k, row)).expect("a permutation");
        let mut seen = vec![false; k];
        for (bit, place) in places.into_iter().enumerate() {
            if place < 32 * format.code_words(k) {
                let (element, changed) =
                    (element_at(code_bits, place), changed(&before, &decoded(format, &flipped(&row, bit))));
                // Nothing changes where the sign of a zero does.
                assert!(
                    changed.is_empty() || changed == [element],
                    "{format}: bit {bit} changes {changed:?}"
                );
                seen[element] |= !changed.is_empty();
            }
        }
        assert!(seen.iter().all(|seen| *seen), "{format}: an element without a code");
    }
}

/// The elements whose codes differ.
fn recoded(code_bits: usize, a: &[u32], b: &[u32]) -> Vec<usize> {
    let differences: Vec<u32> = a.iter().zip(b).map(|(a, b)| a ^ b).collect();
    let mut elements: Vec<_> =
        ones(&differences).into_iter().map(|place| element_at(code_bits, place)).collect();
    elements.sort_unstable();
    elements.dedup();
    elements
}

/// A bit of the file whose codes in GPU order change elsewhere than the elements that the bit decodes.
fn misplaced_code(format: Format, row: &[u8], repack: impl Fn(&[u8]) -> Vec<u32>) -> Option<usize> {
    let (before, packed) = (decoded(format, row), repack(row));
    let codes = format.code_words(before.len());
    (0..8 * row.len()).find(|&bit| {
        let row = flipped(row, bit);
        let (changed, repacked) = (changed(&before, &decoded(format, &row)), repack(&row));
        let code_bits = format.layout().gpu_order().code_bits;
        let recoded = recoded(code_bits, &packed[..codes], &repacked[..codes]);
        let fits = |element: &usize| changed.contains(element);
        // Where scales change, elements may do so without their codes.
        let scales_same = packed[codes..] == repacked[codes..];
        !recoded.iter().all(fits) || scales_same && recoded.len() != changed.len()
    })
}

#[test]
fn codes_change_where_elements_do() {
    // These have a negative zero, a code of its own that decodes to the same bits.
    let zeros = [Format::MXFP4, Format::NVFP4];
    for format in Format::ALL.iter().copied().filter(|format| !zeros.contains(format)) {
        let k = format.block_len().max(UNIT);
        let row = format.encode(&weights(8, k));
        let repack = |row: &[u8]| repacked(format, k, row);
        assert_eq!(misplaced_code(format, &row, repack), None, "{format}");
        let shifted = |row: &[u8]| {
            let mut words = repack(row);
            words[..format.code_words(k)].rotate_right(1);
            words
        };
        assert!(misplaced_code(format, &row, shifted).is_some(), "{format}: codes one word off passed");
    }
}

/// The first value of a block that another code of its element would have come nearer to.
fn misplaced(format: Format, values: &[f32], block: &[u8]) -> Option<usize> {
    let before = decoded(format, block);
    let mut bits_of = vec![Vec::new(); values.len()];
    for bit in 0..8 * block.len() {
        if let [element] = changed(&before, &decoded(format, &flipped(block, bit)))[..] {
            bits_of[element].push(bit);
        }
    }
    // A scale is rounded to f32 before codes are chosen with it; a near tie may fall either way.
    let slack = 1e-5 * values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let misses = |element: usize, bits: &Vec<usize>| {
        if bits.len() > 16 {
            return before[element].to_bits() != values[element].to_bits();
        }
        (0..1u32 << bits.len()).any(|choice| {
            let chosen = (0..bits.len()).filter(|i| choice >> i & 1 == 1);
            let other = chosen.fold(block.to_vec(), |block, i| flipped(&block, bits[i]));
            let error = |decoded: f32| (decoded - values[element]).abs();
            error(decoded(format, &other)[element]) + slack < error(before[element])
        })
    };
    (0..values.len()).find(|&element| misses(element, &bits_of[element]))
}

/// Roughly Gaussian, as weights are.
fn weights(seed: u64, len: usize) -> Vec<f32> {
    let mut seed = Seed::new(seed);
    (0..len).map(|_| (0..6).map(|_| seed.signed()).sum::<f32>() * 0.05).collect()
}

#[test]
fn every_code_is_the_nearest_one() {
    // For those whose codes name a point of several elements, `grid` has this law.
    for &format in
        Format::ALL.iter().filter(|format| **format == Format::F64 || !WRITTEN_OUT.contains(format))
    {
        let values = weights(3, format.block_len());
        let mut block = format.encode(&values);
        assert_eq!(misplaced(format, &values, &block), None, "{format}");
        // The same block with a bit of one code turned over.
        let before = decoded(format, &block);
        let of_a_code = |bit: &usize| changed(&before, &decoded(format, &flipped(&block, *bit))).len() == 1;
        let bit = (0..8 * block.len()).rfind(of_a_code).expect("a code");
        block = flipped(&block, bit);
        assert!(misplaced(format, &values, &block).is_some(), "{format}: a wrong code passed");
    }
}

/// The root of the mean squared error over that of the values.
fn relative_error(format: Format, values: &[f32]) -> f64 {
    let decoded = decoded(format, &format.encode(values));
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = values.iter().zip(decoded).map(|(v, d)| square(v - d)).sum();
    (error / values.iter().map(|&v| square(v)).sum::<f64>()).sqrt()
}

/// Whether blocks have scales: without, values must be of the size that the format is for.
fn is_scaled(format: Format) -> bool {
    format.layout().gpu_order().scale_halves > 0 || format.block_len() == 1
}

/// Bits of a weight, scales included as halves: what imports keep in f32 was no finer in their files.
fn bits(format: Format) -> f64 {
    let GpuOrder { code_bits, scale_halves } = format.layout().gpu_order();
    let is_import = format.gguf_id().is_none() && format.block_len() > 1;
    if is_import { code_bits as f64 + scale_halves as f64 / 4.0 } else { format.bits_per_weight() }
}

#[test]
fn a_bit_halves_the_error() {
    // 32 such values span about 4.2 standard deviations, so a step of that over 2^b errs by 4.2/√12·2^-b; of the
    // bits of a weight, up to one pays for scales.
    let values = weights(4, 64 * 256);
    for format in Format::ALL.iter().copied().filter(|&format| format.block_len() > 1 && is_scaled(format)) {
        let error = relative_error(format, &values) * (bits(format).exp2() - 1.0);
        assert!((0.5..2.6).contains(&error), "{format}: {error} · 2^-bits");
    }
}

/// A name and the value of each element.
type Shape = (&'static str, fn(usize) -> f32);

#[test]
fn any_finite_block_encodes_to_finite_values() {
    let shapes: [Shape; 8] = [
        ("zeros", |_| 0.0),
        ("a constant", |_| 0.75),
        ("a negative constant", |_| -0.75),
        ("subnormals", |i| f32::from_bits(i as u32 + 1)),
        ("below f16", |i| 1e-9 * i as f32),
        ("a spike", |i| if i == 7 { 1000.0 } else { 0.01 }),
        ("a negative spike", |i| if i == 8 { -1000.0 } else { 0.01 }),
        ("the greatest", |i| if i % 2 == 0 { f32::MAX } else { f32::MIN }),
    ];
    for format in Format::ALL.iter().copied().filter(|&format| is_scaled(format)) {
        for (name, shape) in shapes {
            let values: Vec<f32> = (0..format.block_len()).map(shape).collect();
            let decoded = decoded(format, &format.encode(&values));
            assert!(decoded.iter().all(|v| v.is_finite()), "{format}, {name}: {decoded:?}");
            if name != "the greatest" {
                let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                let bits = bits(format).min(8.0);
                // A step is at most 2·most over 2^bits − 1 codes, and a bit may have gone to scales.
                let bound = most * 4.0 * (-bits).exp2() as f32 + 1e-6;
                for (v, d) in values.iter().zip(&decoded) {
                    assert!((v - d).abs() <= bound, "{format}, {name}: {v} became {d}");
                }
            }
        }
    }
}

#[test]
fn spelled_levels_are_in_the_table_and_decode_to_the_same() {
    let mut seed = Seed::new(9);
    for format in Format::ALL.iter().copied().filter(|format| !format.levels().is_empty()) {
        assert!(format.levels().is_sorted() && format.levels().len() <= 16, "{format}");
        let k = 16 * format.block_len();
        let row: Vec<u8> = (0..16 * format.block_bytes()).map(|_| seed.bits() as u8 & 0xbf).collect();
        let (mut levels, mut scales) = (vec![0; k], vec![0.0; k / 16]);
        format.spell(&row, &mut levels, &mut scales);
        assert!(levels.iter().all(|level| format.levels().contains(level)), "{format}");
        for (i, decoded) in decoded(format, &row).into_iter().enumerate() {
            let spelled = scales[i / 16] * f32::from(levels[i]);
            assert!(spelled.to_bits() == decoded.to_bits() || spelled.is_nan(), "{format}: element {i}");
        }
        // Random codes meet each level.
        let met = |level: &i8| levels.contains(level);
        let ternary = matches!(format, Format::TQ1_0 | Format::Q1_0);
        assert!(ternary || format.levels().iter().all(met), "{format}");
    }
}
