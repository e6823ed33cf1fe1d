//! `manifest`: says what the files of a model must hold.

use std::fs;
use std::path::PathBuf;

use pocketlm::format::{Checkpoint, Files};
use pocketlm::model::open_adapter;
use pocketlm::{Error, Manifest, Result};
use serde_json::json;

use crate::args::{AdapterArgs, JsonArgs};
use crate::{models, output};

/// Writes the manifest of a model: the SHA-256 of every chunk of every file that loading it reads
///
/// `--verify MANIFEST` holds the files against it. Sign it with `minisign -S -m MANIFEST` and name the public key with
/// --key, and it proves who made it, too.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model: a file, a folder, or a name
    model: String,
    /// Where the manifest goes [default: MODEL.manifest.json, or manifest.json in the folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::resolve(Some(&args.model))?;
    let files = Files::default();
    Checkpoint::open_with(&files, &path)?;
    for adapter in &args.adapters.lora {
        open_adapter(&files, &adapter.path)?;
    }
    let root = match path.is_dir() {
        true => path.as_path(),
        false => path.parent().unwrap_or(&path),
    };
    let manifest = Manifest::of(root, &files)?;
    let file = match (&args.output, path.is_dir()) {
        (Some(output), _) => output.clone(),
        (None, true) => path.join("manifest.json"),
        (None, false) => beside(&path)?,
    };
    fs::write(&file, manifest.to_json()?).map_err(|error| Error::from(error).in_file(&file))?;
    if args.json.json {
        let files: Vec<_> =
            manifest.files().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        return output::json(&json!({ "path": file, "files": files }));
    }
    output::line(&file.display().to_string())
}

fn beside(path: &std::path::Path) -> Result<PathBuf> {
    let mut name =
        path.file_name().ok_or_else(|| Error::invalid("this names no file").in_file(path))?.to_owned();
    name.push(".manifest.json");
    Ok(path.with_file_name(name))
}
