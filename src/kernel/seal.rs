//! `seal[0] = nonce`: the last thing that a submission does. A queue may call a submission finished that a driver gave up
//! (Metal's command buffers end with an error that wgpu does not look at); the nonce tells whether it came to its end.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work,
};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// What no submission before had.
    pub nonce: u32,
}

/// The home.
#[derive(Debug)]
pub struct Seal;

impl Home for Seal {
    type Params = Params;
    const ID: KernelId = KernelId::Seal;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/seal.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, _call: Call, _variant: &Variant) -> [u32; 3] {
        [1, 1, 1]
    }

    fn twin(p: &Params, _call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32Mut(seal)] = args else { unreachable!("checked by the caller") };
        seal[0] = p.nonce;
    }

    fn work(_p: &Params, _call: Call, _form: Form) -> Work {
        Work { bytes: 4.0, flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        let case = |(name, nonce): (&str, u32)| {
            let call = Call { rows: 1, kv_len: 1 };
            let args = vec![Data::U32(vec![7, 8])];
            Case::of::<Seal>(name, Params { nonce }, call, Form::default(), args, Tolerance::EXACT)
        };
        [("the first", 1), ("the last", u32::MAX)].map(case).into()
    }
}
