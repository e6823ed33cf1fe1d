//! `x[r, h, i] = x[r, h, i] · g[h, i] / sqrt(mean(x[r, h, :]²) + ε)`, in place: root-mean-square normalisation of each head
//! of queries and keys (Henry et al. 2020, arXiv 2010.04245; with the norm of arXiv 1910.07467), which stand side by
//! side at the beginning of a row. Heads of queries have the first gain, heads of keys the second.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Overrides, Tolerance, Variant,
    Work, made, rms_norm,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of x to the next.
    pub stride: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// ε.
    pub epsilon: f32,
}

const BODY: Fragment = Fragment::Text(include_str!("../../shaders/head_norm.wgsl"));

/// The home. The gains are `(2, head_dim)`.
#[derive(Debug)]
pub struct HeadNorm;

impl Home for HeadNorm {
    type Params = Params;
    const ID: KernelId = KernelId::HeadNorm;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "subgroup",
            fragments: &[Fragment::Text(include_str!("../../shaders/part/reduce_subgroup.wgsl")), BODY],
            needs: Needs::SUBGROUP,
        },
        Variant {
            name: "plain",
            fragments: &[Fragment::Text(include_str!("../../shaders/part/reduce_plain.wgsl")), BODY],
            needs: Needs::NOTHING,
        },
    ];

    fn overrides(_p: &Params, variant: &Variant) -> Overrides {
        match variant.name {
            "subgroup" => vec![("WG", 32.0)],
            _ => Vec::new(),
        }
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.heads + p.kv_heads, call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(gains), Arg::F32Mut(x)] = args else { unreachable!("checked by the caller") };
        let (head_dim, heads) = (p.head_dim as usize, (p.heads + p.kv_heads) as usize);
        let (of_queries, of_keys) = gains.split_at(head_dim);
        let norm = rms_norm::Params { width: p.head_dim, epsilon: p.epsilon };
        for row in x.chunks_mut(p.stride as usize).take(call.rows as usize) {
            for (head, x) in row.chunks_exact_mut(head_dim).take(heads).enumerate() {
                let gain = if head < p.heads as usize { of_queries } else { of_keys };
                let before = x.to_vec();
                rms_norm::norm(&norm, &before, gain, x);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.heads + p.kv_heads) * f64::from(p.head_dim);
        Work { bytes: 8.0 * elements, flops: 4.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(1, 1, 8, 0, 1), (2, 1, 1, 0, 2), (3, 1, 65, 5, 2), (16, 8, 128, 0, 2), (4, 1, 256, 3, 1)]
            .map(case)
            .into()
    }
}

/// `spare` elements stand behind the values of each row.
fn case((heads, kv_heads, head_dim, spare, rows): (u32, u32, u32, u32, usize)) -> Case {
    let mut seed = Seed::new(12);
    let stride = (heads + 2 * kv_heads) * head_dim + spare;
    let x = made::activations(&mut seed, rows, stride as usize, stride as usize);
    let gains = seed.vector(2 * head_dim as usize, 2.0);
    // No element is larger than the root of their number times its gain; the roundings are those of `rms_norm`.
    let additions = head_dim.div_ceil(32) + 64;
    let tolerance = Tolerance::roundings(10 + additions / 4, 2.0 * (head_dim as f32).sqrt());
    let params = Params { stride, heads, kv_heads, head_dim, epsilon: 1e-5 };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(gains), Data::F32(x)];
    let name = format!("{rows} rows of {heads} + {kv_heads} heads of {head_dim}, {spare} spare");
    Case::of::<HeadNorm>(name, params, call, Form::default(), args, tolerance)
}
