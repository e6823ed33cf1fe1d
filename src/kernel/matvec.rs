//! `y[r, j] = Σₖ W[j, k] · x[r, k]` for a few rows r: one dot product per output element, the weights read once
//! and decoded in registers. With the epilogue `Add`, the result is added to y. Variants named `_i8` and `_f16` multiply
//! whole numbers with x rounded to 16 bits or to f16, a unit of 32 at a time, each with a step of its own.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Epilogue, FOLD, Form, Fragment, Home, KernelId, Needs, Overrides,
    REPRESENTATIVES, Tolerance, Variant, Work, fold, made,
};
use crate::base::Seed;
use crate::quant::{Format, Matrix};

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

/// The variants of `matvec` and of `matvec_swiglu`, which differ in the epilogue and in what sums become: the bodies with
/// units of f32, and those with units that round what they multiply.
macro_rules! variants {
    ($epilogue:expr, $outputs:expr) => {{
        use Fragment::{Codes, Quant};
        use $crate::kernel::matvec::{
            CODES, HALF, PRODUCT, SUBGROUP, SUMS, TEAM, THREAD, UNIT_F16, UNIT_F32, UNIT_I8, X_SCALAR,
            X_TOGETHER, X_VECTOR,
        };
        &[
            Variant {
                name: "subgroup",
                fragments: &[Quant, UNIT_F32, $epilogue, $outputs, PRODUCT, X_VECTOR, SUMS, SUBGROUP],
                needs: Needs::SUBGROUP,
            },
            Variant {
                name: "team",
                fragments: &[Quant, UNIT_F32, $epilogue, $outputs, PRODUCT, X_VECTOR, TEAM],
                needs: Needs::NOTHING,
            },
            Variant {
                name: "thread",
                fragments: &[Quant, UNIT_F32, $epilogue, $outputs, PRODUCT, X_VECTOR, X_TOGETHER, THREAD],
                needs: Needs::SUBGROUP_OF_8,
            },
            Variant {
                name: "subgroup_i8",
                fragments: &[Codes, CODES, UNIT_I8, $epilogue, $outputs, PRODUCT, X_VECTOR, SUMS, SUBGROUP],
                needs: Needs::SUBGROUP_I8,
            },
            Variant {
                name: "subgroup_f16",
                fragments: &[
                    HALF, Codes, CODES, UNIT_F16, $epilogue, $outputs, PRODUCT, X_VECTOR, SUMS, SUBGROUP,
                ],
                needs: Needs::SUBGROUP_F16,
            },
            Variant {
                name: "team_i8",
                fragments: &[Codes, CODES, UNIT_I8, $epilogue, $outputs, PRODUCT, X_VECTOR, TEAM],
                needs: Needs::I8,
            },
            Variant {
                name: "team_f16",
                fragments: &[HALF, Codes, CODES, UNIT_F16, $epilogue, $outputs, PRODUCT, X_VECTOR, TEAM],
                needs: Needs::F16,
            },
            Variant {
                name: "plain",
                fragments: &[Quant, UNIT_F32, $epilogue, $outputs, PRODUCT, X_SCALAR, TEAM],
                needs: Needs::NOTHING,
            },
        ]
    }};
}
pub(super) use variants;

/// The home.
#[derive(Debug)]
pub struct Matvec;

impl Home for Matvec {
    type Params = Params;
    const ID: KernelId = KernelId::Matvec;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = variants!(Fragment::Epilogue, OUTPUTS);

    fn suits(p: &Params, variant: &Variant) -> bool {
        variant.name == "plain" || vectors(p)
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        overrides(p, variant)
    }

    fn grid(p: &Params, call: Call, variant: &Variant) -> [u32; 3] {
        grid(p, call, variant, 4)
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
        let each = REPRESENTATIVES.into_iter().flat_map(|format| {
            [
                Shape { format, rows: 1, k: 33, n: 5, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 1, k: 1, n: 1, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 3, k: 172, n: 7, spare: 3, epilogue: Epilogue::Add },
                Shape { format, rows: 2, k: 172, n: 65, spare: 4, epilogue: Epilogue::Store },
                Shape { format, rows: 1, k: 576, n: 129, spare: 0, epilogue: Epilogue::Add },
                Shape { format, rows: 8, k: 2048, n: 67, spare: 8, epilogue: Epilogue::Store },
            ]
        });
        let tall = |n, k| Shape { format: Format::Q4_0, rows: 1, k, n, spare: 0, epilogue: Epilogue::Store };
        // The outputs of a vocabulary, and so many that the workgroups fold.
        let tall = [tall(49152, 64), tall(4 * FOLD as usize + 9, 32)];
        let others = others().flat_map(|format| {
            [
                Shape { format, rows: 1, k: 172, n: 5, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 3, k: 172, n: 7, spare: 4, epilogue: Epilogue::Add },
            ]
        });
        each.chain(tall).chain(others).map(|shape| shape.case::<Self>()).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        Shape::like(p, form, 2).map(|shape| shape.case::<Self>())
    }
}

