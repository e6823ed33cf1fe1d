//! `embed`: where a text lies among others.

use pocketlm::LoadOptions;
use serde_json::json;

use crate::args::{
    AdapterArgs, ContextArgs, DeviceArgs, FormArgs, InputArgs, JsonArgs, ModelArgs, Pool, VerifyArgs,
};
use crate::{load, output};

/// Shows the embedding of a text: a direction, as numbers whose squares add up to 1
///
/// Texts of like meaning have like directions; the sum of the products of two embeddings says how like.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    form: FormArgs,
    /// How the rows of the text become one
    #[arg(long, value_enum, default_value_t = Pool::Mean)]
    pooling: Pool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Rows that are read back at a time.
const OUTPUTS: u32 = 32;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let prompt = args.form.prompt(args.input.read()?);
    let options = args.verify.on(args.adapters.beside(args.context.options()))?;
    let model = load::load(&args.model, &args.device, &LoadOptions { outputs: OUTPUTS, ..options })?;
    let embedding = model.embed(&prompt, args.pooling.into())?;
    if args.json.json {
        return output::json(&json!({ "embedding": embedding, "tokens": model.tokens(&prompt)?.len() }));
    }
    let numbers: Vec<String> = embedding.iter().map(|number| format!("{number:.6}")).collect();
    output::line(&numbers.join(" "))
}
