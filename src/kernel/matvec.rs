//! `y[r, j] = Σₖ W[j, k] · x[r, k]` for a few rows r: one dot product per output element, the weights read once
//! and decoded in registers. With the epilogue `Add`, the result is added to y.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Epilogue, Form, Fragment, Home, KernelId, Needs, Overrides, Variant, Work, fold,
};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Inner dimension: columns of the matrix.
    pub k: u32,
    /// Outputs: rows of the matrix (of this piece of it).
    pub n: u32,
    /// Elements from one row of x to the next.
    pub x_stride: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where output 0 goes.
    pub y_offset: u32,
    /// `vec4<u32>`s of a row of codes.
    pub code_stride: u32,
    /// u32s of a row of scales.
    pub scale_stride: u32,
}

/// The home.
#[derive(Debug)]
pub struct Matvec;

impl Home for Matvec {
    type Params = Params;
    const ID: KernelId = KernelId::Matvec;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "subgroup",
            fragments: &[
                Fragment::Quant,
                Fragment::Epilogue,
                PRODUCT,
                X_VECTOR,
                Fragment::Text(include_str!("../../shaders/part/reduce_subgroup.wgsl")),
                Fragment::Text(include_str!("../../shaders/matvec_subgroup.wgsl")),
            ],
            needs: Needs::SUBGROUP,
        },
        Variant {
            name: "team",
            fragments: &[Fragment::Quant, Fragment::Epilogue, PRODUCT, X_VECTOR, TEAM],
            needs: Needs::NOTHING,
        },
        Variant {
            name: "thread",
            fragments: &[
                Fragment::Quant,
                Fragment::Epilogue,
                PRODUCT,
                X_VECTOR,
                Fragment::Text(include_str!("../../shaders/matvec_thread.wgsl")),
            ],
            needs: Needs::NOTHING,
        },
        Variant {
            name: "plain",
            fragments: &[Fragment::Quant, Fragment::Epilogue, PRODUCT, X_SCALAR, TEAM],
            needs: Needs::NOTHING,
        },
    ];

    fn suits(p: &Params, variant: &Variant) -> bool {
        variant.name == "plain" || vectors(p)
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        let lanes = ("LANES", f64::from(lanes(p.k)));
        let wg = ("WG", if p.k <= 32 * 32 { 32.0 } else { 64.0 });
        match variant.name {
            "subgroup" => vec![wg, ragged(p)],
            "team" => vec![lanes, ragged(p)],
            "thread" => vec![ragged(p)],
            _ => vec![lanes],
        }
    }

    fn grid(p: &Params, call: Call, variant: &Variant) -> [u32; 3] {
        let outputs = match variant.name {
            "subgroup" => 4,
            "thread" => 64,
            _ => 4 * (64 / lanes(p.k)),
        };
        fold(p.n.div_ceil(outputs), call.rows)
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        product(p, call, form, args);
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let bits = form.format.map_or(32.0, crate::quant::Format::bits_per_weight);
        let (rows, k, n) = (f64::from(call.rows), f64::from(p.k), f64::from(p.n));
        Work { bytes: k * n * bits / 8.0 + 4.0 * rows * (k + n), flops: 2.0 * rows * k * n }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}

const TEAM: Fragment = Fragment::Text(include_str!("../../shaders/matvec.wgsl"));

/// Parameters and bindings of `matvec` and `matmul`.
pub(super) const PRODUCT: Fragment = Fragment::Text(include_str!("../../shaders/part/product.wgsl"));
/// x in vectors, where [`vectors`].
pub(super) const X_VECTOR: Fragment = Fragment::Text(include_str!("../../shaders/part/x_vector.wgsl"));
/// x in elements.
pub(super) const X_SCALAR: Fragment = Fragment::Text(include_str!("../../shaders/part/x_scalar.wgsl"));

/// Whether rows of x are whole vectors.
pub(super) fn vectors(p: &Params) -> bool {
    p.k.is_multiple_of(4) && p.x_stride.is_multiple_of(4)
}

/// For [`X_VECTOR`].
pub(super) fn ragged(p: &Params) -> (&'static str, f64) {
    ("RAGGED", if p.k.is_multiple_of(32) { 0.0 } else { 1.0 })
}

/// Threads of a team of 64 along K: the number that finishes the units with the fewest threads idle, and the
/// largest of such, which reads the longest runs.
fn lanes(k: u32) -> u32 {
    let units = k.div_ceil(32);
    let idle = |lanes: u32| units.div_ceil(lanes) * 64 * 64 / (64 / lanes);
    (1..=64).rev().min_by_key(|&lanes| idle(lanes)).unwrap_or(64)
}

/// The meaning of `matvec` and of `matmul`.
pub(super) fn product(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
    let [Arg::F32(x), Arg::Matrix(matrix), Arg::F32Mut(y)] = args else {
        unreachable!("checked by the caller")
    };
    let (k, n) = (p.k as usize, p.n as usize);
    let mut weights = vec![0.0; k];
    for j in 0..n {
        matrix.decode_row(j, &mut weights);
        for r in 0..call.rows as usize {
            let x = &x[r * p.x_stride as usize..][..k];
            let dot: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize + j];
            *y = match form.epilogue {
                Some(Epilogue::Add) => *y + dot as f32,
                _ => dot as f32,
            };
        }
    }
}
