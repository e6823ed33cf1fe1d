//! The CPU backend: its seven verbs, and each kernel against its twin.

mod cases;

use std::sync::Arc;
use std::time::Duration;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Status, Ticket, probe};
use pocketlm::base::Seed;
use pocketlm::kernel::{Call, Case, Data, Epilogue, Form, Tolerance, rms_norm, swiglu, top_k};
use pocketlm::plan::{Builder, Extent, Inputs, Operand, Plan, Store};
use pocketlm::quant::Matrix;
use pocketlm::{Format, Kind};

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
    assert_eq!(cpu.poll(second, Duration::ZERO).unwrap(), Status::Finished(Vec::new()));
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

/// Every way to compute: threads, instructions.
fn cpus(exact: bool) -> Vec<Cpu> {
    let with = |threads| CpuOptions { threads: Some(threads), exact };
    let mut cpus: Vec<Cpu> = [1, 2, 3].map(|threads| Cpu::new(with(threads)).unwrap()).into();
    cpus.extend(Cpu::every(with(2)).unwrap());
    cpus
}

#[test]
fn every_kernel_computes_what_its_twin_does() {
    let mut wrong = Vec::new();
    for cpu in &mut cpus(true) {
        for case in cases::all() {
            if let Err(error) = probe::check(cpu, &case) {
                wrong.push(format!("{}: {error}", cpu.caps().name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn products_in_codes_are_within_the_rounding_of_their_activations() {
    let mut seed = Seed::new(32);
    for cpu in &mut cpus(false) {
        for &format in Format::ALL.iter().filter(|format| format.block_len() > 1) {
            let right = cases::matrix(&mut seed, format, 61, 1024);
            for rows in [1, 2, 4, 6, 7, 8, 13, 30] {
                let mut case = cases::product(&mut seed, &right, rows, Epilogue::Add);
                cases::allow_rounding(&mut case, &right);
                probe::check(cpu, &case).unwrap();
                let mut faulty = case.clone();
                if let Data::F32(x) = &mut faulty.args[0] {
                    x[700] += 1.0;
                }
                let got = probe::run(cpu, &faulty).unwrap();
                let verdict = probe::judge(&case, &case.expected(), &got);
                assert_eq!(verdict.unwrap_err().kind(), Kind::WrongNumbers, "{format}, {rows} rows");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for exact in [true, false] {
        let mut cpus = cpus(exact);
        cpus.truncate(3);
        for case in cases::all() {
            let mut results = cpus.iter_mut().map(|cpu| format!("{:?}", probe::run(cpu, &case).unwrap()));
            let first = results.next().unwrap();
            assert!(results.all(|result| result == first), "{}", probe::describe(&case));
        }
    }
}

#[test]
fn a_wrong_nibble_order_a_wrong_scale_and_a_wrong_row_are_caught() {
    let mut seed = Seed::new(31);
    let mut cpu = Cpu::new(CpuOptions { threads: Some(2), exact: true }).unwrap();
    for &format in Format::ALL.iter().filter(|format| format.block_len() > 1) {
        let right = cases::matrix(&mut seed, format, 40, 256);
        let case = cases::product(&mut seed, &right, 3, Epilogue::Store);
        let faults: [fn(&mut [u8], usize); 3] = [
            |bytes, block| {
                bytes.iter_mut().skip(block / 2).step_by(block).for_each(|b| *b = b.rotate_left(4))
            },
            |bytes, block| bytes[block - 1] ^= 0x40,
            |bytes, _| bytes.rotate_left(bytes.len() / 40),
        ];
        for (number, fault) in faults.iter().enumerate() {
            let mut bytes: Vec<u8> = (0..40).flat_map(|row| right.row(row).to_vec()).collect();
            fault(&mut bytes, format.block_bytes());
            let wrong = Matrix::new("w", format, 40, 256, bytes.into()).unwrap();
            let mut faulty = case.clone();
            faulty.args[1] = Data::Matrix(wrong);
            let got = probe::run(&mut cpu, &faulty).unwrap();
            let verdict = probe::judge(&case, &case.expected(), &got);
            assert_eq!(verdict.unwrap_err().kind(), Kind::WrongNumbers, "fault {number} in {format}");
        }
        probe::check(&mut cpu, &case).unwrap();
    }
}

#[test]
fn a_swapped_head_and_a_stale_slot_are_caught() {
    let mut cpu = Cpu::new(CpuOptions { threads: Some(2), exact: true }).unwrap();
    for case in cases::attends().iter().filter(|case| case.name.starts_with("9 heads")) {
        let expected = case.expected();
        let mut swapped = case.clone();
        if let Data::U32(keys) = &mut swapped.args[3] {
            let head = keys.len() / 18;
            keys.rotate_left(head);
        }
        let mut stale = case.clone();
        if let Data::U32(rows) = &mut stale.args[0] {
            let last = rows.len() - 3;
            rows[last] -= 1;
        }
        for faulty in [swapped, stale] {
            let got = probe::run(&mut cpu, &faulty).unwrap();
            assert_eq!(probe::judge(case, &expected, &got).unwrap_err().kind(), Kind::WrongNumbers);
        }
    }
}

#[test]
fn the_best_logits_are_the_twins() {
    for cpu in &mut cpus(true) {
        for (logits, params) in cases::top_ks() {
            let (call, found) = (Call { rows: 1, kv_len: 1 }, vec![0; 2 * params.k as usize + 1]);
            let args = vec![Data::F32(logits), Data::U32(found)];
            let case =
                Case::of::<top_k::TopK>("a row", params, call, Form::default(), args, Tolerance::EXACT);
            let (mut expected, mut got) = (case.expected(), probe::run(cpu, &case).unwrap());
            let sums = [&mut expected[1], &mut got[1]].map(|found| match found {
                Data::U32(words) => f32::from_bits(words.pop().unwrap()),
                other => panic!("{other:?}"),
            });
            // The sum of exponentials is off by 2 ε of each, the logarithm of it by as much, rounded.
            assert!((sums[0] - sums[1]).abs() <= 4.0 * f32::EPSILON * sums[0].abs().max(1.0), "{sums:?}");
            probe::judge(&case, &expected, &got).unwrap();
        }
    }
}

#[test]
fn rows_beyond_the_pages_are_an_error_and_not_a_panic() {
    let mut cpu = Cpu::new(CpuOptions { threads: Some(2), exact: true }).unwrap();
    let mut case = cases::attends().swap_remove(4);
    if let Data::U32(rows) = &mut case.args[0] {
        rows[1] = 1 << 20;
    }
    assert_eq!(probe::run(&mut cpu, &case).unwrap_err().kind(), Kind::Internal);
    probe::check(&mut cpu, &cases::attends()[4]).unwrap();
}
