//! `y[r, offset + i·n + a] (+)= Σ_t Σ_j F[t, i, j] · v[r, j, t, a]`: the small factors of a sum of Kronecker products,
//! behind the large ones. The parts x_j of a row have been multiplied with the matrices of all terms, row after row:
//! `v[r, j, t, :] = W_t · x_j` of n elements; so y = (Σ_t F_t ⊗ W_t) · x, whose parts y_i follow one another too.

use bytemuck::{Pod, Zeroable};

use super::scale::finish;
use super::{
    Arg, ArgKind, Call, Case, Data, Epilogue, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// n: elements of a part of y.
    pub width: u32,
    /// Matrices that are summed.
    pub terms: u32,
    /// Parts of y.
    pub y_parts: u32,
    /// Parts of x.
    pub x_parts: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where element 0 goes.
    pub y_offset: u32,
}

/// The home. The second argument is F.
#[derive(Debug)]
pub struct Kronecker;

impl Home for Kronecker {
    type Params = Params;
    const ID: KernelId = KernelId::Kronecker;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Epilogue, Fragment::Text(include_str!("../../shaders/kronecker.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [(p.y_parts * p.width).div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(v), Arg::F32(factors), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let [width, terms, y_parts, x_parts] =
            [p.width, p.terms, p.y_parts, p.x_parts].map(|count| count as usize);
        for (r, v) in v.chunks_exact(x_parts * terms * width).take(call.rows as usize).enumerate() {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..y_parts * width];
            for (at, y) in y.iter_mut().enumerate() {
                let (i, a) = (at / width, at % width);
                let mut sum = 0.0;
                for (t, j) in (0..terms).flat_map(|t| (0..x_parts).map(move |j| (t, j))) {
                    let factor = factors[(t * y_parts + i) * x_parts + j];
                    sum += f64::from(factor) * f64::from(v[(j * terms + t) * width + a]);
                }
                *y = finish(form, *y, sum as f32);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let [width, terms, y_parts, x_parts] = [p.width, p.terms, p.y_parts, p.x_parts].map(f64::from);
        let elements = f64::from(call.rows) * width;
        Work {
            bytes: 4.0 * elements * (x_parts * terms + y_parts),
            flops: 2.0 * elements * terms * y_parts * x_parts,
        }
    }

    fn cases() -> Vec<Case> {
        use Epilogue::{Add, Store};
        vec![
            case([3, 2, 2, 3], 2, 0, Store),
            case([1, 1, 1, 1], 1, 0, Store),
            case([5, 3, 7, 2], 3, 4, Add),
            case([64, 1, 3, 3], 1, 0, Add),
            // TQCompressedGPT-2's: up and down.
            case([768, 4, 4, 2], 2, 0, Store),
            case([384, 4, 2, 4], 1, 8, Add),
        ]
    }
}

fn case([width, terms, y_parts, x_parts]: [usize; 4], rows: usize, spare: usize, epilogue: Epilogue) -> Case {
    let mut seed = Seed::new(34);
    let between = x_parts * terms * width;
    let v = made::activations(&mut seed, rows, between, between);
    let factors = seed.vector(terms * y_parts * x_parts, 1.0);
    let y_stride = y_parts * width + 2 * spare;
    let y = seed.vector(rows * y_stride, 1.0);
    // The factors of an output are at most 1 each; it is rounded, and so is its sum with y.
    let (count, magnitude) = ((terms * x_parts) as f32, made::magnitude(&v));
    let tolerance = Tolerance::dot(count.sqrt(), count.sqrt() * magnitude)
        .and(Tolerance::roundings(2, 1.0 + count * magnitude));
    let [width, terms, y_parts, x_parts, y_stride, y_offset] =
        [width, terms, y_parts, x_parts, y_stride, spare].map(|n| n as u32);
    let params = Params { width, terms, y_parts, x_parts, y_stride, y_offset };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let form = Form { epilogue: Some(epilogue), ..Form::default() };
    let args = vec![Data::F32(v), Data::F32(factors), Data::F32(y)];
    let name = format!("{terms} of {y_parts} × {x_parts} by {width}, {epilogue:?}");
    Case::of::<Kronecker>(name, params, call, form, args, tolerance)
}
