//! Steps that a GPU computes as one: fewer dispatches, and less of the memory between them. And one that it computes as
//! two, to have work for all of it.
//!
//! A pair of neighbouring steps is joined where a kernel exists that is both. What the first wrote for the second alone
//! is then never written: [`join`] is only for plans in which nothing else reads it.

use crate::kernel::{
    AttendJoin, AttendSplit, Epilogue, Form, Home, KernelId, MatvecSwiglu, PickNorm, RopeKv, RopeKvBlocks,
    attend, attend_join, attend_split, kv_blocks, kv_write, matvec, pick, rms_norm, rope, rope_kv,
    rope_kv_blocks, swiglu,
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
        (KernelId::Rope, KernelId::KvBlocks) => rotated_blocks(first, second),
        (KernelId::Pick, KernelId::RmsNorm) => picked_norm(first, second),
        _ => None,
    }
}

/// Rows of a plan up to which keys are split among workgroups; with more there are enough of these.
const FEW: u32 = 8;

/// The two steps that are `step` in a plan of up to `max_rows` rows, if there are such, and the width of the temp between
/// them.
pub(super) fn split(step: &Step, max_rows: u32) -> Option<(usize, impl FnOnce(Operand) -> [Step; 2])> {
    let &[rows, pages, q, keys, values, y] = step.args.as_slice() else { return None };
    if step.kernel != KernelId::Attend || max_rows > FEW {
        return None;
    }
    let params: attend::Params = bytemuck::pod_read_unaligned(&step.params);
    let attend::Params { heads, head_dim, window, .. } = params;
    let step = step.clone();
    Some((attend_split::width(&params), move |parts| {
        let args = vec![rows, pages, q, keys, values, y, parts];
        let split = Step { kernel: AttendSplit::ID, args, ..step };
        let joined = Step {
            label: format!("{}.join", split.label),
            kernel: AttendJoin::ID,
            params: bytemuck::bytes_of(&attend_join::Params { heads, head_dim, window }).to_vec(),
            form: Form::default(),
            extent: split.extent,
            args: vec![rows, parts, y],
        };
        [split, joined]
    }))
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

fn rotated_blocks(rotation: &Step, write: &Step) -> Option<Step> {
    let turn: rope::Params = bytemuck::pod_read_unaligned(&rotation.params);
    let put: kv_blocks::Params = bytemuck::pod_read_unaligned(&write.params);
    let (&[rows, table, x], &[rows_too, pages, x_too, keys, values]) =
        (rotation.args.as_slice(), write.args.as_slice())
    else {
        return None;
    };
    if (rows, x) != (rows_too, x_too) {
        return None;
    }
    let params = rope_kv_blocks::Params::of(&turn, &put)?;
    let args = vec![rows, pages, x, keys, values, table];
    Some(step::<RopeKvBlocks>(rotation, write, params, write.form, args))
}

fn picked_norm(pick: &Step, norm: &Step) -> Option<Step> {
    let (&[wanted, x, between], &[read, gain, y]) = (pick.args.as_slice(), norm.args.as_slice()) else {
        return None;
    };
    let params: rms_norm::Params = bytemuck::pod_read_unaligned(&norm.params);
    let pick::Params { width } = bytemuck::pod_read_unaligned(&pick.params);
    let is_between = between == read && matches!(between, Operand::Temp(_)) && width == params.width;
    let is_stored = norm.form.epilogue != Some(Epilogue::Add);
    (is_between && is_stored)
        .then(|| step::<PickNorm>(pick, norm, params, Form::default(), vec![x, gain, y, wanted]))
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
    use crate::kernel::{Attend, Call, KvBlocks, KvType, KvWrite, Matvec, Pick, RmsNorm, Rope, Swiglu};
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

    #[test]
    fn blocks_are_rotated_as_they_are_written() {
        let plan = |heads| {
            let mut store = Store::default();
            let states = ["rows", "pages", "keys", "values"].map(|name| store.add_state(name, 640));
            let [rows, pages, keys, values] = states.map(Operand::Item);
            let table = Operand::Item(store.add_vector("table", &[1.0; 64]));
            let mut b = Builder::new(&store, "plan", 1, 1).fused();
            let qkv = b.temp("qkv", Extent::Tokens, 16);
            let turn = rope::Params { stride: 16, offset: 0, heads, head_dim: 4, dims: 4, interleaved: 0 };
            b.step::<Rope>("a.rope", Extent::Tokens, Form::default(), turn, &[rows, table, qkv]).unwrap();
            let put = kv_blocks::Params {
                stride: 16,
                heads: 2,
                kv_heads: 1,
                head_dim: 4,
                block: 4,
                pages_per_sequence: 1,
            };
            let kv = Form { kv: Some(KvType::Q4), ..Form::default() };
            let args = [rows, pages, qkv, keys, values];
            b.step::<KvBlocks>("a.kv_blocks", Extent::Tokens, kv, put, &args).unwrap();
            b.finish()
        };
        let joined = plan(3);
        assert_eq!(kernels(&joined), [KernelId::RopeKvBlocks]);
        assert_eq!(joined.steps[0].form.kv, Some(KvType::Q4));
        // Other heads than those that are written.
        assert_eq!(kernels(&plan(2)), [KernelId::Rope, KernelId::KvBlocks]);
    }

    #[test]
    fn attention_of_few_rows_is_split_over_its_keys() {
        let plan = |is_fused, max_rows| {
            let mut store = Store::default();
            let states = ["rows", "pages", "keys", "values"].map(|name| store.add_state(name, 64));
            let [rows, pages, keys, values] = states.map(Operand::Item);
            let builder = Builder::new(&store, "plan", max_rows, 1);
            let mut b = if is_fused { builder.fused() } else { builder };
            let [q, y] = ["q", "y"].map(|name| b.temp(name, Extent::Tokens, 8));
            let params = attend::Params {
                q_stride: 8,
                q_offset: 0,
                heads: 2,
                kv_heads: 1,
                head_dim: 4,
                pages_per_sequence: 40,
                scale: 0.5,
                window: 40 * crate::kernel::PAGE,
                cap: 0.0,
                block: 1,
            };
            let kv = Form { kv: Some(KvType::F16), ..Form::default() };
            let args = [rows, pages, q, keys, values, y];
            b.step::<Attend>("a.attend", Extent::Tokens, kv, params, &args).unwrap();
            b.finish()
        };
        assert_eq!(kernels(&plan(false, 4)), [KernelId::Attend]);
        assert_eq!(kernels(&plan(true, 256)), [KernelId::Attend]);
        let split = plan(true, 4);
        assert_eq!(kernels(&split), [KernelId::AttendSplit, KernelId::AttendJoin]);
        let [first, second] = &split.steps[..] else { panic!("{split:?}") };
        assert_eq!((first.args[6], first.args[5]), (second.args[1], second.args[2]));
        assert_eq!(split.temps[2].width, 3 * 2 * 5, "three splits of 40 pages, two heads");
        // With the keys of one split the second has nothing to do.
        let groups = |kv_len| {
            let home = second.home();
            home.grid(&second.params, Call { rows: 1, kv_len }, &home.variants[0])
        };
        assert_eq!((groups(512), groups(513)), ([0; 3], [1, 1, 1]));
    }
}
