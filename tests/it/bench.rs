//! `bench` as a user types it: which rows it prints, in which form, and that its figures hang together.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::data::{Scratch, fixture, real_model};
use crate::program::{End, pocketlm};

fn text_of(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Benches the stories model on the CPU.
fn bench(words: &str) -> End {
    let model = text_of(&fixture("stories260k/stories260K-f32.gguf"));
    let words =
        [&["bench", "-m", &model, "--device", "cpu"][..], &words.split(' ').collect::<Vec<_>>()].concat();
    End::of(&pocketlm(&Scratch::new(), &words).output().expect("the program starts"))
}

fn printed(words: &str) -> String {
    let end = bench(words);
    assert_eq!(end.code, Some(0), "{end:?}");
    end.stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {row}"))
}

#[test]
fn one_object_tells_the_speed_of_both() {
    let text = printed("-p 32 -n 8 -r 2 --json");
    assert_eq!(text.lines().count(), 1);
    let bench = json(&text);
    for key in ["model", "path", "bytes", "parameters", "device", "threads", "exact", "load_ms"] {
        assert!(bench.get(key).is_some(), "{key} is missing in {bench}");
    }
    assert_eq!(bench["device"]["backend"], "cpu");
    let tests = bench["tests"].as_array().expect("tests");
    let names: Vec<(&str, u64)> =
        tests.iter().map(|row| (row["test"].as_str().unwrap(), row["tokens"].as_u64().unwrap())).collect();
    assert_eq!(names, [("prefill", 32), ("decode", 8)]);
    for row in tests {
        assert_eq!(row["tok_s"].as_array().map(Vec::len), Some(2));
        let (least, median, most) =
            (number(row, "min_tok_s"), number(row, "median_tok_s"), number(row, "max_tok_s"));
        assert!(0.0 < least && least <= median && median <= most, "{row}");
    }
}

#[test]
fn rows_have_the_names_of_llama_bench_and_figures_that_agree() {
    let text = printed("-p 32,0 -n 8 -d 0,16 -t 1,2 -r 3 -o jsonl");
    let rows: Vec<Value> = text.lines().map(json).collect();
    let names: Vec<(&str, u64)> =
        rows.iter().map(|row| (row["test"].as_str().unwrap(), row["n_threads"].as_u64().unwrap())).collect();
    let tests = ["pp32", "tg8", "pp32 @ d16", "tg8 @ d16"];
    let each: Vec<(&str, u64)> = [1, 2].iter().flat_map(|&n| tests.map(|test| (test, n))).collect();
    assert_eq!(names, each);
    for row in &rows {
        for key in ["model_filename", "model_type", "backends", "type_k", "device", "cpu_info"] {
            assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {row}");
        }
        let (prompt, predicted) = (number(row, "n_prompt"), number(row, "n_gen"));
        let tokens = prompt + predicted;
        assert!(prompt == 0.0 || predicted == 0.0, "{row}");
        let nanoseconds: Vec<f64> = serde_json::from_value(row["samples_ns"].clone()).unwrap();
        let rates: Vec<f64> = serde_json::from_value(row["samples_ts"].clone()).unwrap();
        assert_eq!((nanoseconds.len(), rates.len()), (3, 3));
        let mean = rates.iter().sum::<f64>() / 3.0;
        assert!((number(row, "avg_ts") / mean - 1.0).abs() < 1e-9);
        let square: f64 = rates.iter().map(|rate| (rate - mean) * (rate - mean)).sum();
        assert!((number(row, "stddev_ts") - (square / 2.0).sqrt()).abs() <= 1e-6 * mean);
        for (time, rate) in nanoseconds.iter().zip(&rates) {
            assert!((time * rate / 1e9 / tokens - 1.0).abs() < 1e-6, "{row}");
        }
        assert!(number(row, "bandwidth_gb_s") > 0.1, "{row}");
        assert!(number(row, "dispatches_per_token") > 0.0, "{row}");
        if predicted > 0.0 {
            // One submission a token on the CPU, and each weight of the embedding and the blocks read once.
            assert_eq!(number(row, "submissions_per_token"), 1.0, "{row}");
            let bytes = number(row, "bytes_per_token");
            assert!(bytes > 0.9 * number(row, "model_size"), "{row}");
            assert!((number(row, "gb_s") / (bytes * number(row, "median_ts") / 1e9) - 1.0).abs() < 1e-6);
        } else {
            assert!(number(row, "ttft_ms") > 0.0 && number(row, "submissions_per_token") < 1.0, "{row}");
        }
    }
    let decode = |index: usize| number(&rows[index], "bytes_per_token");
    assert!(decode(3) > decode(1), "keys and values of 16 more positions");
}

#[test]
fn the_other_forms_say_the_same() {
    let array = json(&printed("-p 16 -n 4 -r 1 -o json"));
    assert_eq!(array.as_array().map(Vec::len), Some(2));
    let csv = printed("-p 16 -n 4 -r 1 -o csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].split(',').count(), array[0].as_object().unwrap().len() - 2, "all but the samples");
    assert!(lines[1].contains("\"pp16\"") && lines[2].contains("\"tg4\""));
    let table = printed("-p 16 -n 4 -r 1");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4);
    let cells = |line: &str| line.split('|').count();
    assert!(lines.iter().all(|line| cells(line) == cells(lines[0]) && line.starts_with('|')), "{table}");
    assert!(lines[2].contains("pp16") && lines[2].contains('±') && lines[3].contains("tg4"), "{table}");
}

#[test]
fn models_take_turns_and_kernels_are_timed() {
    let model = text_of(&fixture("stories260k/stories260K-f32.gguf"));
    let both = format!("-m {model} -p 8 -n 0 -r 1 --interleave -o jsonl");
    assert_eq!(printed(&both).lines().count(), 2, "the same model twice");
    let text = printed("-p 8 -n 4 -r 1 --kernels -o jsonl");
    let rows: Vec<Value> = text.lines().map(json).collect();
    for test in ["pp8", "tg4"] {
        let of_test: Vec<&Value> = rows.iter().filter(|row| row["test"] == test).collect();
        let share: f64 = of_test.iter().map(|row| number(row, "share")).sum();
        assert!((share - 1.0).abs() < 1e-6, "{share} of {test}");
        let product = if test == "pp8" { "matmul" } else { "matvec" };
        for kernel in [product, "attend", "rope", "rms_norm"] {
            let row = of_test.iter().find(|row| row["kernel"] == kernel);
            assert!(row.is_some_and(|row| number(row, "gb_s") > 0.0), "{kernel} of {test} in {text}");
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    bench("-p 0 -n 0").fails(2, &["-p", "-n"]);
    bench("-p 100000").fails(2, &["100002", "context"]);
    bench("-p 1 -o xml").fails(2, &["xml", "jsonl"]);
    bench("-p 1 -t 0").fails(2, &["0"]);
    bench("-p 1 --json -o md").fails(2, &["--json"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_in_order() {
    use std::io::{BufRead, BufReader};
    let model = text_of(&real_model());
    let words = ["bench", "-m", &model, "--device", "cpu", "-p", "512", "-n", "2000", "-r", "100", "-v"];
    let mut child =
        pocketlm(&Scratch::new(), &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("warm-up")), "it begins");
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let last = lines.last();
    assert_eq!((child.wait().unwrap().code(), last.as_deref()), (Some(130), Some("error: interrupted")));
}

#[cfg(feature = "wgpu")]
#[test]
fn a_gpu_counts_what_it_does_and_holds() {
    if crate::gpu::open(pocketlm::backend::wgpu::Options::default()).is_none() {
        return;
    }
    let model = text_of(&fixture("stories260k/stories260K-f32.gguf"));
    let words = ["bench", "-m", &model, "--device", "gpu", "-p", "8", "-n", "4", "-r", "1", "-o", "jsonl"];
    let end = End::of(&pocketlm(&Scratch::new(), &words).output().expect("the program starts"));
    assert_eq!(end.code, Some(0), "{end:?}");
    let decode = json(end.stdout.lines().nth(1).expect("two rows"));
    assert!(number(&decode, "device_bytes") > number(&decode, "model_size"), "weights and what is computed");
    // Eight a layer, of which there are five, four more, and the seal.
    assert!((10.0..=45.0).contains(&number(&decode, "dispatches_per_token")), "{decode}");
    assert_eq!(number(&decode, "submissions_per_token"), 1.0, "{decode}");
    // For the last token.
    assert!(number(&decode, "drains_per_token") <= 0.25, "{decode}");
    assert!(number(&decode, "bandwidth_gb_s") > 0.1, "{decode}");
}
