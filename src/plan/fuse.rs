//! Steps that a GPU computes as one: fewer dispatches, and less of the memory between them.
//!
//! A pair of neighbouring steps is joined where a kernel exists that is both. What the first wrote for the second alone
//! is then never written: [`join`] is only for plans in which nothing else reads it.

use crate::kernel::{
    Epilogue, Form, Home, KernelId, MatvecSwiglu, PickNorm, RopeKv, kv_write, matvec, pick, rms_norm, rope,
    rope_kv, swiglu,
};

use super::{Operand, Step};

/// The step that is `first` and then `second`, if there is one.
pub(super) fn join(first: &Step, second: &Step) -> Option<Step> {
    if first.extent != second.extent {
        return None;
    }
    match (first.kernel, second.kernel) {
        (KernelId::Matvec, KernelId::Swiglu) => gated_product(first, second),
        (KernelId::Rope, KernelId::KvWrite) => rotated_keys(first, second),
        (KernelId::Pick, KernelId::RmsNorm) => picked_norm(first, second),
        _ => None,
    }
}

fn gated_product(product: &Step, gate: &Step) -> Option<Step> {
    let wide: matvec::Params = bytemuck::pod_read_unaligned(&product.params);
    let swiglu::Params { width } = bytemuck::pod_read_unaligned(&gate.params);
    let (&[x, matrix, between], &[read, y]) = (product.args.as_slice(), gate.args.as_slice()) else {
        return None;
    };
    // The matrix whole, not a piece of it, into a temp that begins with it.
    let is_whole = wide.n == 2 * width && wide.y_stride == wide.n && wide.y_offset == 0;
    let is_between = between == read && matches!(between, Operand::Temp(_));
    if !is_whole || !is_between || product.form.epilogue != Some(Epilogue::Store) {
        return None;
    }
    let params = matvec::Params { n: width, y_stride: width, ..wide };
    let form = Form { epilogue: None, ..product.form };
    Some(step::<MatvecSwiglu>(product, gate, params, form, vec![x, matrix, y]))
}

fn rotated_keys(rotation: &Step, write: &Step) -> Option<Step> {
    let turn: rope::Params = bytemuck::pod_read_unaligned(&rotation.params);
    let put: kv_write::Params = bytemuck::pod_read_unaligned(&write.params);
    let (&[rows, table, x], &[rows_too, pages, x_too, keys, values]) =
        (rotation.args.as_slice(), write.args.as_slice())
    else {
        return None;
    };
    if (rows, x) != (rows_too, x_too) {
        return None;
    }
    let params = rope_kv::Params::of(&turn, &put)?;
    Some(step::<RopeKv>(rotation, write, params, write.form, vec![rows, pages, table, x, keys, values]))
}

fn picked_norm(pick: &Step, norm: &Step) -> Option<Step> {
    let (&[wanted, x, between], &[read, gain, y]) = (pick.args.as_slice(), norm.args.as_slice()) else {
        return None;
    };
    let params: rms_norm::Params = bytemuck::pod_read_unaligned(&norm.params);
    let pick::Params { width } = bytemuck::pod_read_unaligned(&pick.params);
    let is_between = between == read && matches!(between, Operand::Temp(_)) && width == params.width;
    is_between.then(|| step::<PickNorm>(pick, norm, params, norm.form, vec![x, gain, y, wanted]))
}

