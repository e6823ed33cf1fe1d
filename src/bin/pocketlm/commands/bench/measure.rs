//! One model on one device: what is loaded, what is repeated, what is kept of it.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use pocketlm::base::Seed;
use pocketlm::kernel::KernelId;
use pocketlm::model::Lowered;
use pocketlm::plan::{Inputs, Item, Operand};
use pocketlm::{
    Error, Event, Finish, GenerateOptions, KvType, Limits, LoadOptions, Model, Pace, Prompt,
    Result as Outcome, Sampling, Session, Stream,
};

use super::bandwidth::Bandwidth;
use super::energy::Energy;
use super::host;
use super::row::{Row, Samples};
use crate::args::{DeviceArgs, DeviceChoice, ModelArgs};
use crate::interrupt::Work;
use crate::load;

/// A model on a device.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) model: Option<String>,
    pub(super) device: DeviceChoice,
    pub(super) threads: Option<NonZero<usize>>,
    pub(super) exact: bool,
    pub(super) kv_type: Option<KvType>,
    pub(super) no_tune: bool,
}

/// What is timed: tokens that follow `depth` others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// A prompt, to its first token.
    Prefill { tokens: u32, depth: u32 },
    /// Tokens one after the other, of each of so many sessions at once.
    Decode { tokens: u32, depth: u32, sessions: u32 },
}

/// A loaded model and what was measured so far.
pub(super) struct Subject {
    model: Model,
    config: Config,
    ubatch: u32,
    tests: Vec<(Test, Samples)>,
    bandwidth: Bandwidth,
    energy: Option<Energy>,
    host_peak: Option<u64>,
    /// Whether the process holds nothing but this subject.
    alone: bool,
}

impl Config {
    pub(super) fn model_args(&self) -> ModelArgs {
        ModelArgs { model: self.model.clone() }
    }

    pub(super) fn device_args(&self) -> DeviceArgs {
        DeviceArgs {
            device: self.device,
            threads: self.threads,
            exact: self.exact,
            int8_activations: false,
            limits: Limits::Device,
            no_tune: self.no_tune,
            // A row is of the device that it names.
            pinned: true,
            pace: Pace::Full,
            sustain: None,
        }
    }

