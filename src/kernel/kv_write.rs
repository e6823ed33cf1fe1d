//! Writes each row's keys and values, columns `k_offset ..` and `v_offset ..` of x, to the page and slot of its
//! sequence and position (see the module's page for the layout).

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, KvType, Needs, ROW_WORDS, Variant, Work, kv_at,
};

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
        fragments: &[Fragment::Kv, Fragment::Text(include_str!("../../shaders/kv_write.wgsl"))],
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
                let at = kv_at(pages, p.pages_per_sequence, row[2], row[1], head, p.kv_heads, p.head_dim);
                for i in 0..p.head_dim as usize {
                    let column = r * p.stride as usize + (head * p.head_dim) as usize + i;
                    kv.set(keys, at + i, x[column + p.k_offset as usize]);
                    kv.set(values, at + i, x[column + p.v_offset as usize]);
                }
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let elements = 2.0 * f64::from(call.rows) * f64::from(p.kv_heads) * f64::from(p.head_dim);
        Work {
            bytes: elements * (4.0 + 4.0 * form.kv.map_or(1.0, |kv| kv.words(2) as f64 / 2.0)),
            flops: 0.0,
        }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