fn step<H: Home>(first: &Step, second: &Step, params: H::Params, form: Form, args: Vec<Operand>) -> Step {
    let tail = second.label.rsplit('.').next().unwrap_or_default();
    Step {
        label: format!("{}+{tail}", first.label),
        kernel: H::ID,
        params: bytemuck::bytes_of(&params).to_vec(),
        form,
        extent: first.extent,
        args,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KvType, KvWrite, Matvec, Pick, RmsNorm, Rope, Swiglu};
    use crate::plan::{Builder, Extent, Item, Plan, Store};
    use crate::quant::{Format, Matrix};

    const QKV: u32 = 16;

    /// The steps of a small feed-forward and of its keys, with what is planted.
    fn plan(is_fused: bool, width: u32, epilogue: Epilogue, kv_heads: u32) -> Plan {
        let mut store = Store::default();
        let bytes = Format::F32.encode(&[1.0; 8 * 4]).into();
        let matrix = Matrix::new("w", Format::F32, 8, 4, bytes).unwrap();
        let matrix = Operand::Item(store.add(Item::Matrix(matrix)));
        let state = |store: &mut Store, name| Operand::Item(store.add_state(name, 64));
        let [rows, pages, keys, values] =
            ["rows", "pages", "keys", "values"].map(|name| state(&mut store, name));
        let table = Operand::Item(store.add_vector("table", &[1.0; 64]));
        let builder = Builder::new(&store, "plan", 1, 1);
        let mut b = if is_fused { builder.fused() } else { builder };
        let x = b.temp("x", Extent::Tokens, 4);
        let wide = b.temp("wide", Extent::Tokens, 8);
        let y = b.temp("y", Extent::Tokens, 4);
        let qkv = b.temp("qkv", Extent::Tokens, QKV as usize);
        let params = matvec::Params {
            k: 4,
            n: 8,
            x_stride: 4,
            y_stride: 8,
            y_offset: 0,
            code_stride: 4,
            scale_stride: 0,
        };
        let form = Form { format: Some(Format::F32), kv: None, epilogue: Some(epilogue) };
        b.step::<Matvec>("a.gate_up", Extent::Tokens, form, params, &[x, matrix, wide]).unwrap();
        let gate = swiglu::Params { width };
        b.step::<Swiglu>("a.swiglu", Extent::Tokens, Form::default(), gate, &[wide, y]).unwrap();
        let turn = rope::Params { stride: QKV, offset: 0, heads: 3, head_dim: 4, dims: 4, interleaved: 0 };
        b.step::<Rope>("a.rope", Extent::Tokens, Form::default(), turn, &[rows, table, qkv]).unwrap();
        let put = kv_write::Params {
            stride: QKV,
            k_offset: 8,
            v_offset: 8 + 4 * kv_heads,
            kv_heads,
            head_dim: 4,
            pages_per_sequence: 2,
        };
        let kv = Form { kv: Some(KvType::F16), ..Form::default() };
        b.step::<KvWrite>("a.kv_write", Extent::Tokens, kv, put, &[rows, pages, qkv, keys, values]).unwrap();
        let outputs = Extent::Outputs;
        let (last, h) = (b.temp("last", outputs, 4), b.temp("h", outputs, 4));
        let gain = table;
        let form = Form::default();
        b.step::<Pick>("pick", outputs, form, pick::Params { width: 4 }, &[rows, x, last]).unwrap();
        let norm = rms_norm::Params { width, epsilon: 1e-5 };
        b.step::<RmsNorm>("norm", outputs, form, norm, &[last, gain, h]).unwrap();
        b.finish()
    }

    fn kernels(plan: &Plan) -> Vec<KernelId> {
        plan.steps.iter().map(|step| step.kernel).collect()
    }

    #[test]
    fn neighbours_become_one_step() {
        let apart = plan(false, 4, Epilogue::Store, 1);
        assert_eq!(apart.steps.len(), 6);
        let joined = plan(true, 4, Epilogue::Store, 1);
        assert_eq!(kernels(&joined), [KernelId::MatvecSwiglu, KernelId::RopeKv, KernelId::PickNorm]);
        assert_eq!(joined.steps[0].label, "a.gate_up+swiglu");
        assert_eq!(
            joined.steps[0].args,
            [apart.steps[0].args[0], apart.steps[0].args[1], apart.steps[1].args[1]]
        );
        assert_eq!(joined.steps[1].form, apart.steps[3].form);
        assert_eq!(joined.steps[2].args[3], apart.steps[4].args[0]);
    }

    #[test]
    fn what_is_not_the_same_thing_stays_apart() {
        // Half of the matrix; a sum, not a product; keys of other heads than those that rotate.
        assert_eq!(kernels(&plan(true, 2, Epilogue::Store, 1))[..2], [KernelId::Matvec, KernelId::Swiglu]);
        assert_eq!(kernels(&plan(true, 4, Epilogue::Add, 1))[..2], [KernelId::Matvec, KernelId::Swiglu]);
        assert_eq!(kernels(&plan(true, 4, Epilogue::Store, 2))[1..3], [KernelId::Rope, KernelId::KvWrite]);
        assert_eq!(kernels(&plan(true, 2, Epilogue::Store, 1))[3..], [KernelId::Pick, KernelId::RmsNorm]);
    }
}
