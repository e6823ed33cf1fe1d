//! `bench`: how fast a model reads and generates here, in the words of llama-bench, beside what the device's memory
//! gives in the same minutes.
//!
//! A test is repeated in rounds: all tests of a configuration take their turn in each, and the memory is measured
//! between rounds, so that what else the machine does meets all of them alike. The first round does not count.

mod bandwidth;
mod energy;
mod host;
mod kernels;
mod measure;
mod row;
mod table;

use std::num::NonZero;

use pocketlm::{Error, KvType};
use serde_json::{Value, json};

use crate::args::{DeviceChoice, kv_type};
use crate::interrupt::Work;
use crate::output;
use measure::{Config, Subject, Test};
use row::Row;
use table::{Style, Table};

/// Measures tokens per second: reading a prompt (pp) and generating (tg)
///
/// The flags are those of llama-bench; where one takes several values, each combination is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Models, as other commands take them [default: smollm2-135m-instruct]
    #[arg(
        short,
        long,
        value_name = "MODEL,…",
        value_delimiter = ',',
        env = "POCKETLM_MODEL",
        hide_env_values = true
    )]
    model: Vec<String>,
    /// Tokens of the prompt; 0 leaves the test out
    #[arg(short = 'p', long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<u32>,
    /// Tokens to generate; 0 leaves the test out
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_value = "128")]
    n_gen: Vec<u32>,
    /// Tokens that stand before those of the test
    #[arg(short = 'd', long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    n_depth: Vec<u32>,
    /// Sessions that generate at the same time; tokens per second are of all of them
    #[arg(long, visible_alias = "np", value_name = "N,…", value_delimiter = ',', default_value = "1")]
    parallel: Vec<NonZero<u32>>,
    /// Measurements of each, after one that does not count
    #[arg(short, long, value_name = "N", default_value = "5")]
    repetitions: NonZero<u32>,
    /// The most tokens of a prompt that are computed at once
    #[arg(long, visible_alias = "ub", value_name = "N")]
    ubatch_size: Option<NonZero<u32>>,
    /// auto, gpu, cpu, or numbers that `pocketlm devices` lists
    #[arg(
        long,
        visible_alias = "dev",
        value_name = "DEVICE,…",
        value_delimiter = ',',
        env = "POCKETLM_DEVICE",
        default_value = "auto",
        hide_env_values = true
    )]
    device: Vec<DeviceChoice>,
    /// CPU threads [default: one for each core]
    #[arg(
        short,
        long,
        value_name = "N,…",
        value_delimiter = ',',
        env = "POCKETLM_THREADS",
        hide_env_values = true
    )]
    threads: Vec<NonZero<usize>>,
    /// Compute in f32 everywhere
    #[arg(long)]
    exact: bool,
    /// How keys and values are stored: f32, f16, q8, q4 [default: f16, and f32 with --exact]
    #[arg(long, visible_alias = "cache-type", value_name = "TYPE,…", value_delimiter = ',', value_parser = kv_type)]
    kv_type: Vec<KvType>,
    /// Do not measure which kernels are fastest on a GPU, and do not use what was measured
    #[arg(long)]
    no_tune: bool,
    /// Load all models and devices at once and let them take turns: for comparisons on a machine that does other work
    #[arg(long)]
    interleave: bool,
    /// Time each kernel of a pass instead, in GB/s and GFLOP/s
    #[arg(long)]
    kernels: bool,
    /// How to print: JSON rows have llama-bench's names
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    output: Style,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (tests, configs) = (args.tests()?, args.configs());
    if args.kernels {
        return kernels::run(args, &configs);
    }
    let group = if args.interleave { configs.len() } else { 1 };
    let mut table = Table::new(if args.json { None } else { Some(args.output) }, row::COLUMNS);
    for configs in configs.chunks(group.max(1)) {
        let mut subjects = Vec::new();
        for config in configs {
            subjects.push(Subject::load(config, &tests, args.ubatch_size, configs.len() == 1)?);
        }
        let work = Work::begin();
        for round in 0..=args.repetitions.get() {
            for subject in &mut subjects {
                subject.round(round, &work)?;
            }
        }
        for row in subjects.iter().flat_map(Subject::rows) {
            table.add(row)?;
        }
    }
    let rows = table.finish()?;
    if args.json { output::json(&object(&rows)) } else { Ok(()) }
}

