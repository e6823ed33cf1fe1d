//! `y[r, :] = x[index(r), :]`: gathers the rows whose logits are wanted, before the last norm and the head.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Pick;

impl Home for Pick {
    type Params = Params;
    const ID: KernelId = KernelId::Pick;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/pick.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(index), Arg::F32(x), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (&index, y) in index.iter().zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            y.copy_from_slice(&x[index as usize * width..][..width]);
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        Work { bytes: 8.0 * f64::from(call.rows) * f64::from(p.width), flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        [(3, vec![1]), (1, vec![4, 0]), (64, vec![2, 2, 0]), (65, vec![3]), (576, vec![4, 1])]
            .map(case)
            .into()
    }
}

/// `index` of five rows.
fn case((width, index): (usize, Vec<u32>)) -> Case {
    let mut seed = Seed::new(5);
    let x = made::activations(&mut seed, 5, width, width);
    let y = seed.vector(index.len() * width, 1.0);
    let call = Call { rows: index.len() as u32, kv_len: 1 };
    let name = format!("{index:?} of {width}");
    let args = vec![Data::U32(index), Data::F32(x), Data::F32(y)];
    Case::of::<Pick>(name, Params { width: width as u32 }, call, Form::default(), args, Tolerance::EXACT)
}
