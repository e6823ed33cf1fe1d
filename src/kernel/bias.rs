//! `y[r, offset + i] += b[i]`: adds a vector to each row.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of b.
    pub width: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where element 0 goes.
    pub y_offset: u32,
}

/// The home.
#[derive(Debug)]
pub struct Bias;

impl Home for Bias {
    type Params = Params;
    const ID: KernelId = KernelId::Bias;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/bias.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(bias), Arg::F32Mut(y)] = args else { unreachable!("checked by the caller") };
        for r in 0..call.rows as usize {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..p.width as usize];
            y.iter_mut().zip(*bias).for_each(|(y, bias)| *y += bias);
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements + 4.0 * f64::from(p.width), flops: elements }
    }

    fn cases() -> Vec<Case> {
        [(3, 1, 3, 0), (1, 2, 1, 0), (64, 3, 100, 7), (65, 2, 65, 0), (960, 2, 1000, 40)].map(case).into()
    }
}

fn case((width, rows, y_stride, y_offset): (usize, usize, usize, usize)) -> Case {
    let mut seed = Seed::new(3);
    let bias = made::activations(&mut seed, 1, width, width);
    let y = made::activations(&mut seed, rows, y_stride, y_stride);
    let params = Params { width: width as u32, y_stride: y_stride as u32, y_offset: y_offset as u32 };
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(bias), Data::F32(y)];
    let name = format!("{rows} × {width} at {y_offset} of {y_stride}");
    // One sum, rounded correctly everywhere.
    Case::of::<Bias>(name, params, call, Form::default(), args, Tolerance::EXACT)
}
