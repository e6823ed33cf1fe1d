//! Which kernels have a fast implementation; all others are computed by their twins.

use bytemuck::pod_read_unaligned;

use crate::error::Result;
use crate::kernel::{Arg, Call, KernelId};
use crate::plan::Step;

use super::attend::Cache;
use super::cores::Cores;
use super::packed::Packed;
use super::{attend, best, product, rows};

/// Computes a step; `packed` is its matrix in the CPU's order, where it has one.
pub(super) fn run(
    cores: &mut Cores,
    step: &Step,
    call: Call,
    packed: Option<Packed<'_>>,
    args: &mut [Arg<'_>],
) -> Result<()> {
    let (params, form) = (step.params.as_slice(), step.form);
    match (step.kernel, args) {
        (KernelId::Matvec | KernelId::Matmul, [Arg::F32(x), Arg::Matrix(matrix), Arg::F32Mut(y)]) => {
            product::product(cores, &pod_read_unaligned(params), call, form, x, matrix, packed, y)
        }
        (
            KernelId::Attend,
            [Arg::U32(rows), Arg::U32(pages), Arg::F32(q), Arg::U32(keys), Arg::U32(values), Arg::F32Mut(y)],
        ) => {
            let cache = Cache { pages, keys, values };
            attend::attend(cores, &pod_read_unaligned(params), call, form, rows, q, cache, y)
        }
        (
            KernelId::KvWrite,
            [Arg::U32(rows), Arg::U32(pages), Arg::F32(x), Arg::U32Mut(keys), Arg::U32Mut(values)],
        ) => {
            let params = pod_read_unaligned(params);
            rows::kv_write(&params, call, form, [rows, pages], x, [keys, values]);
            Ok(())
        }
        (
            KernelId::KvBlocks,
            [Arg::U32(rows), Arg::U32(pages), Arg::F32Mut(x), Arg::U32Mut(keys), Arg::U32Mut(values)],
        ) => {
            let params = pod_read_unaligned(params);
            rows::kv_blocks(cores, &params, call, form, [rows, pages], x, [keys, values]);
            Ok(())
        }
        (KernelId::Embed, [Arg::U32(rows), Arg::Matrix(matrix), Arg::F32Mut(x)]) => {
            rows::embed(cores, &pod_read_unaligned(params), call, rows, matrix, packed, x)
        }
        (KernelId::RmsNorm, [Arg::F32(x), Arg::F32(gain), Arg::F32Mut(y)]) => {
            rows::rms_norm(cores, &pod_read_unaligned(params), call, form, x, gain, y)
        }
        (KernelId::HeadNorm, [Arg::F32(gains), Arg::F32Mut(x)]) => {
            rows::head_norm(cores, &pod_read_unaligned(params), call, gains, x)
        }
        (KernelId::Rope, [Arg::U32(rows), Arg::F32(table), Arg::F32Mut(x)]) => {
            rows::rope(cores, &pod_read_unaligned(params), call, rows, table, x)
        }
        (KernelId::Geglu, [Arg::F32(x), Arg::F32Mut(y)]) => {
            rows::geglu(cores, &pod_read_unaligned(params), call, x, y)
        }
        (KernelId::Gelu, [Arg::F32(x), Arg::F32Mut(y)]) => {
            rows::gelu(cores, &pod_read_unaligned(params), call, x, y)
        }
        (KernelId::SoftCap, [Arg::F32Mut(x)]) => rows::soft_cap(cores, &pod_read_unaligned(params), call, x),
        (KernelId::Swiglu, [Arg::F32(x), Arg::F32Mut(y)]) => {
            rows::swiglu(cores, &pod_read_unaligned(params), call, x, y)
        }
        (KernelId::Scale, [Arg::F32(x), Arg::F32(gains), Arg::F32Mut(y)]) => {
            rows::scale(cores, &pod_read_unaligned(params), call, form, [x, gains], y)
        }
        (KernelId::Squares, [Arg::F32(x), Arg::F32Mut(y)]) => {
            rows::squares(cores, &pod_read_unaligned(params), call, x, y)
        }
        (KernelId::Gather, [Arg::F32(x), Arg::F32(order), Arg::F32Mut(y)]) => {
            rows::gather(cores, &pod_read_unaligned(params), call, form, [x, order], y)
        }
        (KernelId::Hadamard, [Arg::F32(x), Arg::F32(table), Arg::F32Mut(y)]) => {
            rows::hadamard(cores, &pod_read_unaligned(params), call, form, [x, table], y)
        }
        (KernelId::Kronecker, [Arg::F32(v), Arg::F32(factors), Arg::F32Mut(y)]) => {
            rows::kronecker(cores, &pod_read_unaligned(params), call, form, [v, factors], y)
        }
        (KernelId::Argmax, [Arg::F32(logits), Arg::U32(outputs), Arg::U32Mut(rows), Arg::U32Mut(tokens)]) => {
            let params = pod_read_unaligned(params);
            best::argmax(cores, &params, call, logits, outputs, rows, tokens)
        }
        (KernelId::TopK, [Arg::F32(logits), Arg::U32Mut(found)]) => {
            best::top_k(cores, &pod_read_unaligned(params), call, logits, found)
        }
        (_, args) => {
            step.home().twin(params, call, form, args);
            Ok(())
        }
    }
}
