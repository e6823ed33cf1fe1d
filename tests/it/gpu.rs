//! The wgpu backend: its seven verbs on whatever device there is, software included.
//!
//! Without a device these tests fail, unless `POCKETLM_NO_GPU=1` says that this is known.

use std::env;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::wgpu::{Choice, Gpu, Options, devices};
use pocketlm::backend::{Backend, Status, Ticket};
use pocketlm::base::Seed;
use pocketlm::kernel::{Form, ROW_WORDS, argmax, bias, embed, pick, swiglu};
use pocketlm::plan::{Builder, Extent, Inputs, Item, ItemId, Operand, Plan, Store};
use pocketlm::quant::Matrix;
use pocketlm::{Error, Format, Kind, Limits};

const PATIENCE: Duration = Duration::from_secs(60);

/// A backend over the one device that all these tests share, or `None` where there may be none.
pub(crate) fn gpu() -> Option<Gpu> {
    static SHARED: OnceLock<Mutex<Option<Gpu>>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Mutex::new(open(Options { checked: true, ..Options::default() })));
    shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Gpu::share)
}

/// A device of its own, or `None` where there may be none.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn open(options: Options) -> Option<Gpu> {
    if env::var("POCKETLM_NO_GPU").is_ok_and(|value| value == "1") {
        eprintln!("left out: POCKETLM_NO_GPU=1");
        return None;
    }
    let floor = options.floor || crate::data::limits() == Limits::Floor;
    let options = Options { floor, ..options };
    Some(
        Gpu::open(Choice::Any, options)
            .expect("a device, if only in software; POCKETLM_NO_GPU=1 to go without"),
    )
}

fn quiet(_: u64, _: u64) -> Result<(), Error> {
    Ok(())
}

fn inputs(rows: u32) -> Inputs {
    Inputs { rows, outputs: 0, kv_len: 1 }
}

/// swiglu(x of 3 × 80) → temp, temp + b → temp, pick(temp by index) → y of 3 × 40, with another temp beside.
struct Small {
    store: Store,
    plan: Arc<Plan>,
    x: ItemId,
    index: ItemId,
    y: ItemId,
}

fn small() -> Small {
    let mut store = Store::default();
    let (x, y, index) = (store.add_state("x", 240), store.add_state("y", 120), store.add_state("index", 3));
    let b = store.add_vector("b", &Seed::new(1).vector(40, 1.0));
    let mut plan = Builder::new(&store, "small", 3, 3);
    let between = plan.temp("between", Extent::Tokens, 40);
    let [x_arg, y_arg, index_arg, b_arg] = [x, y, index, b].map(Operand::Item);
    let form = Form::default();
    let gate = swiglu::Params { width: 40 };
    plan.step::<swiglu::Swiglu>("gate", Extent::Tokens, form, gate, &[x_arg, between]).unwrap();
    let add = bias::Params { width: 40, y_stride: 40, y_offset: 0 };
    plan.step::<bias::Bias>("add", Extent::Tokens, form, add, &[b_arg, between]).unwrap();
    // Two temps live at the same time.
    let beside = plan.temp("beside", Extent::Tokens, 40);
    plan.step::<swiglu::Swiglu>("beside", Extent::Tokens, form, gate, &[x_arg, beside]).unwrap();
    let gather = pick::Params { width: 40 };
    plan.step::<pick::Pick>("gather", Extent::Outputs, form, gather, &[index_arg, between, y_arg]).unwrap();
    plan.step::<bias::Bias>("end", Extent::Outputs, form, add, &[b_arg, beside]).unwrap();
    let plan = Arc::new(plan.finish());
    Small { store, plan, x, index, y }
}

