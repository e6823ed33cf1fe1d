//! `pull`: fetches a model and says where it lies.

use serde_json::json;

use crate::args::JsonArgs;
use crate::{models, output};

/// Downloads a model into the cache folder, or checks the copy that is there
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A name that `pocketlm models` lists, or ORG/REPO:FILE on the Hugging Face hub
    name: String,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::pull(&args.name)?;
    if args.json.json {
        return output::json(&json!({ "name": args.name, "path": path }));
    }
    output::line(&path.display().to_string())
}