    /// Threads that compute on the CPU.
    pub(super) fn cpu_threads(&self) -> usize {
        self.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

impl Test {
    /// As llama-bench calls it: `pp512`, `tg128 @ d512`; several sessions are `tg128 x4`.
    pub(super) fn name(&self) -> String {
        let depth = |depth: u32| if depth > 0 { format!(" @ d{depth}") } else { String::new() };
        match *self {
            Self::Prefill { tokens, depth: d } => format!("pp{tokens}{}", depth(d)),
            Self::Decode { tokens, depth: d, sessions: 1 } => format!("tg{tokens}{}", depth(d)),
            Self::Decode { tokens, depth: d, sessions } => format!("tg{tokens} x{sessions}{}", depth(d)),
        }
    }

    pub(super) fn tokens(&self) -> u32 {
        match *self {
            Self::Prefill { tokens, .. } | Self::Decode { tokens, .. } => tokens,
        }
    }

    pub(super) fn sessions(&self) -> u32 {
        match *self {
            Self::Prefill { .. } => 1,
            Self::Decode { sessions, .. } => sessions,
        }
    }

    pub(super) fn depth(&self) -> u32 {
        match *self {
            Self::Prefill { depth, .. } | Self::Decode { depth, .. } => depth,
        }
    }

    /// Positions that it takes: a prompt is followed by a token, and decoding begins with one.
    pub(super) fn context(&self) -> Option<u32> {
        self.tokens().checked_add(self.depth())?.checked_add(2)
    }
}

/// Positions for the longest test.
///
/// # Errors
/// `InvalidArgument` where they cannot be counted.
pub(super) fn context(tests: impl Iterator<Item = Test>) -> Outcome<u32> {
    let contexts = tests.map(|test| test.context()).collect::<Option<Vec<u32>>>();
    let longest = contexts.and_then(|contexts| contexts.into_iter().max());
    longest.ok_or_else(|| Error::invalid("that many tokens fit in no context"))
}

impl Subject {
    pub(super) fn load(
        config: &Config,
        tests: &[Test],
        ubatch: Option<NonZero<u32>>,
        alone: bool,
    ) -> Outcome<Self> {
        let context = context(tests.iter().copied())?;
        let sessions = tests.iter().map(Test::sessions).max().unwrap_or(1);
        let outputs = LoadOptions::default().outputs.max(sessions);
        let kv_type = config.kv_type;
        let options =
            LoadOptions { context: Some(context), sessions, outputs, kv_type, ..LoadOptions::default() };
        let prefill = ubatch.map_or(options.prefill, NonZero::get);
        let options = LoadOptions { prefill, ..options };
        if alone {
            host::forget_peak();
        }
        let model = load::load(&config.model_args(), &config.device_args(), &options)?;
        let device = &model.info().device;
        let energy = Energy::of(device.backend == "cpu", &device.name);
        let bandwidth = match device.backend {
            "cpu" => Bandwidth::of_cpu(config.cpu_threads()),
            _ => Bandwidth::of_gpu(config.device),
        };
        let tests = tests.iter().map(|&test| (test, Samples::default())).collect();
        let ubatch = prefill.min(context);
        Ok(Self { model, config: config.clone(), ubatch, tests, bandwidth, energy, host_peak: None, alone })
    }

    /// Each test once; round 0 does not count.
    pub(super) fn round(&mut self, round: u32, work: &Work) -> Outcome<()> {
        let Self { model, tests, energy, .. } = self;
        for (test, samples) in tests {
            work.check()?;
            let name = test.name();
            log::info!("{} of {name}", if round == 0 { "warm-up".into() } else { format!("round {round}") });
            let sample = sample(model, *test, round.into(), energy.as_mut(), work)?;
            if round > 0 {
                samples.add(sample);
            }
        }
        if round == 0 && self.alone {
            // Before memory is taken to measure its speed.
            self.host_peak = host::peak();
        }
        work.check()?;
        self.bandwidth.measure()
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let Self { model, config, ubatch, bandwidth, host_peak, .. } = self;
        let bandwidth = bandwidth.median();
        let row = |(test, samples): &(Test, Samples)| {
            let bytes = match *test {
                Test::Prefill { .. } | Test::Decode { sessions: 2.., .. } => None,
                Test::Decode { tokens, depth, .. } => {
                    Some(model.inspect(|lowered| bytes_of_a_token(lowered, depth + tokens.div_ceil(2))))
                }
            };
            Row::new(model, config, *ubatch, *test, samples, bytes, bandwidth, *host_peak)
        };
        self.tests.iter().map(row).collect()
    }
}

/// What one measurement gave.
pub(super) struct Sample {
    pub(super) time: Duration,
    pub(super) first_token: Duration,
    pub(super) dispatches: u64,
    pub(super) submissions: u64,
    pub(super) drains: u64,
    pub(super) joules: Option<f64>,
}

fn sample(
    model: &Model,
    test: Test,
    seed: u64,
    mut energy: Option<&mut Energy>,
    work: &Work,
) -> Outcome<Sample> {
    let vocab = u64::from(model.info().vocab);
    let mut seed = Seed::new(seed);
    let mut random = |count: u32| (0..count).map(|_| seed.below(vocab) as u32).collect::<Vec<u32>>();
    let mut sessions = Vec::new();
    let (prompt, predict) = match test {
        Test::Prefill { tokens, .. } => (tokens, 1),
        Test::Decode { tokens, .. } => (1, tokens),
    };
    for _ in 0..test.sessions() {
        sessions.push((model.session(), random(test.depth())));
    }
    if test.depth() > 0 {
        answers(&mut sessions, 1, work)?;
    }
    for (_, tokens) in &mut sessions {
        tokens.extend(random(prompt));
    }
    let meter = model.info().device.meter.clone();
    let (dispatches, submissions, drains) = (meter.dispatches(), meter.submissions(), meter.drains());
    if let Some(energy) = energy.as_deref_mut() {
        energy.begin();
    }
    let begun = Instant::now();
    let finishes = answers(&mut sessions, predict, work)?;
    let total = begun.elapsed();
    let joules = energy.and_then(|energy| energy.joules(total));
    for Finish { timings, .. } in &finishes {
        if timings.cached_tokens != test.depth() || timings.generated_tokens != predict {
            let what = format!("{timings:?} where {} cached and {predict} generated were due", test.depth());
            return Err(Error::internal(what).at(test.name()));
        }
    }
    let first_token = finishes.iter().map(|finish| finish.timings.first_token).max().unwrap_or(total);
    let time = match test {
        Test::Prefill { .. } => first_token,
        Test::Decode { .. } => total,
    };
    Ok(Sample {
        time,
        first_token,
        dispatches: meter.dispatches() - dispatches,
        submissions: meter.submissions() - submissions,
        drains: meter.drains() - drains,
        joules,
    })
}

/// Generates `predict` tokens after those of each session, all at once, or stops at Ctrl-C.
fn answers(sessions: &mut [(Session, Vec<u32>)], predict: u32, work: &Work) -> Outcome<Vec<Finish>> {
    let options = GenerateOptions {
        max_tokens: Some(predict),
        sampling: Sampling { temperature: Some(0.0), repeat_penalty: Some(1.0), ..Sampling::default() },
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let begin = |(session, tokens): &mut (Session, Vec<u32>)| {
        session.generate(&Prompt::Tokens(tokens.clone()), &options)
    };
    let streams = sessions.iter_mut().map(begin).collect::<Outcome<Vec<Stream>>>()?;
    // Who waits for one computes for all.
    streams.into_iter().map(|stream| end(stream, work)).collect()
}

fn end(stream: Stream, work: &Work) -> Outcome<Finish> {
    for event in stream {
        work.check()?;
        if let Event::Finished(finish) = event? {
            return Ok(finish);
        }
    }
    Err(Error::internal("an answer ended without its last event"))
}

/// Bytes of weights, and of keys and values at `kv_len` positions, that decoding a token cannot do without.
fn bytes_of_a_token(lowered: &Lowered, kv_len: u32) -> f64 {
    let inputs = Inputs { rows: 1, outputs: 1, kv_len };
    let phase = &lowered.caches[0].decode;
    let bytes_of = |operand: &Operand, kernel: KernelId| match operand {
        Operand::Item(id) => match lowered.store.item(*id) {
            Item::Matrix(matrix) if kernel == KernelId::Embed => matrix.row_bytes() as f64,
            Item::Matrix(matrix) => matrix.rows() as f64 * matrix.row_bytes() as f64,
            Item::Vector { .. } | Item::State { .. } => 0.0,
        },
        Operand::Temp(_) => 0.0,
    };
    let steps = phase.plan.steps.iter().take(phase.argmax);
    let of_step = |step: &pocketlm::plan::Step| -> f64 {
        let weights: f64 = step.args.iter().map(|operand| bytes_of(operand, step.kernel)).sum();
        match step.call(inputs) {
            Some(call) if matches!(step.kernel, KernelId::Attend | KernelId::AttendSplit) => {
                weights + step.home().work(&step.params, call, step.form).bytes
            }
            _ => weights,
        }
    };
    steps.map(of_step).sum()
}