impl Args {
    fn tests(&self) -> Result<Vec<Test>, Error> {
        let mut tests = Vec::new();
        for &depth in &self.n_depth {
            let some = |tokens: &&u32| **tokens > 0;
            tests.extend(self.n_prompt.iter().filter(some).map(|&tokens| Test::Prefill { tokens, depth }));
            let decodes = self.n_gen.iter().filter(some).flat_map(|&tokens| {
                let with =
                    move |sessions: &NonZero<u32>| Test::Decode { tokens, depth, sessions: sessions.get() };
                self.parallel.iter().map(with)
            });
            tests.extend(decodes);
        }
        let nothing = || Error::invalid("there is nothing to measure").hint("give -p or -n a number above 0");
        (!tests.is_empty()).then_some(tests).ok_or_else(nothing)
    }

    fn configs(&self) -> Vec<Config> {
        let each = |mut values: Vec<Option<_>>| {
            if values.is_empty() {
                values.push(None);
            }
            values
        };
        let models = each(self.model.iter().cloned().map(Some).collect());
        let threads: Vec<_> = self.threads.iter().copied().map(Some).collect();
        let threads = if threads.is_empty() { vec![None] } else { threads };
        let kv_types: Vec<_> = self.kv_type.iter().copied().map(Some).collect();
        let kv_types = if kv_types.is_empty() { vec![None] } else { kv_types };
        let mut configs = Vec::new();
        for model in &models {
            for &device in &self.device {
                // Threads are the CPU's: a GPU is measured once.
                let counts = if matches!(device, DeviceChoice::Cpu | DeviceChoice::Auto) {
                    &threads[..]
                } else {
                    &[None]
                };
                let each = counts.iter().flat_map(|&threads| kv_types.iter().map(move |&kv| (threads, kv)));
                configs.extend(each.map(|(threads, kv_type)| Config {
                    model: model.clone(),
                    device,
                    threads,
                    exact: self.exact,
                    kv_type,
                    no_tune: self.no_tune,
                }));
            }
        }
        configs
    }
}

/// The GPU that the engine takes for `--device`.
#[cfg(feature = "wgpu")]
fn gpu_choice(device: DeviceChoice) -> pocketlm::backend::wgpu::Choice {
    use pocketlm::backend::wgpu::Choice;
    match device {
        DeviceChoice::Number(index) => Choice::Index(index),
        DeviceChoice::Gpu => Choice::Any,
        DeviceChoice::Auto | DeviceChoice::Cpu => Choice::Best,
    }
}

/// The rows in one object, with what they have in common at the top where that is one model.
fn object(rows: &[Row]) -> Value {
    let tests: Vec<Value> = rows.iter().map(Row::as_test).collect();
    let mut object = json!({ "tests": tests });
    if let (Some(common), Some(row)) = (object.as_object_mut(), rows.first()) {
        for (key, value) in row.as_object() {
            common.insert(key, value);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &str) -> Args {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        let matches = Alone::command().try_get_matches_from(words).expect("a good call");
        Alone::from_arg_matches(&matches).expect("a good call").args
    }

    #[test]
    fn each_combination_is_measured_and_nothing_is_refused() {
        Alone::command().debug_assert();
        let args = parse("-p 512,64 -n 128,0 -d 0,16 -m a.gguf,b.gguf -t 1,2 --device cpu,0");
        let names: Vec<String> = args.tests().unwrap().iter().map(Test::name).collect();
        assert_eq!(names, ["pp512", "pp64", "tg128", "pp512 @ d16", "pp64 @ d16", "tg128 @ d16"]);
        let configs = args.configs();
        assert_eq!(configs.len(), 2 * 3, "two numbers of threads on the CPU, one GPU");
        assert!(configs[3..].iter().all(|config| config.model.as_deref() == Some("b.gguf")));
        let several = parse("-p 0 -n 8 --parallel 1,4").tests().unwrap();
        assert_eq!(several.iter().map(Test::name).collect::<Vec<_>>(), ["tg8", "tg8 x4"]);
        assert!(parse("-p 0 -n 0").tests().is_err());
        assert_eq!(parse("").configs().len(), 1);
    }
}
