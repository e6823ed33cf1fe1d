//! The CPU backend: its seven verbs, and each kernel against its twin.

use std::sync::Arc;
use std::time::Duration;

use pocketlm::Kind;
use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Status, Ticket};
use pocketlm::kernel::{Form, rms_norm, swiglu};
use pocketlm::plan::{Builder, Extent, Inputs, Operand, Plan, Store};

fn inputs(rows: u32) -> Inputs {
    Inputs { rows, outputs: 0, kv_len: 1 }
}

/// swiglu(state x of 2 × 64) → temp, rms_norm(temp) → state y of 2 × 32.
fn two_steps() -> (Store, Plan, Operand, Operand) {
    let mut store = Store::default();
    let (x, y) = (Operand::Item(store.add_state("x", 128)), Operand::Item(store.add_state("y", 64)));
    let gain = Operand::Item(store.add_vector("gain", &[2.0; 32]));
    let mut plan = Builder::new(&store, "two steps", 2, 0);
    let between = plan.temp("between", Extent::Tokens, 32);
    let (gate, norm) = (swiglu::Params { width: 32 }, rms_norm::Params { width: 32, epsilon: 1e-5 });
    plan.step::<swiglu::Swiglu>("gate", Extent::Tokens, Form::default(), gate, &[x, between]).unwrap();
    plan.step::<rms_norm::RmsNorm>("norm", Extent::Tokens, Form::default(), norm, &[between, gain, y])
        .unwrap();
    let plan = plan.finish();
    (store, plan, x, y)
}

fn item(operand: Operand) -> pocketlm::plan::ItemId {
    match operand {
        Operand::Item(id) => id,
        Operand::Temp(_) => panic!("a temp is no item"),
    }
}

#[test]
fn steps_run_in_order_and_temps_outlive_a_slice() {
    let (store, plan, x, y) = two_steps();
    let mut cpu = Cpu::new(CpuOptions::default()).unwrap();
    cpu.load(&store, &mut |_, _| Ok(())).unwrap();
    let program = cpu.prepare(Arc::new(plan)).unwrap();
    cpu.write(item(x), 0, bytemuck::cast_slice(&[3.0f32; 128])).unwrap();
    let first = cpu.submit(&program, 0..1, inputs(2)).unwrap();
    let second = cpu.submit(&program, 1..2, inputs(2)).unwrap();
    assert!(first < second);
    assert_eq!(cpu.poll(second, Duration::ZERO).unwrap(), Status::Finished);
    let mut norms = [0.0f32; 64];
    cpu.read(item(y), 0, bytemuck::cast_slice_mut(&mut norms)).unwrap();
    assert!(norms.iter().all(|norm| (norm - 2.0).abs() < 1e-5), "{norms:?}");
}

#[test]
fn what_is_beyond_the_plan_or_the_store_is_refused() {
    let (store, plan, x, _) = two_steps();
    let plan = Arc::new(plan);
    assert_eq!(
        Cpu::new(CpuOptions { threads: Some(0), exact: false }).unwrap_err().kind(),
        Kind::InvalidArgument
    );
    let mut cpu = Cpu::new(CpuOptions::default()).unwrap();
    assert_eq!(cpu.prepare(plan.clone()).unwrap_err().kind(), Kind::Internal);
    cpu.load(&store, &mut |_, _| Ok(())).unwrap();
    let program = cpu.prepare(plan).unwrap();
    assert_eq!(cpu.submit(&program, 0..1, inputs(3)).unwrap_err().kind(), Kind::Internal);
    assert_eq!(cpu.submit(&program, 0..3, inputs(1)).unwrap_err().kind(), Kind::Internal);
    assert_eq!(cpu.poll(Ticket(1), Duration::ZERO).unwrap_err().kind(), Kind::Internal);
    assert_eq!(cpu.write(item(x), 510, &[0; 4]).unwrap_err().kind(), Kind::Internal);
    assert_eq!(cpu.read(item(x), usize::MAX, &mut [0; 4]).unwrap_err().kind(), Kind::Internal);
    cpu.load(&store, &mut |_, _| Ok(())).unwrap();
    assert_eq!(cpu.submit(&program, 0..1, inputs(1)).unwrap_err().kind(), Kind::Internal);
}

#[test]
fn a_load_can_be_stopped_and_an_absurd_state_is_out_of_memory() {
    let (store, ..) = two_steps();
    let mut cpu = Cpu::new(CpuOptions::default()).unwrap();
    let stop = |_, _| Err(pocketlm::Error::new(Kind::Cancelled, "stopped"));
    assert_eq!(cpu.load(&store, &mut { stop }).unwrap_err().kind(), Kind::Cancelled);
    let mut absurd = Store::default();
    absurd.add_state("absurd", usize::MAX / 8);
    assert_eq!(cpu.load(&absurd, &mut |_, _| Ok(())).unwrap_err().kind(), Kind::OutOfMemory);
}
