//! The wgpu backend: its seven verbs on whatever device there is, software included.
//!
//! Without a device these tests fail, unless `POCKETLM_NO_GPU=1` says that this is known.

use std::env;
use std::sync::{Mutex, OnceLock, PoisonError};

use pocketlm::backend::wgpu::{Choice, Gpu, Options, devices};
use pocketlm::backend::{Backend, probe};
use pocketlm::base::Seed;
use pocketlm::kernel::KernelId;
use pocketlm::plan::{Item, Store};
use pocketlm::quant::Matrix;
use pocketlm::{Error, Format, Kind};

/// A backend over the one device that all these tests share, or `None` where there may be none.
pub(crate) fn gpu() -> Option<Gpu> {
    static SHARED: OnceLock<Mutex<Option<Gpu>>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Mutex::new(open(Options { checked: true, ..Options::default() })));
    shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Gpu::share)
}

/// A device of its own, or `None` where there may be none.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn open(options: Options) -> Option<Gpu> {
    if env::var("POCKETLM_NO_GPU").is_ok_and(|value| value == "1") {
        eprintln!("left out: POCKETLM_NO_GPU=1");
        return None;
    }
    Some(
        Gpu::open(Choice::Any, options)
            .expect("a device, if only in software; POCKETLM_NO_GPU=1 to go without"),
    )
}

fn quiet(_: u64, _: u64) -> Result<(), Error> {
    Ok(())
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
fn every_case_of_every_kernel_agrees_with_its_twin() {
    let Some(mut gpu) = gpu() else { return };
    let cases = KernelId::ALL.iter().flat_map(|id| id.kernel().cases());
    let failures: Vec<String> =
        cases.filter_map(|case| probe::check(&mut gpu, &case).err()).map(|error| error.to_string()).collect();
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
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
