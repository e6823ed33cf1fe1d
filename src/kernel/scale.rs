//! `y[r, offset + i] (+)= x[r, i] · g[i]`: multiplies each row by a vector.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Epilogue, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of g and of a row of x.
    pub width: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where element 0 goes.
    pub y_offset: u32,
}

/// The home.
#[derive(Debug)]
pub struct Scale;

impl Home for Scale {
    type Params = Params;
    const ID: KernelId = KernelId::Scale;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Epilogue, Fragment::Text(include_str!("../../shaders/scale.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(gains), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (r, x) in x.chunks_exact(width).take(call.rows as usize).enumerate() {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..width];
            for ((y, x), gain) in y.iter_mut().zip(x).zip(*gains) {
                *y = finish(form, *y, x * gain);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements + 4.0 * f64::from(p.width), flops: elements }
    }

    fn cases() -> Vec<Case> {
        let shapes = [(3, 1, 3, 0), (1, 2, 1, 0), (64, 3, 100, 7), (65, 2, 65, 0), (576, 2, 600, 24)];
        let each = |shape| [Epilogue::Store, Epilogue::Add].map(|epilogue| case(shape, epilogue));
        shapes.into_iter().flat_map(each).collect()
    }
}

/// What becomes of `y` when the result is `value`.
pub(super) fn finish(form: Form, y: f32, value: f32) -> f32 {
    match form.epilogue {
        Some(Epilogue::Add) => y + value,
        _ => value,
    }
}

fn case((width, rows, y_stride, y_offset): (usize, usize, usize, usize), epilogue: Epilogue) -> Case {
    let mut seed = Seed::new(31);
    let x = made::activations(&mut seed, rows, width, width);
    let gains = seed.vector(width, 2.0);
    let y = seed.vector(rows * y_stride, 1.0);
    // The product is rounded, and its sum with y.
    let tolerance = Tolerance::roundings(2, 1.0 + 2.0 * made::magnitude(&x));
    let params = Params { width: width as u32, y_stride: y_stride as u32, y_offset: y_offset as u32 };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let form = Form { epilogue: Some(epilogue), ..Form::default() };
    let args = vec![Data::F32(x), Data::F32(gains), Data::F32(y)];
    Case::of::<Scale>(format!("{rows} × {width}, {epilogue:?}"), params, call, form, args, tolerance)
}