/// The formats beside [`REPRESENTATIVES`].
pub(super) fn others() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| !REPRESENTATIVES.contains(format))
}

/// The bodies, and how the first adds.
pub(super) const SUBGROUP: Fragment = Fragment::Text(include_str!("../../shaders/matvec_subgroup.wgsl"));
pub(super) const TEAM: Fragment = Fragment::Text(include_str!("../../shaders/matvec.wgsl"));
pub(super) const THREAD: Fragment = Fragment::Text(include_str!("../../shaders/matvec_thread.wgsl"));
pub(super) const SUMS: Fragment = Fragment::Text(include_str!("../../shaders/part/reduce_subgroup.wgsl"));

/// Which rows of the weights a thread multiplies with, and what their sums become: an output each.
pub(super) const OUTPUTS: Fragment = Fragment::Text(include_str!("../../shaders/part/outputs.wgsl"));
/// Parameters and bindings of `matvec` and `matmul`, behind [`OUTPUTS`].
pub(super) const PRODUCT: Fragment = Fragment::Text(include_str!("../../shaders/part/product.wgsl"));
/// x in vectors, where [`vectors`].
pub(super) const X_VECTOR: Fragment = Fragment::Text(include_str!("../../shaders/part/x_vector.wgsl"));
/// Units of x that a subgroup fetches together, behind [`X_VECTOR`].
pub(super) const X_TOGETHER: Fragment = Fragment::Text(include_str!("../../shaders/part/x_together.wgsl"));
/// Units of 32 as they are, for formats with codes as whole numbers behind [`CODES`], or as f16 behind [`HALF`] and it.
pub(super) const UNIT_F32: Fragment = Fragment::Text(include_str!("../../shaders/part/unit_f32.wgsl"));
pub(super) const UNIT_I8: Fragment = Fragment::Text(include_str!("../../shaders/part/unit_i8.wgsl"));
pub(super) const UNIT_F16: Fragment = Fragment::Text(include_str!("../../shaders/part/unit_f16.wgsl"));
pub(super) const CODES: Fragment = Fragment::Text(include_str!("../../shaders/part/codes.wgsl"));
pub(super) const HALF: Fragment = Fragment::Text(include_str!("../../shaders/part/half.wgsl"));
/// x in elements.
pub(super) const X_SCALAR: Fragment = Fragment::Text(include_str!("../../shaders/part/x_scalar.wgsl"));

/// Whether rows of x are whole vectors.
pub(super) fn vectors(p: &Params) -> bool {
    p.k.is_multiple_of(4) && p.x_stride.is_multiple_of(4)
}

/// Elements behind each row of x that leave it in vectors where it is.
pub(super) fn spare(p: &Params) -> usize {
    if vectors(p) { 4 } else { 3 }
}

/// The name of a variant without that of its units.
fn body(variant: &Variant) -> &str {
    variant.name.split('_').next().unwrap_or_default()
}

/// For each variant of `matvec` and of `matvec_swiglu`.
pub(super) fn overrides(p: &Params, variant: &Variant) -> Overrides {
    let lanes = ("LANES", f64::from(lanes(p.k)));
    let wg = ("WG", if p.k <= 32 * 32 { 32.0 } else { 64.0 });
    match body(variant) {
        "subgroup" => vec![wg, ragged(p)],
        "team" => vec![lanes, ragged(p)],
        "thread" => vec![ragged(p)],
        _ => vec![lanes],
    }
}

/// Workgroups for each variant of `matvec` and of `matvec_swiglu`, in which a thread has `outputs` outputs.
pub(super) fn grid(p: &Params, call: Call, variant: &Variant, outputs: u32) -> [u32; 3] {
    // With units that are rounded, two of each: what rounding costs is shared.
    let sets = if variant.needs.rounding { 2 } else { 1 };
    let of_group = match body(variant) {
        "subgroup" => sets * outputs,
        "thread" => 64,
        _ => sets * outputs * (64 / lanes(p.k)),
    };
    fold(p.n.div_ceil(of_group), call.rows)
}

