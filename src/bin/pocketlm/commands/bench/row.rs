//! A row of the table: what was measured, with llama-bench's names where it has them.

use std::collections::BTreeMap;

use pocketlm::plan::Item;
use pocketlm::{Format, Model};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::host;
use super::measure::{Config, Sample, Test};
use super::table::{Column, number};
use crate::load;

/// The measurements of a test.
#[derive(Default)]
pub(super) struct Samples(Vec<Sample>);

/// What is printed. Speeds are tokens per second, `avg_ts` and `stddev_ts` over `samples_ts` as llama-bench has them.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    version: &'static str,
    cpu_info: Option<String>,
    gpu_info: Option<String>,
    backends: &'static str,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_ubatch: u32,
    n_threads: Option<usize>,
    type_k: &'static str,
    type_v: &'static str,
    n_prompt: u32,
    n_gen: u32,
    n_depth: u32,
    n_sessions: u32,
    avg_ns: f64,
    stddev_ns: f64,
    avg_ts: f64,
    stddev_ts: f64,
    test: String,
    device: String,
    exact: bool,
    median_ts: f64,
    /// What a token cannot do without reading, and that per second.
    bytes_per_token: Option<f64>,
    gb_s: Option<f64>,
    /// What the memory gives: a GPU copying (bytes read and written), the CPU's threads reading.
    bandwidth_gb_s: Option<f64>,
    bandwidth_share: Option<f64>,
    dispatches_per_token: f64,
    submissions_per_token: f64,
    drains_per_token: f64,
    load_ms: f64,
    ttft_ms: Option<f64>,
    host_peak_bytes: Option<u64>,
    device_bytes: Option<u64>,
    joules_per_token: Option<f64>,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// For the object of `--json`.
    #[serde(skip)]
    common: Map<String, Value>,
}

/// The table, from left to right.
pub(super) const COLUMNS: &[Column<Row>] = &[
    Column { name: "model", width: 22, cell: |row| row.model_type.clone() },
    Column { name: "size", width: 11, cell: |row| mib(Some(row.model_size)) },
    Column { name: "params", width: 9, cell: |row| count(row.model_n_params) },
    Column { name: "device", width: 26, cell: |row| row.device.clone() },
    Column { name: "backend", width: 7, cell: |row| row.backends.to_owned() },
    Column { name: "test", width: 12, cell: |row| row.test.clone() },
    Column { name: "tok/s", width: 17, cell: |row| format!("{:.2} ± {:.2}", row.median_ts, row.stddev_ts) },
    Column { name: "GB/s", width: 7, cell: |row| number(row.gb_s, 2) },
    Column { name: "of memory", width: 9, cell: |row| number(row.bandwidth_gb_s, 2) },
    Column { name: "reached", width: 7, cell: |row| percent(row.bandwidth_share) },
    Column { name: "dispatches", width: 10, cell: |row| number(Some(row.dispatches_per_token), 2) },
    Column { name: "submits", width: 7, cell: |row| number(Some(row.submissions_per_token), 2) },
    Column { name: "drains", width: 6, cell: |row| number(Some(row.drains_per_token), 2) },
    Column { name: "first token", width: 11, cell: |row| milliseconds(row.ttft_ms) },
    Column { name: "host peak", width: 11, cell: |row| mib(row.host_peak_bytes) },
    Column { name: "on device", width: 11, cell: |row| mib(row.device_bytes) },
    Column { name: "J/token", width: 8, cell: |row| number(row.joules_per_token, 4) },
];

impl Samples {
    pub(super) fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    fn each(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.0.iter().map(of).collect()
    }
}

