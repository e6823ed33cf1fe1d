//! `bench --kernels`: what each kernel of a pass takes, in the order and on the data of the pass.
//!
//! Through the backend's verbs a step at a time, or by the device's own clock where a GPU has one: then the time that
//! a submission takes is not counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Program, Status};
use pocketlm::format::Checkpoint;
use pocketlm::kernel::{KvType, Work as Cost};
use pocketlm::model::{Blueprint, CacheOptions, LowerOptions, Lowered, Phase, Weights, lower};
use pocketlm::plan::{Inputs, Step};
use pocketlm::{Error, Kind, Result as Outcome};
use serde::Serialize;

use super::measure::{Config, Test, context};
use super::row::median;
use super::table::{Column, Table, number};
use crate::args::DeviceChoice;
use crate::interrupt::Work;
use crate::{models, output};

/// No step takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kernel with its shapes, wherever it stands in the pass.
#[derive(Serialize)]
struct Row {
    device: String,
    test: String,
    kernel: &'static str,
    /// The first step of the kind, without its block.
    step: String,
    params: String,
    /// How often it stands in the pass.
    count: usize,
    /// Of one call.
    median_us: f64,
    /// Of all calls in the time of the pass.
    share: f64,
    gb_s: f64,
    gflop_s: f64,
}

const COLUMNS: &[Column<Row>] = &[
    Column { name: "device", width: 26, cell: |row| row.device.clone() },
    Column { name: "test", width: 12, cell: |row| row.test.clone() },
    Column { name: "kernel", width: 10, cell: |row| row.kernel.to_owned() },
    Column { name: "step", width: 22, cell: |row| row.step.clone() },
    Column { name: "count", width: 5, cell: |row| row.count.to_string() },
    Column { name: "µs each", width: 10, cell: |row| number(Some(row.median_us), 1) },
    Column { name: "of pass", width: 7, cell: |row| format!("{:.1} %", 100.0 * row.share) },
    Column { name: "GB/s", width: 8, cell: |row| number(Some(row.gb_s), 2) },
    Column { name: "GFLOP/s", width: 9, cell: |row| number(Some(row.gflop_s), 2) },
];

pub(super) fn run(args: &super::Args, configs: &[Config]) -> anyhow::Result<()> {
    let mut table = Table::new(if args.json { None } else { Some(args.output) }, COLUMNS);
    for config in configs {
        let tests = args.tests()?;
        let mut stage = Stage::load(config, &tests)?;
        let work = Work::begin();
        for test in tests {
            for row in stage.rows(test, args.repetitions.get(), &work)? {
                table.add(row)?;
            }
        }
    }
    let rows = table.finish()?;
    if args.json { output::json(&serde_json::json!({ "kernels": rows })) } else { Ok(()) }
}

/// A backend with a model on it.
struct Stage {
    backend: Opened,
    lowered: Lowered,
    decode: Program,
    prefill: Program,
}

enum Opened {
    Cpu(Box<Cpu>),
    #[cfg(feature = "wgpu")]
    Gpu(Box<pocketlm::backend::wgpu::Gpu>),
}

impl Stage {
    fn load(config: &Config, tests: &[Test]) -> Outcome<Self> {
        let path = models::resolve(config.model.as_deref())?;
        let checkpoint = Checkpoint::open(&path)?;
        let blueprint = Blueprint::read(&checkpoint)?;
        let weights = Weights::gather(&checkpoint, &blueprint)?;
        let mut backend = Opened::new(config)?;
        let context = context(tests.iter().copied())?;
        let prompts =
            tests.iter().map(|test| if let Test::Prefill { tokens, .. } = test { *tokens } else { 1 });
        let kv = config.kv_type.unwrap_or(if config.exact { KvType::F32 } else { KvType::F16 });
        let options = LowerOptions {
            context,
            caches: vec![CacheOptions::full(kv, context, 1)],
            prefill_rows: prompts.max().unwrap_or(1),
            decode_rows: 1,
            outputs: 1,
            top: 64.min(blueprint.vocab),
            max_matrix_bytes: backend.verbs().caps().max_matrix_bytes,
            fused: backend.verbs().caps().fuses,
            calibrates: false,
            int8_activations: false,
        };
        let lowered = lower(&blueprint, &weights, options)?;
        let verbs = backend.verbs();
        verbs.load(&lowered.store, &mut |_, _| Ok(()))?;
        let cache = &lowered.caches[0];
        let decode = verbs.prepare(Arc::clone(&cache.decode.plan))?;
        let prefill = verbs.prepare(Arc::clone(&cache.prefill.plan))?;
        let pages: Vec<u32> = (0..cache.options.pages).collect();
        verbs.write(lowered.ports.pages, 0, bytemuck::cast_slice(&pages))?;
        Ok(Self { backend, lowered, decode, prefill })
    }

