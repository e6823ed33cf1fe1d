//! `rope` and `kv_write` as one step: rotates the query heads in place, and writes the rotated key heads, and the value
//! heads, to the page and slot of their row. A row of x is the heads of Q, of K and of V side by side; its keys stay
//! as they were.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, KvWrite, Needs, PAGE, Rope,
    Tolerance, Variant, Work, kv_write, made, rope,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of x to the next.
    pub stride: u32,
    /// Heads of Q.
    pub heads: u32,
    /// Heads of K and of V.
    pub kv_heads: u32,
    /// Elements of a head, an even number.
    pub head_dim: u32,
    /// Elements of a head that are rotated, an even number.
    pub dims: u32,
    /// 1: the pairs are neighbours; 0: they are half of `dims` apart.
    pub interleaved: u32,
    /// Entries of a sequence in `pages`.
    pub pages_per_sequence: u32,
}

impl Params {
    /// The two steps as one, where they are about the same heads.
    pub fn of(rope: &rope::Params, write: &kv_write::Params) -> Option<Self> {
        let heads = rope.heads.checked_sub(write.kv_heads)?;
        let joined = Self {
            stride: rope.stride,
            heads,
            kv_heads: write.kv_heads,
            head_dim: rope.head_dim,
            dims: rope.dims,
            interleaved: rope.interleaved,
            pages_per_sequence: write.pages_per_sequence,
        };
        let (again, write_again) = joined.parts();
        let same = bytemuck::bytes_of(&again) == bytemuck::bytes_of(rope)
            && bytemuck::bytes_of(&write_again) == bytemuck::bytes_of(write);
        same.then_some(joined)
    }

    /// The two steps that this one is.
    fn parts(&self) -> (rope::Params, kv_write::Params) {
        let &Self { stride, heads, kv_heads, head_dim, dims, interleaved, pages_per_sequence } = self;
        let rope = rope::Params { stride, offset: 0, heads: heads + kv_heads, head_dim, dims, interleaved };
        let (k_offset, v_offset) = (heads * head_dim, (heads + kv_heads) * head_dim);
        (rope, kv_write::Params { stride, k_offset, v_offset, kv_heads, head_dim, pages_per_sequence })
    }
}

/// The home.
#[derive(Debug)]
pub struct RopeKv;

impl Home for RopeKv {
    type Params = Params;
    const ID: KernelId = KernelId::RopeKv;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32, ArgKind::F32Mut, ArgKind::U32Mut, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Kv(KvType::FLOATS),
            Fragment::Text(include_str!("../../shaders/rope_kv.wgsl")),
        ],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [(p.heads * p.dims / 2 + p.kv_heads * p.head_dim / 2).div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [
            Arg::U32(rows),
            Arg::U32(pages),
            Arg::F32(table),
            Arg::F32Mut(x),
            Arg::U32Mut(keys),
            Arg::U32Mut(values),
        ] = args
        else {
            unreachable!("checked by the caller")
        };
        let (turn, write) = p.parts();
        let mut rotated = x.to_vec();
        Rope::twin(&turn, call, form, &mut [Arg::U32(rows), Arg::F32(table), Arg::F32Mut(&mut rotated)]);
        let args = &mut [
            Arg::U32(rows),
            Arg::U32(pages),
            Arg::F32(&rotated),
            Arg::U32Mut(keys),
            Arg::U32Mut(values),
        ];
        KvWrite::twin(&write, call, form, args);
        let queries = (p.heads * p.head_dim) as usize;
        let both = x.chunks_mut(p.stride as usize).zip(rotated.chunks(p.stride as usize));
        for (x, rotated) in both.take(call.rows as usize) {
            x[..queries].copy_from_slice(&rotated[..queries]);
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let (turn, write) = p.parts();
        let (turn, write) = (Rope::work(&turn, call, form), KvWrite::work(&write, call, form));
        Work { bytes: turn.bytes + write.bytes, flops: turn.flops }
    }

    fn cases() -> Vec<Case> {
        let shape = |heads, kv_heads, head_dim, dims, interleaved, spare| Params {
            stride: (heads + 2 * kv_heads) * head_dim + spare,
            heads,
            kv_heads,
            head_dim,
            dims,
            interleaved,
            pages_per_sequence: 3,
        };
        let shapes = [
            (shape(1, 1, 8, 8, 0, 0), vec![(0, 3)]),
            (shape(1, 1, 8, 8, 1, 0), vec![(0, 3)]),
            (shape(1, 1, 2, 2, 1, 0), vec![(0, 0), (1, 1)]),
            (shape(3, 1, 10, 6, 0, 5), vec![(0, 31), (0, 32), (1, 33), (2, 0)]),
            (shape(2, 2, 10, 6, 1, 1), vec![(1, 63), (0, 5)]),
            (shape(9, 3, 64, 64, 0, 0), vec![(1, 64), (0, 30), (0, 31)]),
            (shape(4, 2, 128, 64, 0, 0), vec![(2, 7)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        KvType::FLOATS.iter().copied().flat_map(of_kv).collect()
    }
}

/// Rows of sequences at positions.
fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let mut seed = Seed::new(7);
    let x = made::few_bits(&mut seed, places.len() * params.stride as usize);
    let positions = 1 + places.iter().map(|place| place.1).max().unwrap_or(0);
    let table = made::plain_turns(positions * params.dims / 2);
    let rows: Vec<_> = places.iter().map(|&(sequence, position)| [9, position, sequence]).collect();
    let pages = made::pages(&mut seed, 3, params.pages_per_sequence);
    let words = kv.words(pages.len() * (params.kv_heads * PAGE) as usize, params.head_dim as usize);
    let mut old = || Data::U32((0..words).map(|_| seed.bits() as u32).collect());
    let (keys, values) = (old(), old());
    let args = vec![made::rows(&rows), Data::U32(pages), Data::F32(table), Data::F32(x), keys, values];
    let call = Call { rows: rows.len() as u32, kv_len: positions };
    let form = Form { kv: Some(kv), ..Form::default() };
    let name = format!(
        "{} + {} heads of {}, {} turned{}, {places:?}",
        params.heads,
        params.kv_heads,
        params.head_dim,
        params.dims,
        if params.interleaved == 1 { " in neighbours" } else { "" }
    );
    Case::of::<RopeKv>(name, params, call, form, args, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_about_the_same_heads_are_joined() {
        for case in RopeKv::cases() {
            let params: Params = bytemuck::pod_read_unaligned(&case.params);
            let (rope, write) = params.parts();
            assert_eq!(Params::of(&rope, &write), Some(params));
            let others = [
                rope::Params { heads: rope.heads + 1, ..rope },
                rope::Params { offset: 2, ..rope },
                rope::Params { stride: rope.stride + 1, ..rope },
                rope::Params { heads: 0, ..rope },
            ];
            assert!(others.iter().all(|other| Params::of(other, &write).is_none()));
        }
    }
}
