//! `rope` and `kv_blocks` as one step: rotates the heads of Q and of K by their position, then turns all where heads are
//! turned; writes queries in place, and keys and values in blocks to the page and slot of their row. The keys and values
//! of x stay as they were.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvBlocks, KvType, Needs, Overrides, PAGE,
    Rope, Tolerance, Variant, Work, kv_blocks, made, rope,
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
    /// Elements of a head, an even number up to 256.
    pub head_dim: u32,
    /// Elements of a block of the transform, a power of two that divides `head_dim`; 1 for none.
    pub block: u32,
    /// Entries of a sequence in `pages`.
    pub pages_per_sequence: u32,
    /// Elements of a head that are rotated, an even number.
    pub dims: u32,
    /// 1: the pairs are neighbours; 0: they are half of `dims` apart.
    pub interleaved: u32,
}

impl Params {
    /// The two steps as one, where they are about the same heads.
    pub fn of(rope: &rope::Params, write: &kv_blocks::Params) -> Option<Self> {
        let &kv_blocks::Params { stride, heads, kv_heads, head_dim, block, pages_per_sequence } = write;
        let &rope::Params { dims, interleaved, .. } = rope;
        let joined = Self { stride, heads, kv_heads, head_dim, block, pages_per_sequence, dims, interleaved };
        (bytemuck::bytes_of(&joined.parts().0) == bytemuck::bytes_of(rope)).then_some(joined)
    }

    /// The two steps that this one is.
    fn parts(&self) -> (rope::Params, kv_blocks::Params) {
        let &Self { stride, heads, kv_heads, head_dim, block, pages_per_sequence, dims, interleaved } = self;
        let rope = rope::Params { stride, offset: 0, heads: heads + kv_heads, head_dim, dims, interleaved };
        (rope, kv_blocks::Params { stride, heads, kv_heads, head_dim, block, pages_per_sequence })
    }
}

/// The home. The last argument is the table of turns.
#[derive(Debug)]
pub struct RopeKvBlocks;

impl Home for RopeKvBlocks {
    type Params = Params;
    const ID: KernelId = KernelId::RopeKvBlocks;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32Mut, ArgKind::U32Mut, ArgKind::U32Mut, ArgKind::F32];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Text(include_str!("../../shaders/part/half_bits.wgsl")),
            Fragment::Kv(KvType::BLOCKS),
            Fragment::Text(include_str!("../../shaders/rope_kv_blocks.wgsl")),
            kv_blocks::BODY,
        ],
        needs: Needs::NOTHING,
    }];

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        KvBlocks::overrides(&p.parts().1, variant)
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.heads + 2 * p.kv_heads, call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [
            Arg::U32(rows),
            Arg::U32(pages),
            Arg::F32Mut(x),
            Arg::U32Mut(keys),
            Arg::U32Mut(values),
            Arg::F32(table),
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
            Arg::F32Mut(&mut rotated),
            Arg::U32Mut(keys),
            Arg::U32Mut(values),
        ];
        KvBlocks::twin(&write, call, form, args);
        let queries = (p.heads * p.head_dim) as usize;
        let both = x.chunks_mut(p.stride as usize).zip(rotated.chunks(p.stride as usize));
        for (x, rotated) in both.take(call.rows as usize) {
            x[..queries].copy_from_slice(&rotated[..queries]);
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let (turn, write) = p.parts();
        let (turn, write) = (Rope::work(&turn, call, form), KvBlocks::work(&write, call, form));
        Work { bytes: turn.bytes + write.bytes, flops: turn.flops + write.flops }
    }

    fn cases() -> Vec<Case> {
        let shape = |heads, kv_heads, head_dim, block, dims, interleaved| Params {
            stride: (heads + 2 * kv_heads) * head_dim + interleaved,
            heads,
            kv_heads,
            head_dim,
            block,
            pages_per_sequence: 3,
            dims,
            interleaved,
        };
        let shapes = [
            (shape(1, 1, 8, 8, 8, 0), vec![(0, 3)]),
            (shape(1, 1, 8, 1, 8, 1), vec![(0, 3)]),
            (shape(3, 1, 10, 2, 6, 0), vec![(0, 31), (0, 32), (1, 33), (2, 0)]),
            (shape(2, 2, 80, 16, 64, 1), vec![(1, 63), (0, 5)]),
            (shape(3, 1, 64, 64, 64, 0), vec![(1, 64), (0, 30), (0, 31)]),
            (shape(4, 2, 128, 1, 64, 0), vec![(2, 7)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        KvType::BLOCKS.iter().copied().flat_map(of_kv).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        let stride = 4 * p.head_dim;
        let small = Params { stride, heads: 2, kv_heads: 1, pages_per_sequence: 3, ..*p };
        form.kv.map(|kv| case(kv, small, &[(1, 64), (0, 31)]))
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
    let args = vec![made::rows(&rows), Data::U32(pages), Data::F32(x), keys, values, Data::F32(table)];
    let call = Call { rows: rows.len() as u32, kv_len: positions };
    let form = Form { kv: Some(kv), ..Form::default() };
    let Params { heads, kv_heads, head_dim, block, dims, interleaved, .. } = params;
    let neighbours = if interleaved == 1 { " in neighbours" } else { "" };
    let name = format!(
        "{heads} + {kv_heads} heads of {head_dim}, {dims} rotated{neighbours}, blocks of {block}, {places:?}"
    );
    Case::of::<RopeKvBlocks>(name, params, call, form, args, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_about_the_same_heads_are_joined() {
        for case in RopeKvBlocks::cases() {
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
