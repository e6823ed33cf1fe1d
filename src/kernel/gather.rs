//! `y[r, offset + i] (+)= x[r, order[i]]`: elements of each row in another order. An element may be taken more than once,
//! or never.

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
    /// Elements taken.
    pub width: u32,
    /// Elements of a row of x.
    pub x_stride: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where element 0 goes.
    pub y_offset: u32,
}

/// The home. The order is of whole numbers below 2²⁴ in f32, each below `x_stride`.
#[derive(Debug)]
pub struct Gather;

impl Home for Gather {
    type Params = Params;
    const ID: KernelId = KernelId::Gather;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Epilogue, Fragment::Text(include_str!("../../shaders/gather.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(order), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        for (r, x) in x.chunks_exact(p.x_stride as usize).take(call.rows as usize).enumerate() {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..p.width as usize];
            for (y, from) in y.iter_mut().zip(*order) {
                *y = finish(form, *y, x[*from as usize]);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements + 4.0 * f64::from(p.width), flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        let shapes = [(3, 1, 3, 0), (1, 2, 1, 0), (64, 3, 100, 7), (65, 2, 65, 0), (576, 2, 600, 24)];
        let each = |shape| [Epilogue::Store, Epilogue::Add].map(|epilogue| case(shape, epilogue));
        shapes.into_iter().flat_map(each).collect()
    }
}

fn case((width, rows, y_stride, y_offset): (usize, usize, usize, usize), epilogue: Epilogue) -> Case {
    let mut seed = Seed::new(32);
    let x_stride = width + width / 3;
    let x = made::activations(&mut seed, rows, x_stride, x_stride);
    let order = (0..width).map(|_| seed.below(x_stride as u64) as f32).collect();
    let y = seed.vector(rows * y_stride, 1.0);
    let tolerance = match epilogue {
        Epilogue::Store => Tolerance::EXACT,
        Epilogue::Add => Tolerance::roundings(1, 1.0 + made::magnitude(&x)),
    };
    let [width, x_stride, y_stride, y_offset] = [width, x_stride, y_stride, y_offset].map(|n| n as u32);
    let params = Params { width, x_stride, y_stride, y_offset };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let form = Form { epilogue: Some(epilogue), ..Form::default() };
    let args = vec![Data::F32(x), Data::F32(order), Data::F32(y)];
    Case::of::<Gather>(format!("{width} of {x_stride}, {epilogue:?}"), params, call, form, args, tolerance)
}