/// Runs the small plan and gives y.
fn run_small(backend: &mut dyn Backend, outputs: u32) -> Result<Vec<f32>, Error> {
    let Small { store, plan, x, index, y } = small();
    backend.load(&store, &mut quiet)?;
    let program = backend.prepare(plan)?;
    backend.write(x, 0, bytemuck::cast_slice(&Seed::new(2).vector(240, 4.0)))?;
    backend.write(index, 0, bytemuck::cast_slice(&[2u32, 0, 1]))?;
    let ticket = backend.submit(&program, 0..5, Inputs { rows: 3, outputs, kv_len: 1 })?;
    assert_eq!(backend.poll(ticket, PATIENCE)?, Status::Finished(Vec::new()));
    let mut values = vec![0.0; 120];
    backend.read(y, 0, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

#[test]
fn steps_with_temps_compute_what_the_cpu_computes() {
    let Some(checked) = gpu() else { return };
    let expected = run_small(&mut Cpu::new(CpuOptions::default()).unwrap(), 3).unwrap();
    let floor = open(Options { floor: true, ..Options::default() }).unwrap();
    let unchecked = open(Options::default()).unwrap();
    for mut gpu in [checked, floor, unchecked] {
        let got = run_small(&mut gpu, 3).unwrap();
        let worst = expected.iter().zip(&got).map(|(e, g)| (e - g).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "off by {worst}");
        assert!(expected.iter().any(|value| value.abs() > 0.1));
        // Steps for no outputs are passed over, and the state is still zero.
        assert_eq!(run_small(&mut gpu, 0).unwrap(), [0.0; 120]);
    }
}

#[test]
fn states_read_back_what_was_written() {
    let Some(mut gpu) = gpu() else { return };
    let mut store = Store::default();
    let (small, large) = (store.add_state("small", 5), store.add_state("large", 3 << 20));
    gpu.load(&store, &mut quiet).unwrap();

    let mut expected = [0u8; 20];
    for (at, len) in [(0, 20), (1, 1), (3, 2), (7, 11), (18, 2), (20, 0)] {
        let mut seed = Seed::new((at * 100 + len) as u64);
        let bytes: Vec<u8> = (0..len).map(|_| seed.bits() as u8).collect();
        gpu.write(small, at, &bytes).unwrap();
        expected[at..at + len].copy_from_slice(&bytes);
        for (at, len) in [(0, 20), (1, 19), (5, 3), (19, 1), (20, 0)] {
            let mut got = vec![0xaa; len];
            gpu.read(small, at, &mut got).unwrap();
            assert_eq!(got, expected[at..at + len], "{len} bytes from {at}");
        }
    }

    let mut seed = Seed::new(3);
    let words: Vec<u32> = (0..3 << 20).map(|_| seed.bits() as u32).collect();
    gpu.write(large, 0, bytemuck::cast_slice(&words)).unwrap();
    let mut got = vec![0u32; 3 << 20];
    gpu.read(large, 0, bytemuck::cast_slice_mut(&mut got)).unwrap();
    assert!(got == words);
}

/// The results of three submissions, asked for out of order, twice, and after others.
fn results_of(backend: &mut dyn Backend) -> Vec<Vec<u32>> {
    let mut store = Store::default();
    let states = [("logits", 10), ("outputs", 2), ("rows", 2 * ROW_WORDS), ("token", 2)];
    let [logits, outputs, rows, token] = states.map(|(name, words)| store.add_state(name, words));
    let mut plan = Builder::new(&store, "best", 2, 2).handing_out(token);
    let args = [logits, outputs, rows, token].map(Operand::Item);
    let params = argmax::Params { width: 5 };
    plan.step::<argmax::Argmax>("best", Extent::Outputs, Form::default(), params, &args).unwrap();
    backend.load(&store, &mut quiet).unwrap();
    let program = backend.prepare(Arc::new(plan.finish())).unwrap();
    backend.write(outputs, 4, bytemuck::cast_slice(&[1u32])).unwrap();
    let submit = |backend: &mut dyn Backend, best: usize, count: u32| {
        let mut values = [0f32; 10];
        (values[best], values[9 - best]) = (1.0, 1.0);
        backend.write(logits, 0, bytemuck::cast_slice(&values)).unwrap();
        backend.submit(&program, 0..1, Inputs { rows: 2, outputs: count, kv_len: 1 }).unwrap()
    };
    let tickets = [(1, 2), (3, 1), (4, 2)].map(|(best, outputs)| submit(backend, best, outputs));
    let none = submit(backend, 0, 0);
    let early = submit(backend, 2, 2);
    let result = |backend: &mut dyn Backend, ticket| match backend.poll(ticket, PATIENCE).unwrap() {
        Status::Finished(words) => words,
        Status::Running => panic!("no answer"),
    };
    let [first, second, third] = tickets;
    let mut results: Vec<_> =
        [third, first, none, second, second].into_iter().map(|ticket| result(backend, ticket)).collect();
    let last = (0..64).map(|_| submit(backend, 0, 1)).last();
    assert!(last > Some(early));
    results.push(result(backend, early));
    results
}

#[test]
fn results_are_handed_out_once_in_any_order() {
    let due: [&[u32]; 6] = [&[4, 0], &[1, 3], &[], &[3], &[], &[]];
    assert_eq!(results_of(&mut Cpu::new(CpuOptions::default()).unwrap()), due);
    let Some(mut gpu) = gpu() else { return };
    assert_eq!(results_of(&mut gpu), due);
}

#[test]
fn what_is_beyond_the_plan_or_the_store_is_refused() {
    let Some(mut gpu) = gpu() else { return };
    let Small { store, plan, x, .. } = small();
    gpu.load(&store, &mut quiet).unwrap();
    let program = gpu.prepare(plan.clone()).unwrap();
    let internal = |result: Result<Ticket, Error>| assert_eq!(result.unwrap_err().kind(), Kind::Internal);
    internal(gpu.submit(&program, 0..3, inputs(0)));
    internal(gpu.submit(&program, 0..3, inputs(4)));
    internal(gpu.submit(&program, 0..3, Inputs { outputs: 4, ..inputs(1) }));
    internal(gpu.submit(&program, 0..6, inputs(1)));
    let ticket = gpu.submit(&program, 0..0, inputs(1)).unwrap();
    assert_eq!(gpu.poll(ticket, PATIENCE).unwrap(), Status::Finished(Vec::new()));
    assert_eq!(gpu.poll(Ticket(ticket.0 + 1), PATIENCE).unwrap_err().kind(), Kind::Internal);

    let vector = store.items().find(|(_, item)| item.name() == "b").unwrap().0;
    let mut larger = store.clone();
    let unknown = larger.add_state("unknown", 1);
    for (item, at, len) in [(x, 960, 1), (x, 957, 4), (x, usize::MAX, 2), (vector, 0, 4), (unknown, 0, 4)] {
        assert_eq!(gpu.read(item, at, &mut vec![0; len]).unwrap_err().kind(), Kind::Internal);
        assert_eq!(gpu.write(item, at, &vec![0; len]).unwrap_err().kind(), Kind::Internal);
    }
    let mut stray = Plan::clone(&plan);
    stray.steps[0].args[0] = Operand::Item(unknown);
    let error = gpu.prepare(Arc::new(stray)).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("gate"), "{error}");

    let mut wide = Plan::clone(&plan);
    wide.steps[0].params = bytemuck::bytes_of(&swiglu::Params { width: 64 * 65536 }).to_vec();
    let wide = gpu.prepare(Arc::new(wide)).unwrap();
    let error = gpu.submit(&wide, 0..1, inputs(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("65536"), "{error}");
    gpu.submit(&program, 0..5, inputs(3)).unwrap();

    // Loading forgets what was prepared, and another program in its place is not taken for it.
    gpu.load(&store, &mut quiet).unwrap();
    internal(gpu.submit(&program, 0..3, inputs(1)));
    gpu.prepare(small().plan).unwrap();
    internal(gpu.submit(&program, 0..3, inputs(1)));
}

#[test]
fn more_than_the_device_holds_is_out_of_memory() {
    let Some(mut gpu) = gpu() else { return };
    let mut store = Store::default();
    store.add_state("vast", 1 << 40);
    let error = gpu.load(&store, &mut quiet).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfMemory);
    assert!(error.to_string().contains("vast"), "{error}");
    // Nothing is spoilt by it.
    run_small(&mut gpu, 3).unwrap();
}

#[test]
fn an_error_from_progress_stops_the_load() {
    let Some(mut gpu) = gpu() else { return };
    let mut store = Store::default();
    store.add(Item::Matrix(made_up(9000, 2048, 4)));
    let mut seen = Vec::new();
    let mut stop = |done, total| {
        seen.push((done, total));
        if seen.len() < 2 { Ok(()) } else { Err(Error::new(Kind::Cancelled, "enough")) }
    };
    assert_eq!(gpu.load(&store, &mut stop).unwrap_err().kind(), Kind::Cancelled);
    assert!(seen.len() == 2 && seen[0].0 < seen[1].0 && seen[1].0 < seen[1].1, "{seen:?}");

    let mut last = (0, 1);
    gpu.load(&store, &mut |done, total| {
        last = (done, total);
        Ok(())
    })
    .unwrap();
    assert_eq!(last.0, last.1);
}

/// A matrix in q4_0 with random codes and scales of 1 to 2.
fn made_up(rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut seed = Seed::new(seed);
    let mut bytes = Vec::with_capacity(rows * cols / 32 * 18);
    for _ in 0..rows * cols / 32 {
        bytes.extend([seed.bits() as u8, 0x3c]);
        bytes.extend(seed.bits().to_le_bytes());
        bytes.extend(seed.bits().to_le_bytes());
    }
    Matrix::new("made up", Format::Q4_0, rows, cols, bytes.into()).unwrap()
}

#[test]
fn joined_matrices_of_many_chunks_arrive_whole() {
    let Some(mut gpu) = gpu() else { return };
    let (width, rows) = (2048, 9001);
    let joined = Matrix::join(&made_up(4000, width, 5), &[&made_up(5001, width, 6)]).unwrap();
    let tokens = [0, 1, 3639, 3640, 3641, 3999, 4000, 4001, 7281, rows as u32 - 1];
    let mut store = Store::default();
    let matrix = Operand::Item(store.add(Item::Matrix(joined.clone())));
    let (row_state, x) = (store.add_state("rows", 10 * ROW_WORDS), store.add_state("x", 10 * width));
    let mut plan = Builder::new(&store, "embed", 10, 0);
    let params = embed::Params {
        width: width as u32,
        first_token: 0,
        tokens: rows as u32,
        code_stride: Format::Q4_0.code_words(width) as u32 / 4,
        scale_stride: Format::Q4_0.scale_words(width) as u32,
        scale: 1.0,
    };
    let form = Form { format: Some(Format::Q4_0), ..Form::default() };
    let args = [Operand::Item(row_state), matrix, Operand::Item(x)];
    plan.step::<embed::Embed>("embed", Extent::Tokens, form, params, &args).unwrap();
    gpu.load(&store, &mut quiet).unwrap();
    let program = gpu.prepare(Arc::new(plan.finish())).unwrap();
    let row_words: Vec<u32> = tokens.iter().flat_map(|&token| [token, 0, 0, 0]).collect();
    gpu.write(row_state, 0, bytemuck::cast_slice(&row_words)).unwrap();
    gpu.submit(&program, 0..1, inputs(10)).unwrap();
    let mut got = vec![0.0f32; 10 * width];
    gpu.read(x, 0, bytemuck::cast_slice_mut(&mut got)).unwrap();
    let mut expected = vec![0.0; width];
    for (&token, got) in tokens.iter().zip(got.chunks_exact(width)) {
        joined.decode_row(token as usize, &mut expected);
        assert!(expected == got, "row {token}");
    }
}

#[test]
fn a_lost_device_is_an_error_of_every_verb() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let Small { store, plan, x, .. } = small();
    gpu.load(&store, &mut quiet).unwrap();
    let program = gpu.prepare(plan.clone()).unwrap();
    let ticket = gpu.submit(&program, 0..3, inputs(3)).unwrap();
    let mut sibling = gpu.share();
    gpu.lose();

    let errors = [
        gpu.poll(ticket, PATIENCE).unwrap_err(),
        gpu.submit(&program, 0..3, inputs(3)).unwrap_err(),
        gpu.read(x, 0, &mut [0; 4]).unwrap_err(),
        gpu.write(x, 0, &[0; 4]).unwrap_err(),
        gpu.write(x, 1, &[0; 1]).unwrap_err(),
        gpu.prepare(plan).unwrap_err(),
        gpu.profile(&program, inputs(3)).unwrap_err(),
        gpu.load(&store, &mut quiet).unwrap_err(),
        sibling.load(&store, &mut quiet).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::DeviceLost, "{error}");
    }
    // A new one takes its place.
    run_small(&mut open(Options::default()).unwrap(), 3).unwrap();
}