/// For [`X_VECTOR`].
pub(super) fn ragged(p: &Params) -> (&'static str, f64) {
    ("RAGGED", if p.k.is_multiple_of(32) { 0.0 } else { 1.0 })
}

/// Threads of a team along K, 8 to 64 of the 64 in a workgroup: the number that leaves the fewest idle, and the
/// largest of such, which reads the longest runs.
pub(super) fn lanes(k: u32) -> u32 {
    let units = k.div_ceil(32);
    let idle = |lanes: u32| units.div_ceil(lanes) * 64 * 64 / (64 / lanes);
    (8..=64).rev().min_by_key(|&lanes| idle(lanes)).unwrap_or(64)
}

/// The meaning of `matvec` and of `matmul`.
pub(super) fn product(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
    let [Arg::F32(x), Arg::Matrix(matrix), Arg::F32Mut(y)] = args else {
        unreachable!("checked by the caller")
    };
    for (r, dots) in dots(matrix, &rows_of(p, call, x)).into_iter().enumerate() {
        let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..p.n as usize];
        for (y, dot) in y.iter_mut().zip(dots) {
            *y = match form.epilogue {
                Some(Epilogue::Add) => *y + dot as f32,
                _ => dot as f32,
            };
        }
    }
}

/// The rows of x.
pub(super) fn rows_of<'a>(p: &Params, call: Call, x: &'a [f32]) -> Vec<&'a [f32]> {
    (0..call.rows as usize).map(|r| &x[r * p.x_stride as usize..][..p.k as usize]).collect()
}

/// For each of `rows` its product with each row of `matrix`, which is decoded once.
pub(super) fn dots(matrix: &Matrix, rows: &[&[f32]]) -> Vec<Vec<f64>> {
    let mut weights = vec![0.0; matrix.cols()];
    let mut found = vec![vec![0.0; matrix.rows()]; rows.len()];
    for j in 0..matrix.rows() {
        matrix.decode_row(j, &mut weights);
        for (x, found) in rows.iter().zip(&mut found) {
            found[j] = weights.iter().zip(*x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        }
    }
    found
}

/// The shape of a case of `matvec` or `matmul`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) format: Format,
    pub(super) rows: usize,
    /// Rounded up to whole blocks of the format.
    pub(super) k: usize,
    pub(super) n: usize,
    /// Elements behind each row of x and around each of y.
    pub(super) spare: usize,
    pub(super) epilogue: Epilogue,
}

impl Shape {
    /// `rows` rows as long as those of a step, and as few outputs as are several workgroups for each variant.
    pub(super) fn like(p: &Params, form: Form, rows: usize) -> Option<Self> {
        let (format, epilogue) = (form.format?, form.epilogue?);
        Some(Self { format, rows, k: p.k as usize, n: p.n.min(70) as usize, spare: spare(p), epilogue })
    }

    pub(super) fn case<H: Home<Params = Params>>(self) -> Case {
        let Self { format, rows, n, spare, epilogue, .. } = self;
        let k = self.k.next_multiple_of(format.block_len());
        let mut seed = Seed::new((rows * n + k) as u64);
        let (x_stride, y_stride, y_offset) = (k + spare, n + 2 * spare, spare);
        let x = made::activations(&mut seed, rows, k, x_stride);
        let matrix = made::matrix(&mut seed, format, n, k);
        let y = seed.vector(rows * y_stride, 1.0);
        let mut weights = vec![0.0; k];
        let mut norm_of = |j| {
            matrix.decode_row(j, &mut weights);
            made::largest_norm(&weights, k, k)
        };
        // One row in a hundred speaks for the others of a large matrix, with a margin of two.
        let w_norm = (0..n).step_by(n.div_ceil(500)).map(&mut norm_of).fold(0.0, f32::max) * 2.0;
        let x_norm = made::largest_norm(&x, k, x_stride);
        // The result is rounded once more, and so is its sum with y.
        let tolerance = Tolerance::dot(w_norm, x_norm).and(Tolerance::roundings(2, 1.0));
        let params = Params {
            k: k as u32,
            n: n as u32,
            x_stride: x_stride as u32,
            y_stride: y_stride as u32,
            y_offset: y_offset as u32,
            code_stride: (format.code_words(k) / 4) as u32,
            scale_stride: format.scale_words(k) as u32,
        };
        let call = Call { rows: rows as u32, kv_len: 1 };
        let form = Form { format: Some(format), kv: None, epilogue: Some(epilogue) };
        let args = vec![Data::F32(x), Data::Matrix(matrix), Data::F32(y)];
        Case::of::<H>(format!("{rows} × {k} to {n}, {spare} spare"), params, call, form, args, tolerance)
    }
}