    fn rows(&mut self, test: Test, repetitions: u32, work: &Work) -> Outcome<Vec<Row>> {
        let Self { backend, lowered, decode, prefill } = self;
        let (program, phase, count): (&Program, &Phase, u32) = match test {
            Test::Prefill { tokens, .. } => (prefill, &lowered.caches[0].prefill, tokens),
            Test::Decode { .. } => (decode, &lowered.caches[0].decode, 1),
        };
        let first = match test {
            Test::Prefill { depth, .. } => depth,
            Test::Decode { tokens, depth, .. } => depth + tokens / 2,
        };
        let rows: Vec<u32> =
            (first..first + count).flat_map(|position| [position % 256, position, 0, 0]).collect();
        backend.verbs().write(lowered.ports.outputs, 0, bytemuck::cast_slice(&[count - 1]))?;
        let inputs = Inputs { rows: count, outputs: 1, kv_len: first + count };
        let steps: Vec<&Step> = phase.plan.steps.iter().collect();
        let mut times = vec![Vec::new(); steps.len()];
        for round in 0..=repetitions {
            work.check()?;
            // A pass moves its rows on.
            backend.verbs().write(lowered.ports.rows, 0, bytemuck::cast_slice(&rows))?;
            let pass = backend.pass(program, inputs, work)?;
            if round > 0 {
                times.iter_mut().zip(pass).for_each(|(times, time)| times.push(time));
            }
        }
        let times: Vec<f64> = times.into_iter().map(median).collect();
        let device = backend.verbs().caps().name.clone();
        Ok(gather(&device, &test.name(), &steps, &times, inputs))
    }
}

/// The steps of a kind together, those first that take the most of the pass.
fn gather(device: &str, test: &str, steps: &[&Step], times: &[f64], inputs: Inputs) -> Vec<Row> {
    let mut kinds: BTreeMap<(&str, &[u8], String), Vec<usize>> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let key = (step.home().name, step.params.as_slice(), format!("{:?}", step.form));
        kinds.entry(key).or_default().push(at);
    }
    let pass: f64 = times.iter().sum();
    let row = |indices: &Vec<usize>| {
        let step = steps[indices[0]];
        let Cost { bytes, flops } = step
            .call(inputs)
            .map_or_else(Cost::default, |call| step.home().work(&step.params, call, step.form));
        let each = median(indices.iter().map(|&at| times[at]).collect());
        Row {
            device: device.to_owned(),
            test: test.to_owned(),
            kernel: step.home().name,
            step: without_block(&step.label),
            params: step.home().describe(&step.params),
            count: indices.len(),
            median_us: each * 1e6,
            share: indices.iter().map(|&at| times[at]).sum::<f64>() / pass,
            gb_s: bytes / each / 1e9,
            gflop_s: flops / each / 1e9,
        }
    };
    let mut rows: Vec<Row> = kinds.values().map(row).collect();
    rows.sort_by(|a, b| b.share.total_cmp(&a.share));
    rows
}

/// `blk.3.attn_q` is `attn_q`.
fn without_block(label: &str) -> String {
    let rest = label.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    rest.filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(label, |(_, rest)| rest).to_owned()
}

impl Opened {
    fn new(config: &Config) -> Outcome<Self> {
        let cpu = || {
            let threads = config.threads.map(std::num::NonZero::get);
            Cpu::new(CpuOptions { threads, exact: config.exact }).map(|cpu| Self::Cpu(Box::new(cpu)))
        };
        match config.device {
            DeviceChoice::Cpu => cpu(),
            #[cfg(feature = "wgpu")]
            device => {
                use pocketlm::backend::wgpu::{Gpu, Options};
                match Gpu::open(super::gpu_choice(device), Options::default()) {
                    Ok(gpu) => Ok(Self::Gpu(Box::new(gpu))),
                    Err(_) if device == DeviceChoice::Auto => cpu(),
                    Err(error) => Err(error),
                }
            }
            #[cfg(not(feature = "wgpu"))]
            DeviceChoice::Auto => cpu(),
            #[cfg(not(feature = "wgpu"))]
            _ => Err(Error::new(Kind::DeviceUnavailable, "this build has no GPU backend")),
        }
    }

    fn verbs(&mut self) -> &mut dyn Backend {
        match self {
            Self::Cpu(cpu) => &mut **cpu,
            #[cfg(feature = "wgpu")]
            Self::Gpu(gpu) => &mut **gpu,
        }
    }

    /// The seconds of each step of a pass.
    fn pass(&mut self, program: &Program, inputs: Inputs, work: &Work) -> Outcome<Vec<f64>> {
        #[cfg(feature = "wgpu")]
        if let Self::Gpu(gpu) = self
            && gpu.info().timestamps
        {
            let times = gpu.profile(program, inputs)?;
            return Ok(times.into_iter().map(|(_, micros)| micros / 1e6).collect());
        }
        let verbs = self.verbs();
        let mut times = Vec::with_capacity(program.plan.steps.len());
        for at in 0..program.plan.steps.len() {
            work.check()?;
            let begun = Instant::now();
            let ticket = verbs.submit(program, at..at + 1, inputs)?;
            if verbs.poll(ticket, PATIENCE)? == Status::Running {
                return Err(Error::new(Kind::DeviceLost, format!("no answer within {PATIENCE:?}")));
            }
            times.push(begun.elapsed().as_secs_f64());
        }
        Ok(times)
    }
}
