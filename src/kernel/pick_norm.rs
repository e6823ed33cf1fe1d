//! `pick` and `rms_norm` as one step: the rows whose logits are wanted, normalised.

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Overrides, Variant, Work, made,
    rms_norm,
};
use crate::base::Seed;

pub use super::rms_norm::Params;

const PICKED: Fragment = Fragment::Text(include_str!("../../shaders/pick_norm.wgsl"));
const STORE: Fragment = Fragment::Text(include_str!("../../shaders/part/epilogue_store.wgsl"));

/// The home. The last argument lists the rows of x.
#[derive(Debug)]
pub struct PickNorm;

impl Home for PickNorm {
    type Params = Params;
    const ID: KernelId = KernelId::PickNorm;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut, ArgKind::U32];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "subgroup",
            fragments: &[
                Fragment::Text(include_str!("../../shaders/part/reduce_subgroup.wgsl")),
                PICKED,
                STORE,
                rms_norm::BODY,
            ],
            needs: Needs::SUBGROUP,
        },
        Variant {
            name: "plain",
            fragments: &[
                Fragment::Text(include_str!("../../shaders/part/reduce_plain.wgsl")),
                PICKED,
                STORE,
                rms_norm::BODY,
            ],
            needs: Needs::NOTHING,
        },
    ];

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        rms_norm::overrides(p, variant)
    }

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(gain), Arg::F32Mut(y), Arg::U32(wanted)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (&row, y) in wanted.iter().zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            rms_norm::norm(p, &x[row as usize * width..][..width], gain, y);
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        rms_norm::RmsNorm::work(p, call, form)
    }

    fn cases() -> Vec<Case> {
        [(8, vec![1]), (1, vec![4, 0]), (65, vec![2, 2, 0]), (576, vec![3]), (2048, vec![4, 1])]
            .map(case)
            .into()
    }

    fn probe(p: &Params, _form: Form) -> Option<Case> {
        Some(case((p.width as usize, vec![4, 1])))
    }
}

/// `wanted` of five rows.
fn case((width, wanted): (usize, Vec<u32>)) -> Case {
    let mut seed = Seed::new(3);
    let x = made::activations(&mut seed, 5, width, width);
    let gain = seed.vector(width, 2.0);
    let tolerance = rms_norm::tolerance(&x, width, 5);
    let y = seed.vector(wanted.len() * width, 1.0);
    let call = Call { rows: wanted.len() as u32, kv_len: 1 };
    let name = format!("{wanted:?} of {width}");
    let args = vec![Data::F32(x), Data::F32(gain), Data::F32(y), Data::U32(wanted)];
    let params = Params { width: width as u32, epsilon: 1e-5 };
    Case::of::<PickNorm>(name, params, call, Form::default(), args, tolerance)
}
