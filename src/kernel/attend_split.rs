//! `attend` for few rows and many keys (Dao et al. 2023, "Flash-Decoding"): the keys of a sequence are split, so that there
//! is work for a whole GPU where one row has no more than a workgroup for each KV head. For split s of its keys
//!
//! `parts[r, s, h, :] = Σₜ softmaxₜ(scale · q[r, h, :]·k[t, g, :]) · v[t, g, :]` and
//! `parts[r, s, h, head_dim] = ln Σₜ exp(scale · q[r, h, :]·k[t, g, :])` over t in s,
//!
//! which `attend_join` makes one. With a window, the splits are those of the pages that it reaches into, and s bends scores
//! as in `attend`. Where a submission has so few keys that a split has them all, the result goes to y at
//! once, parts stays as it was, and there is nothing to join: then a layer is decoded in 8 dispatches, else in 9.

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, PAGE,
    ROW_WORDS, Variant, Work, attend,
};
use crate::base::Seed;

use attend::{Look, aside, capped, groups, heads_of_group, made_up, shape, turned, windowed};

pub use super::attend::Params;

/// [`pages_of_split`] in WGSL.
pub(super) const SPLITS: Fragment = Fragment::Text(include_str!("../../shaders/part/splits.wgsl"));

const BODY: Fragment = Fragment::Text(include_str!("../../shaders/attend_split.wgsl"));
/// `key_four` and `value_pair`.
const READ_FOURS: Fragment = Fragment::ByKv(
    include_str!("../../shaders/part/kv_read_fours.wgsl"),
    include_str!("../../shaders/part/kv_read_blocks.wgsl"),
);
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
        Variant {
            name: "team",
            fragments: &[Fragment::Kv(KvType::ALL), READ_FOURS, KEY_FOUR, SPLITS, attend::SOFT_CAP, BODY],
            needs: Needs::NOTHING,
        },
        // Where threads are lanes of a CPU's vectors, as many as it has: a barrier is nearly free then.
        Variant {
            name: "thread",
            fragments: &[Fragment::Kv(KvType::ALL), READ_FOURS, KEY_FOUR, SPLITS, attend::SOFT_CAP, BODY],
            needs: Needs::NOTHING,
        },
        Variant {
            name: "plain",
            fragments: &[
                Fragment::Kv(KvType::ALL),
                attend::READ_PAIRS,
                KEY_PAIR,
                SPLITS,
                attend::SOFT_CAP,
                BODY,
            ],
            needs: Needs::NOTHING,
        },
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
        let shape =
            [("PAIRS", f64::from(p.head_dim / 2)), ("HEADS", heads), ("TEAM", team), ("TEAMS", teams)];
        shape.into_iter().chain(attend::mechanisms(p)).collect()
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [groups(p), splits(call.kv_len, p.window), call.rows]
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
        let (splits, pages) = (splits(call.kv_len, p.window), pages_of_split(call.kv_len, p.window));
        for (row, head, y) in look.heads_of(call, y) {
            let seen = attend::seen(p, rows[row * ROW_WORDS + 1]);
            let first_page = seen.start / PAGE;
            for split in 0..(seen.end.div_ceil(PAGE) - first_page).div_ceil(pages) {
                let [from, to] = [split, split + 1].map(|split| PAGE * (first_page + pages * split));
                let (mean, sum) = look.over(row, head, from.max(seen.start)..to.min(seen.end));
                let mean = attend::turned_back(p, mean);
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
        let long = |params| Params { pages_per_sequence: 35, window: 35 * PAGE, ..params };
        let slides = |window, params| windowed(Params { pages_per_sequence: 35, ..params }, window);
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
            // Windows: of one split, of two of which a row has one, bent scores beside.
            (slides(33, shape(2, 1, 8)), vec![(0, 2), (1, 64), (2, 1065)]),
            (slides(512, shape(2, 1, 8)), vec![(2, 1100), (1, 600), (0, 31)]),
            (capped(slides(512, shape(4, 2, 8)), 1.5), vec![(1, 543)]),
            (turned(shape(2, 1, 8)), vec![(0, 40), (1, 3)]),
            (turned(shape(10, 2, 64)), vec![(0, 33)]),
            (turned(shape(2, 1, 6)), vec![(0, 33)]),
            (turned(long(shape(4, 2, 8))), vec![(2, 700)]),
        ];
        let of_kv = |kv: KvType| {
            let fit = shapes.iter().filter(move |(params, _)| kv.is_blocks() || params.block == 1);
            fit.map(move |(params, places)| case(kv, *params, places))
        };
        KvType::ALL.iter().copied().flat_map(of_kv).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        form.kv.map(|kv| case(kv, attend::like(p), &[(1, 63), (0, 5), (2, 90)]))
    }
}

/// Pages that a row sees at most, where the longest sequence has `kv_len` keys.
fn pages(kv_len: u32, window: u32) -> u32 {
    kv_len.div_ceil(PAGE).min(window.div_ceil(PAGE) + 1)
}

/// Pages of each split but the last.
pub(super) fn pages_of_split(kv_len: u32, window: u32) -> u32 {
    let pages = pages(kv_len, window);
    pages.div_ceil(pages.div_ceil(USUAL).min(MOST))
}

/// The most splits of a row.
pub(super) fn splits(kv_len: u32, window: u32) -> u32 {
    pages(kv_len, window).div_ceil(pages_of_split(kv_len, window))
}

/// The most elements of parts for a row.
pub(crate) fn width(p: &Params) -> usize {
    let pages = p.pages_per_sequence.min(p.window.div_ceil(PAGE) + 1);
    let most = pages.div_ceil(USUAL).clamp(1, MOST);
    most as usize * p.heads as usize * (p.head_dim as usize + 1)
}

fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let made = made_up(kv, params, places);
    let Params { heads, kv_heads, head_dim, q_offset, .. } = params;
    let name = format!(
        "{heads} heads of {head_dim} on {kv_heads} from {q_offset}, {}{}",
        made.places,
        attend::mechanisms_of(&params)
    );
    let parts = Data::F32(Seed::new(4).vector(places.len() * width(&params), 1.0));
    let args = made.args.into_iter().chain([parts]).collect();
    Case::of::<AttendSplit>(name, params, made.call, made.form, args, made.tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_even_and_have_room() {
        let all = 1 << 20;
        assert_eq!([1, 32, 511, 512].map(|len| splits(len, all)), [1; 4]);
        assert_eq!([513, 1024, 1025, 8192].map(|len| splits(len, all)), [2, 2, 3, 16]);
        assert_eq!(pages_of_split(513, all), 9);
        // A window of 15 pages may reach into 16, and one of 16 into 17.
        assert_eq!(
            [(8192, 480), (8192, 481), (500, 512)].map(|(len, window)| splits(len, window)),
            [1, 2, 1]
        );
        for pages_per_sequence in [1, 16, 17, 100, 4000] {
            for window in [1, 100, 512, 4096, all] {
                let params = Params { pages_per_sequence, window, ..shape(1, 1, 2) };
                for kv_len in (1..=PAGE * pages_per_sequence).step_by(31) {
                    let splits = splits(kv_len, window);
                    let what = format!("{kv_len} of {pages_per_sequence} pages, window {window}");
                    assert!(splits as usize * 3 <= width(&params), "{what}");
                    assert!(splits <= MOST && (splits > 1 || kv_len.min(window) <= PAGE * USUAL), "{what}");
                }
            }
        }
    }
}
