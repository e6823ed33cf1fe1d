//! Writes each row's keys and values, columns `k_offset ..` and `v_offset ..` of x, to the page and slot of its
//! sequence and position (see the module's page for the layout).

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, PAGE, ROW_WORDS,
    Tolerance, Variant, Work, kv_at, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of x to the next.
    pub stride: u32,
    /// Column of x where the keys begin.
    pub k_offset: u32,
    /// Column of x where the values begin.
    pub v_offset: u32,
    /// Heads of K and of V.
    pub kv_heads: u32,
    /// Elements of a head, an even number.
    pub head_dim: u32,
    /// Entries of a sequence in `pages`.
    pub pages_per_sequence: u32,
}

/// The home.
#[derive(Debug)]
pub struct KvWrite;

impl Home for KvWrite {
    type Params = Params;
    const ID: KernelId = KernelId::KvWrite;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32, ArgKind::U32Mut, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Kv(KvType::FLOATS),
            Fragment::Text(include_str!("../../shaders/kv_write.wgsl")),
        ],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [(p.kv_heads * p.head_dim / 2).div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::U32(pages), Arg::F32(x), Arg::U32Mut(keys), Arg::U32Mut(values)] = args
        else {
            unreachable!("checked by the caller")
        };
        let kv = form.kv.unwrap_or(KvType::F32);
        for (r, row) in rows.chunks_exact(ROW_WORDS).take(call.rows as usize).enumerate() {
            for head in 0..p.kv_heads {
                let at = kv_at(pages, p.pages_per_sequence, row[2], row[1], head, p.kv_heads);
                let column = r * p.stride as usize + (head * p.head_dim) as usize;
                let of = |offset: u32| &x[column + offset as usize..][..p.head_dim as usize];
                kv.put(keys, at, of(p.k_offset));
                kv.put(values, at, of(p.v_offset));
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let vectors = 2.0 * f64::from(call.rows) * f64::from(p.kv_heads);
        let words = form.kv.unwrap_or(KvType::F32).words(1, p.head_dim as usize) as f64;
        Work { bytes: 4.0 * vectors * (f64::from(p.head_dim) + words), flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        let shape = |stride, k_offset, kv_heads, head_dim| Params {
            stride,
            k_offset,
            v_offset: k_offset + kv_heads * head_dim,
            kv_heads,
            head_dim,
            pages_per_sequence: 3,
        };
        let shapes = [
            (shape(16, 0, 1, 8), vec![(1, 0)]),
            (shape(4, 0, 1, 2), vec![(0, 95)]),
            (shape(41, 5, 3, 6), vec![(0, 31), (0, 32), (0, 33), (2, 0), (1, 63)]),
            (shape(960, 576, 3, 64), vec![(1, 64), (0, 30), (0, 31)]),
            (shape(512, 0, 2, 128), vec![(2, 7)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        KvType::FLOATS.iter().copied().flat_map(of_kv).collect()
    }
}

/// Rows of sequences at positions.
fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let mut seed = Seed::new(8);
    let mut x = made::activations(&mut seed, places.len(), params.stride as usize, params.stride as usize);
    // Ties of rounding, subnormal halves, one that vanishes, one that overflows, a negative zero.
    let hard = [2049.0, 2051.0, 3e-6, -6.0e-8, 2.0e-8, 65519.9, 65520.0, -1e5, -0.0, 6.1e-5];
    let at = params.k_offset as usize;
    for (x, hard) in x[at..].iter_mut().zip(hard) {
        *x = hard;
    }
    let rows: Vec<_> = places.iter().map(|&(sequence, position)| [9, position, sequence]).collect();
    let pages = made::pages(&mut seed, 3, params.pages_per_sequence);
    let words = kv.words(pages.len() * (params.kv_heads * PAGE) as usize, params.head_dim as usize);
    let mut old = || Data::U32((0..words).map(|_| seed.bits() as u32).collect());
    let args = vec![made::rows(&rows), Data::U32(pages), Data::F32(x), old(), old()];
    let call = Call { rows: rows.len() as u32, kv_len: 1 + rows.iter().map(|row| row[1]).max().unwrap_or(0) };
    let form = Form { kv: Some(kv), ..Form::default() };
    let name = format!("{} heads of {}, {places:?}", params.kv_heads, params.head_dim);
    Case::of::<KvWrite>(name, params, call, form, args, Tolerance::EXACT)
}
