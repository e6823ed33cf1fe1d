//! `models`: the manifest as a table.

use indicatif::BinaryBytes;
use serde_json::json;

use crate::args::JsonArgs;
use crate::models::{self, DEFAULT};
use crate::output;

/// Lists the models that can be named with -m, and which are here already
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let known = models::known();
    let places = known.iter().map(models::find).collect::<pocketlm::Result<Vec<_>>>()?;
    if args.json.json {
        let rows: Vec<_> = known
            .iter()
            .zip(&places)
            .map(|(model, path)| {
                json!({
                    "name": model.name, "about": model.about, "licence": model.licence, "bytes": model.bytes,
                    "sha256": model.sha256, "default": model.name == DEFAULT, "path": path,
                })
            })
            .collect();
        return output::json(&json!({ "models": rows }));
    }
    for (model, path) in known.iter().zip(places) {
        let place = path.map_or_else(|| "not here yet".to_owned(), |path| path.display().to_string());
        let size = BinaryBytes(model.bytes);
        output::line(&format!("{:24} {size:>10}  {:12} {place}", model.name, model.licence))?;
    }
    Ok(())
}
