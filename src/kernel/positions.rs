//! `x[r, :] += P[position(r), :]`: adds learned vectors of positions `(context, width)` to the rows of the embedding. A row
//! at a position that has none stays as it is.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Tolerance, Variant,
    Work, made,
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
pub struct Positions;

impl Home for Positions {
    type Params = Params;
    const ID: KernelId = KernelId::Positions;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/positions.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::F32(table), Arg::F32Mut(x)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        let rows = rows.chunks_exact(ROW_WORDS).take(call.rows as usize);
        for (row, x) in rows.zip(x.chunks_exact_mut(width)) {
            let vector = table.chunks_exact(width).nth(row[1] as usize).unwrap_or_default();
            x.iter_mut().zip(vector).for_each(|(x, vector)| *x += vector);
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 12.0 * elements, flops: elements }
    }

    fn cases() -> Vec<Case> {
        [(3, vec![1]), (1, vec![4, 0]), (65, vec![2, 2, 0]), (768, vec![4, 1]), (65, vec![1 << 20, 3])]
            .map(case)
            .into()
    }
}

/// Rows at positions.
fn case((width, positions): (usize, Vec<u32>)) -> Case {
    let mut seed = Seed::new(13);
    let table = seed.vector(5 * width, 1.0);
    let x = made::activations(&mut seed, positions.len(), width, width);
    let rows: Vec<_> = positions.iter().map(|&position| [9, position, 1]).collect();
    let call = Call { rows: rows.len() as u32, kv_len: 5 };
    let args = vec![made::rows(&rows), Data::F32(table), Data::F32(x)];
    let params = Params { width: width as u32 };
    // One sum, rounded correctly everywhere.
    let name = format!("{width} at {positions:?}");
    Case::of::<Positions>(name, params, call, Form::default(), args, Tolerance::EXACT)
}