impl Row {
    pub(super) fn new(
        model: &Model,
        config: &Config,
        n_ubatch: u32,
        test: Test,
        samples: &Samples,
        bytes_per_token: Option<f64>,
        bandwidth_gb_s: Option<f64>,
        host_peak_bytes: Option<u64>,
    ) -> Self {
        let info = model.info();
        let on_cpu = info.device.backend == "cpu";
        let tokens = f64::from(test.tokens()) * f64::from(test.sessions());
        let ns = samples.each(|sample| sample.time.as_nanos() as f64);
        let ts: Vec<f64> = ns.iter().map(|ns| tokens * 1e9 / ns).collect();
        let median_ts = median(ts.clone());
        let gb_s = bytes_per_token.map(|bytes| bytes * median_ts / 1e9);
        let joules = samples.0.iter().map(|sample| sample.joules).collect::<Option<Vec<f64>>>();
        let (is_prefill, kv) =
            (matches!(test, Test::Prefill { .. }), model.inspect(|lowered| lowered.options.caches[0].kv));
        let kv = kv.name();
        let threads = on_cpu.then(|| config.cpu_threads());
        let common = json!({
            "model": info.name, "path": info.path, "bytes": info.weight_bytes, "parameters": info.parameters,
            "device": load::device_json(info), "threads": threads, "exact": config.exact,
            "load_ms": info.load_time.as_secs_f64() * 1e3,
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu_info: host::cpu_name(),
            gpu_info: (!on_cpu).then(|| info.device.name.clone()),
            backends: info.device.backend,
            model_filename: info.path.display().to_string(),
            model_type: format!("{} {} {}", info.arch, count(info.parameters), main_format(model)),
            model_size: info.weight_bytes,
            model_n_params: info.parameters,
            n_ubatch,
            n_threads: threads,
            type_k: kv,
            type_v: kv,
            n_prompt: if is_prefill { test.tokens() } else { 0 },
            n_gen: if is_prefill { 0 } else { test.tokens() },
            n_depth: test.depth(),
            n_sessions: test.sessions(),
            avg_ns: mean(&ns),
            stddev_ns: deviation(&ns),
            avg_ts: mean(&ts),
            stddev_ts: deviation(&ts),
            test: test.name(),
            device: info.device.name.clone(),
            exact: config.exact,
            median_ts,
            bytes_per_token,
            gb_s,
            bandwidth_gb_s,
            bandwidth_share: gb_s.zip(bandwidth_gb_s).map(|(reached, there)| reached / there),
            dispatches_per_token: median(samples.each(|sample| sample.dispatches as f64)) / tokens,
            submissions_per_token: median(samples.each(|sample| sample.submissions as f64)) / tokens,
            drains_per_token: median(samples.each(|sample| sample.drains as f64)) / tokens,
            load_ms: info.load_time.as_secs_f64() * 1e3,
            ttft_ms: is_prefill
                .then(|| median(samples.each(|sample| sample.first_token.as_secs_f64() * 1e3))),
            host_peak_bytes,
            device_bytes: (!on_cpu).then(|| info.device.meter.bytes()),
            joules_per_token: joules.map(|joules| median(joules) / tokens),
            samples_ns: ns.iter().map(|&ns| ns as u64).collect(),
            samples_ts: ts,
            common: if let Value::Object(common) = common { common } else { Map::new() },
        }
    }

    /// What the object of `--json` says of the model and the device.
    pub(super) fn as_object(&self) -> Map<String, Value> {
        self.common.clone()
    }

    /// The row in the object of `--json`: short names before llama-bench's.
    pub(super) fn as_test(&self) -> Value {
        let mut rates = self.samples_ts.clone();
        rates.sort_unstable_by(f64::total_cmp);
        let mut row = json!({
            "test": if self.n_prompt > 0 { "prefill" } else { "decode" },
            "tokens": self.n_prompt.max(self.n_gen), "median_tok_s": self.median_ts,
            "min_tok_s": rates.first(), "max_tok_s": rates.last(), "tok_s": rates, "name": self.test,
        });
        if let (Some(row), Ok(Value::Object(all))) = (row.as_object_mut(), serde_json::to_value(self)) {
            for (key, value) in all {
                row.entry(key).or_insert(value);
            }
        }
        row
    }
}

/// The format of most of the weights.
fn main_format(model: &Model) -> &'static str {
    let mut weights: BTreeMap<Format, u64> = BTreeMap::new();
    model.inspect(|lowered| {
        for (_, item) in lowered.store.items() {
            if let Item::Matrix(matrix) = item {
                *weights.entry(matrix.format()).or_default() += matrix.rows() as u64 * matrix.cols() as u64;
            }
        }
    });
    weights.into_iter().max_by_key(|&(_, count)| count).map_or("", |(format, _)| format.name())
}

/// The middle of the values.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    f64::midpoint(at(low), at(high))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of a sample: 0 where there is only one.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let square: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    if values.len() < 2 { 0.0 } else { (square / (values.len() - 1) as f64).sqrt() }
}

fn count(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.2} K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", count as f64 / 1e6),
        _ => format!("{:.2} B", count as f64 / 1e9),
    }
}

fn mib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "n/a".into(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "n/a".into(), |share| format!("{:.0} %", 100.0 * share))
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "n/a".into(), |time| format!("{time:.1} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_the_mean_and_the_deviation() {
        assert_eq!(median(vec![2.0, 9.0, 1.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
        assert_eq!((mean(&[1.0, 3.0]), deviation(&[1.0, 3.0])), (2.0, 2.0f64.sqrt()));
        assert_eq!(deviation(&[7.0]), 0.0);
    }

    #[test]
    fn counts_are_short() {
        assert_eq!(
            [count(1_235_814_400), count(134_515_008), count(260_000)],
            ["1.24 B", "134.52 M", "260.00 K"]
        );
        assert_eq!((mib(None), percent(Some(0.5))), ("n/a".into(), "50 %".into()));
    }
}