#[test]
fn a_device_lost_between_verbs_is_an_error_of_the_next() {
    let Small { store, plan, x, .. } = small();
    type Verb = fn(&mut Gpu, &pocketlm::backend::Program, ItemId) -> Result<(), Error>;
    let verbs: [Verb; 4] = [
        |gpu, program, _| gpu.submit(program, 0..3, inputs(3)).map(|_| ()),
        |gpu, _, x| gpu.read(x, 0, &mut [0; 4]),
        |gpu, _, x| gpu.write(x, 0, &[0; 4]),
        |gpu, program, _| gpu.prepare(program.plan.clone()).map(|_| ()),
    ];
    for verb in verbs {
        let Some(mut gpu) = open(Options::default()) else { return };
        gpu.load(&store, &mut quiet).unwrap();
        let program = gpu.prepare(plan.clone()).unwrap();
        gpu.lose();
        assert_eq!(verb(&mut gpu, &program, x).unwrap_err().kind(), Kind::DeviceLost);
    }
}

#[test]
fn devices_are_listed_and_a_missing_one_is_refused() {
    let Some(gpu) = gpu() else { return };
    let devices = devices();
    assert!(devices.iter().any(|device| device.name == gpu.info().name));
    let error = Gpu::open(Choice::Index(devices.len()), Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::DeviceUnavailable);
    if devices.iter().all(|device| device.software) {
        assert_eq!(Gpu::open(Choice::Best, Options::default()).unwrap_err().kind(), Kind::DeviceUnavailable);
    }
}

