//! `synth`: a model of a published shape with random weights.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use pocketlm::model::synth::{self, PRESETS, Preset};
use pocketlm::{Error, Format, Result as Outcome};

use crate::interrupt::Work;
use crate::output;

/// Writes a model with the exact shapes of a published one and random weights
///
/// It says nothing sensible at the speed of the real one, here and in llama.cpp: to measure without a download.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shape
    #[arg(value_parser = PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name)))]
    preset: String,
    /// The format of the weights; tied embeddings are as llama.cpp's quantizer makes them
    #[arg(long, value_name = "FORMAT", default_value = "q4_0", ignore_case = true)]
    #[arg(value_parser = PossibleValuesParser::new(Format::all_in_gguf().map(Format::name)))]
    to: String,
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// The same seed gives the same file
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Layers, fewer than the shape has: for tests and small devices
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let unknown = |what: &str| Error::invalid(format!("{what} is not known"));
    let mut preset = Preset::named(&args.preset).ok_or_else(|| unknown(&args.preset))?;
    let format = Format::from_name(&args.to).ok_or_else(|| unknown(&args.to))?;
    if let Some(layers) = args.layers {
        if !(1..=preset.layers).contains(&layers) {
            let what = format!("{layers} layers were asked for and {} has {}", preset.name, preset.layers);
            return Err(Error::invalid(what).hint(format!("ask for 1 to {}", preset.layers)).into());
        }
        preset.layers = layers;
    }
    let bytes = written_whole(&args.out, |file| {
        let work = Work::begin();
        let bar = output::progress("writing", 0);
        let outcome = synth::write(&preset, format, args.seed, file, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            work.check()
        });
        bar.finish_and_clear();
        outcome
    })?;
    let mib = bytes as f64 / f64::from(1 << 20);
    output::line(&format!("{}: {mib:.1} MiB, {}, {format}", args.out.display(), preset.name))
}

/// Writes a file that gets its name when it is whole; gives its bytes.
fn written_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Outcome<()>) -> Outcome<u64> {
    let located = |error: std::io::Error| Error::from(error).in_file(path);
    let name = path.file_name().ok_or_else(|| Error::invalid("this names no file").in_file(path))?;
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(part);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(located)?);
    let outcome = write(&mut file).map_err(|error| error.in_file(path)).and_then(|()| {
        file.flush().map_err(located)?;
        let bytes = file.get_ref().metadata().map_err(located)?.len();
        fs::rename(&part, path).map_err(located)?;
        Ok(bytes)
    });
    if outcome.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&part);
    }
    outcome
}
