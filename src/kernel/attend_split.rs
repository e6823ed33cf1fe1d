//! `attend` for few rows and many keys (Dao et al. 2023, "Flash-Decoding"): the keys of a sequence are split, so that there
//! is work for a whole GPU where one row has no more than a workgroup for each KV head. For split s of its keys
//!
//! `parts[r, s, h, :] = Σₜ softmaxₜ(scale · q[r, h, :]·k[t, g, :]) · v[t, g, :]` and
//! `parts[r, s, h, head_dim] = ln Σₜ exp(scale · q[r, h, :]·k[t, g, :])` over t in s,
//!
//! which `attend_join` makes one. Where a submission has so few keys that a split has them all, the result goes to y at
//! once, parts stays as it was, and there is nothing to join: then a layer is decoded in 8 dispatches, else in 9.

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, PAGE,
    ROW_WORDS, Variant, Work, attend,
};
use crate::base::Seed;

use attend::{Look, aside, groups, heads_of_group, made_up, shape};

pub use super::attend::Params;

/// [`pages_of_split`] in WGSL.
pub(super) const SPLITS: Fragment = Fragment::Text(include_str!("../../shaders/part/splits.wgsl"));

const BODY: Fragment = Fragment::Text(include_str!("../../shaders/attend_split.wgsl"));
const KEY_FOUR: Fragment = Fragment::Text(include_str!("../../shaders/part/key_four.wgsl"));
const KEY_PAIR: Fragment = Fragment::Text(include_str!("../../shaders/part/key_pair.wgsl"));

/// Pages of a split, as long as there are no more than [`MOST`]: a workgroup has its hands full with them.
const USUAL: u32 = 16;
/// The most splits of a sequence; where keys are so many, KV heads times this number keep any GPU busy.
const MOST: u32 = 16;

/// The home.
#[derive(Debug)]
pub struct AttendSplit;

impl Home for AttendSplit {
    type Params = Params;
    const ID: KernelId = KernelId::AttendSplit;
    const ARGS: &'static [ArgKind] = &[
        ArgKind::U32,
        ArgKind::U32,
        ArgKind::F32,
        ArgKind::U32,
        ArgKind::U32,
        ArgKind::F32Mut,
        ArgKind::F32Mut,
    ];
    const VARIANTS: &'static [Variant] = &[
        Variant { name: "team", fragments: &[Fragment::Kv, KEY_FOUR, SPLITS, BODY], needs: Needs::NOTHING },
        // Where threads are lanes of a CPU's vectors, as many as it has: a barrier is nearly free then.
        Variant { name: "thread", fragments: &[Fragment::Kv, KEY_FOUR, SPLITS, BODY], needs: Needs::NOTHING },
        Variant { name: "plain", fragments: &[Fragment::Kv, KEY_PAIR, SPLITS, BODY], needs: Needs::NOTHING },
    ];

    fn suits(p: &Params, variant: &Variant) -> bool {
        variant.name == "plain" || p.head_dim.is_multiple_of(4) && p.head_dim <= 128
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        let (team, teams) = match variant.name {
            "thread" => (8.0, 1.0),
            "team" => (32.0, 4.0),
            _ => (32.0, 1.0),
        };
        let heads = f64::from(heads_of_group(p));
        vec![("PAIRS", f64::from(p.head_dim / 2)), ("HEADS", heads), ("TEAM", team), ("TEAMS", teams)]
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [groups(p), splits(call.kv_len), call.rows]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [
            Arg::U32(rows),
            Arg::U32(pages),
            Arg::F32(q),
            Arg::U32(keys),
            Arg::U32(values),
            Arg::F32Mut(y),
            Arg::F32Mut(parts),
        ] = args
        else {
            unreachable!("checked by the caller")
        };
        let look = Look { p, form, rows, pages, q, keys, values };
        let (splits, keys) = (splits(call.kv_len), PAGE * pages_of_split(call.kv_len));
        for (row, head, y) in look.heads_of(call, y) {
            let seen = rows[row * ROW_WORDS + 1] + 1;
            for split in 0..seen.div_ceil(keys) {
                let (mean, sum) = look.over(row, head, keys * split..seen.min(keys * (split + 1)));
                let place = (row as u32 * splits + split) * p.heads + head;
                let part = &mut parts[(place * (p.head_dim + 1)) as usize..];
                let to = if splits == 1 { &mut *y } else { &mut *part };
                to.iter_mut().zip(&mean).for_each(|(to, &mean)| *to = mean as f32);
                if splits > 1 {
                    part[mean.len()] = sum as f32;
                }
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        attend::Attend::work(p, call, form)
    }

    fn cases() -> Vec<Case> {
        let long = |params| Params { pages_per_sequence: 35, ..params };
        let shapes = [
            (shape(2, 1, 8), vec![(0, 2)]),
            (shape(1, 1, 2), vec![(0, 33)]),
            (shape(9, 3, 64), vec![(1, 100)]),
            (aside(shape(8, 2, 80), 5, 3), vec![(1, 63), (0, 5), (2, 64)]),
            (shape(15, 1, 96), vec![(0, 31), (0, 32)]),
            (shape(2, 2, 128), vec![(1, 127)]),
            (shape(2, 1, 256), vec![(0, 33)]),
            // A split that is full, one key more, and rows with fewer splits than others.
            (long(shape(2, 1, 8)), vec![(2, 511)]),
            (long(shape(2, 1, 8)), vec![(2, 512), (1, 287), (1, 288), (0, 3)]),
            (long(aside(shape(4, 2, 8), 2, 1)), vec![(0, 1024), (2, 700)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        [KvType::F32, KvType::F16].into_iter().flat_map(of_kv).collect()
    }
}

/// Pages of each split but the last, where the longest sequence has `kv_len` keys.
pub(super) fn pages_of_split(kv_len: u32) -> u32 {
    let pages = kv_len.div_ceil(PAGE);
    pages.div_ceil(pages.div_ceil(USUAL).min(MOST))
}

/// Splits of the longest sequence.
pub(super) fn splits(kv_len: u32) -> u32 {
    kv_len.div_ceil(PAGE * pages_of_split(kv_len))
}

/// The most elements of parts for a row.
pub(crate) fn width(p: &Params) -> usize {
    let most = p.pages_per_sequence.div_ceil(USUAL).clamp(1, MOST);
    most as usize * p.heads as usize * (p.head_dim as usize + 1)
}

fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let made = made_up(kv, params, places);
    let Params { heads, kv_heads, head_dim, q_offset, .. } = params;
    let name = format!("{heads} heads of {head_dim} on {kv_heads} from {q_offset}, {}", made.places);
    let parts = Data::F32(Seed::new(4).vector(places.len() * width(&params), 1.0));
    let args = made.args.into_iter().chain([parts]).collect();
    Case::of::<AttendSplit>(name, params, made.call, made.form, args, made.tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_even_and_have_room() {
        assert_eq!([1, 32, 511, 512].map(splits), [1; 4]);
        assert_eq!([513, 1024, 1025, 8192].map(splits), [2, 2, 3, 16]);
        assert_eq!(pages_of_split(513), 9);
        for pages_per_sequence in [1, 16, 17, 100, 4000] {
            let params = Params { pages_per_sequence, ..shape(1, 1, 2) };
            for kv_len in (1..=PAGE * pages_per_sequence).step_by(31) {
                assert!(
                    splits(kv_len) as usize * 3 <= width(&params),
                    "{kv_len} of {pages_per_sequence} pages"
                );
                assert!(splits(kv_len) <= MOST && (splits(kv_len) > 1 || kv_len <= PAGE * USUAL));
            }
        }
    }
}