#[test]
fn steps_are_timed_where_the_device_has_a_clock() {
    let Some(mut gpu) = gpu() else { return };
    let Small { store, plan, .. } = small();
    gpu.load(&store, &mut quiet).unwrap();
    let program = gpu.prepare(plan).unwrap();
    let times = gpu.profile(&program, Inputs { outputs: 0, ..inputs(3) });
    if !gpu.info().timestamps {
        assert_eq!(times.unwrap_err().kind(), Kind::Unsupported);
        return;
    }
    let times = times.unwrap();
    let labels: Vec<&str> = times.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["gate", "add", "beside"]);
    assert!(times.iter().all(|(_, micros)| (0.0..1e6).contains(micros)), "{times:?}");
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn loading_needs_no_second_copy() {
    // Alone in a process, because other tests need memory too.
    let alone = ["--exact", "gpu::loads_a_large_matrix_alone", "--ignored"];
    let output = std::process::Command::new(env::current_exe().unwrap()).args(alone).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by loading_needs_no_second_copy"]
fn loads_a_large_matrix_alone() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let matrix = made_up(91_000, 2048, 7);
    let words = Format::Q4_0.code_words(2048) + Format::Q4_0.scale_words(2048);
    // A software device keeps the matrix in the memory of this process.
    let on_device = if gpu.info().software { 4 * words * matrix.rows() } else { 0 };
    let mut store = Store::default();
    store.add(Item::Matrix(matrix));
    let before = resident();
    let mut peak = before;
    gpu.load(&store, &mut |_, _| {
        peak = peak.max(resident());
        Ok(())
    })
    .unwrap();
    let grown = peak - before;
    assert!(grown < on_device + (64 << 20), "{} MiB more than the matrix", (grown - on_device) >> 20);
}
