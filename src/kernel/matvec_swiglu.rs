//! `y[r, j] = silu(Σₖ G[j, k] · x[r, k]) · Σₖ U[j, k] · x[r, k]` for a few rows r: the gated half of the feed-forward
//! network as one step (Shazeer 2020, arXiv 2002.05202). The rows of the gate matrix G and of the up matrix U stand
//! one after the other in one matrix of 2n rows.

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Overrides, REPRESENTATIVES,
    Tolerance, Variant, Work, made, matvec,
};
use crate::base::Seed;
use crate::quant::Format;

pub use super::matvec::Params;

const STORE: Fragment = Fragment::Text(include_str!("../../shaders/part/epilogue_store.wgsl"));
const OUTPUTS: Fragment = Fragment::Text(include_str!("../../shaders/matvec_swiglu.wgsl"));

/// The home. `n` of the parameters is the number of outputs, half the rows of the matrix.
#[derive(Debug)]
pub struct MatvecSwiglu;

impl Home for MatvecSwiglu {
    type Params = Params;
    const ID: KernelId = KernelId::MatvecSwiglu;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = matvec::variants!(STORE, OUTPUTS);

    fn suits(p: &Params, variant: &Variant) -> bool {
        variant.name == "plain" || matvec::vectors(p)
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        matvec::overrides(p, variant)
    }

    fn grid(p: &Params, call: Call, variant: &Variant) -> [u32; 3] {
        matvec::grid(p, call, variant, 2)
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::Matrix(matrix), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        for (r, dots) in matvec::dots(matrix, &matvec::rows_of(p, call, x)).into_iter().enumerate() {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..p.n as usize];
            let (gates, ups) = dots.split_at(p.n as usize);
            for ((y, gate), up) in y.iter_mut().zip(gates).zip(ups) {
                *y = (gate / (1.0 + (-gate).exp()) * up) as f32;
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let bits = form.format.map_or(32.0, crate::quant::Format::bits_per_weight);
        let (rows, k, n) = (f64::from(call.rows), f64::from(p.k), f64::from(p.n));
        Work { bytes: 2.0 * k * n * bits / 8.0 + 4.0 * rows * (k + n), flops: (4.0 * k + 5.0) * rows * n }
    }

    fn cases() -> Vec<Case> {
        let each = |format| {
            [
                case(format, 1, 33, 5, 0),
                case(format, 1, 1, 1, 0),
                case(format, 3, 172, 7, 3),
                case(format, 2, 172, 65, 4),
                case(format, 1, 576, 130, 0),
            ]
        };
        let others = matvec::others().map(|format| case(format, 2, 172, 5, 4));
        REPRESENTATIVES.into_iter().flat_map(each).chain(others).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        form.format.map(|format| case(format, 2, p.k as usize, p.n.min(70) as usize, matvec::spare(p)))
    }
}

/// `spare` elements stand behind each row of x and around each of y; `k` is rounded up to whole blocks.
fn case(format: Format, rows: usize, k: usize, n: usize, spare: usize) -> Case {
    let k = k.next_multiple_of(format.block_len());
    let mut seed = Seed::new((rows * n + k) as u64);
    let (x_stride, y_stride) = (k + spare, n + 2 * spare);
    let x = made::activations(&mut seed, rows, k, x_stride);
    let matrix = made::matrix(&mut seed, format, 2 * n, k);
    let y = seed.vector(rows * y_stride, 1.0);

    let mut weights = vec![0.0; k];
    let norms = (0..2 * n).map(|j| {
        matrix.decode_row(j, &mut weights);
        made::largest_norm(&weights, k, k)
    });
    let Tolerance(dot) = Tolerance::dot(norms.fold(0.0, f32::max), made::largest_norm(&x, k, x_stride));
    let x_rows: Vec<&[f32]> = x.chunks_exact(x_stride).map(|x| &x[..k]).collect();
    let dots = matvec::dots(&matrix, &x_rows);
    let largest = dots.iter().flatten().fold(0.0, |largest, dot| f64::max(largest, dot.abs())) as f32;
    // |silu(g)| ≤ |g| and its slope stays below 1.1; of exp and the quotient see `swiglu`.
    let tolerance = Tolerance(2.1 * dot * largest.max(1.0))
        .and(Tolerance::roundings(8, largest * largest.max(1.0)))
        .and(Tolerance::roundings(2, 1.0));
    let params = Params {
        k: k as u32,
        n: n as u32,
        x_stride: x_stride as u32,
        y_stride: y_stride as u32,
        y_offset: spare as u32,
        code_stride: (format.code_words(k) / 4) as u32,
        scale_stride: format.scale_words(k) as u32,
    };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let form = Form { format: Some(format), ..Form::default() };
    let args = vec![Data::F32(x), Data::Matrix(matrix), Data::F32(y)];
    Case::of::<MatvecSwiglu>(
        format!("{rows} × {k} to {n}, {spare} spare"),
        params,
        call,
        form,
        args,
        tolerance,
    )
}
