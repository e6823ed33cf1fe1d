//! Planted faults in a whole model: the oracle's comparator says no to each.

use std::sync::Arc;
use std::time::Duration;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Status};
use pocketlm::base::Bytes;
use pocketlm::format::Checkpoint;
use pocketlm::kernel::KvType;
use pocketlm::model::{Blueprint, CacheOptions, LowerOptions, Weights, lower};
use pocketlm::plan::Inputs;
use pocketlm::quant::Matrix;

use crate::data::{real_model, shared};
use crate::golden::{divergence, log_softmax};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The nibbles of every byte of a projection change places.
    NibbleOrder,
    /// Two query heads change places.
    SwappedHead,
    /// Every position is one too far, for the rotation and the cache alike, but for the first.
    RopeOffByOne,
    /// The page of the first positions still holds the keys and values of another text.
    StaleKv,
}

/// A copy of `matrix` whose bytes went through `change`.
fn changed(matrix: &Matrix, change: impl FnOnce(&mut [u8], usize)) -> Matrix {
    let mut bytes: Vec<u8> = (0..matrix.rows()).flat_map(|row| matrix.row(row).to_vec()).collect();
    change(&mut bytes, matrix.row_bytes());
    Matrix::new(matrix.name(), matrix.format(), matrix.rows(), matrix.cols(), Bytes::from(bytes))
        .expect("same shape")
}

fn plant(weights: &mut Weights, fault: Fault) {
    let block = &mut weights.blocks[3];
    match fault {
        Fault::NibbleOrder => {
            block.o.base = changed(&block.o.base, |bytes, _| {
                // Blocks of 20 bytes: scale and minimum, then 16 bytes of nibbles.
                bytes
                    .chunks_exact_mut(20)
                    .for_each(|block| block[4..].iter_mut().for_each(|b| *b = b.rotate_left(4)));
            });
        }
        Fault::SwappedHead => {
            block.q.base = changed(&block.q.base, |bytes, row| {
                let (first, rest) = bytes.split_at_mut(64 * row);
                first.swap_with_slice(&mut rest[4 * 64 * row..][..64 * row]);
            });
        }
        Fault::None | Fault::RopeOffByOne | Fault::StaleKv => {}
    }
}

/// The mean divergence from the oracle over the prompt `raw_fox`, computed with `fault`.
fn divergence_with(fault: Fault) -> f64 {
    let bytes = std::fs::read(shared("smollm2/oracle.json")).expect("the oracle can be read");
    let oracle: serde_json::Value = serde_json::from_slice(&bytes).expect("the oracle is JSON");
    let fox = &oracle[1];
    let tokens: Vec<u32> = serde_json::from_value(fox["prompt_ids"].clone()).expect("ids");
    let top: Vec<Vec<(u32, f64)>> =
        serde_json::from_value(fox["prompt_top5"].clone()).expect("log-probabilities");

    let checkpoint = Checkpoint::open(real_model()).expect("the real model opens");
    let blueprint = Blueprint::read(&checkpoint).expect("a llama");
    let mut weights = Weights::gather(&checkpoint, &blueprint).expect("all weights");
    plant(&mut weights, fault);
    let count = tokens.len() as u32;
    let options = LowerOptions {
        context: 64,
        caches: vec![CacheOptions::full(KvType::F32, 64, 1)],
        prefill_rows: count,
        decode_rows: 1,
        outputs: count,
        top: 1,
        max_matrix_bytes: u64::MAX,
        fused: false,
        calibrates: false,
        int8_activations: false,
    };
    let lowered = lower(&blueprint, &weights, options).expect("a plan");
    let mut cpu = Cpu::new(CpuOptions { threads: None, exact: true }).expect("a CPU");
    cpu.load(&lowered.store, &mut |_, _| Ok(())).expect("loads");
    let prefill = &lowered.caches[0].prefill;
    let program = cpu.prepare(Arc::clone(&prefill.plan)).expect("prepares");
    cpu.write(lowered.ports.pages, 0, bytemuck::cast_slice(&[0u32, 1])).expect("pages");
    let outputs: Vec<u32> = (0..count).collect();
    cpu.write(lowered.ports.outputs, 0, bytemuck::cast_slice(&outputs)).expect("outputs");
    let mut compute = |tokens: &[u32], position: &dyn Fn(u32) -> u32| {
        let rows: Vec<u32> = (0..).zip(tokens).flat_map(|(i, &token)| [token, position(i), 0, 0]).collect();
        cpu.write(lowered.ports.rows, 0, bytemuck::cast_slice(&rows)).expect("rows");
        let rows = tokens.len() as u32;
        let inputs = Inputs { rows, outputs: rows, kv_len: position(rows - 1) + 1 };
        let ticket = cpu.submit(&program, 0..prefill.logits, inputs).expect("submits");
        assert_eq!(
            cpu.poll(ticket, Duration::from_secs(60)).expect("computes"),
            Status::Finished(Vec::new())
        );
        let mut logits = vec![0.0f32; tokens.len() * blueprint.vocab as usize];
        cpu.read(lowered.ports.logits, 0, bytemuck::cast_slice_mut(&mut logits)).expect("logits");
        logits
    };
    let logits = match fault {
        Fault::RopeOffByOne => compute(&tokens, &|i| if i == 0 { 0 } else { i + 1 }),
        Fault::StaleKv => {
            let other: Vec<u32> = tokens.iter().rev().copied().collect();
            compute(&other, &|i| i);
            // The second half of the prompt, as if its first half had been computed.
            let half = tokens.len() / 2;
            let mut logits = vec![0.0; half * blueprint.vocab as usize];
            logits.extend(compute(&tokens[half..], &|i| i + half as u32));
            logits
        }
        _ => compute(&tokens, &|i| i),
    };
    let first = if fault == Fault::StaleKv { tokens.len() / 2 } else { 0 };
    let rows = logits.chunks_exact(blueprint.vocab as usize).zip(&top).skip(first);
    let divergences: Vec<f64> = rows.map(|(logits, top)| divergence(top, &log_softmax(logits))).collect();
    divergences.iter().sum::<f64>() / divergences.len() as f64
}

#[test]
fn the_comparator_says_no_to_each_planted_fault() {
    assert!(divergence_with(Fault::None) < 1e-6);
    for fault in [Fault::NibbleOrder, Fault::SwappedHead, Fault::RopeOffByOne, Fault::StaleKv] {
        let divergence = divergence_with(fault);
        // The widest limit of the oracle's tests.
        assert!(divergence > 2e-3, "{fault:?} went unseen: {divergence:.2e}");
    }
}
