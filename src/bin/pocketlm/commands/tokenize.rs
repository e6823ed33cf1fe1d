//! `tokenize`: text to tokens and back. A vocabulary without weights is enough.

use pocketlm::engine::tokenizer;
use pocketlm::format::Checkpoint;
use pocketlm::text::Special;
use pocketlm::{Error, Kind};
use serde_json::json;

use crate::args::{Input, InputArgs, JsonArgs, ModelArgs};
use crate::{models, output};

/// Shows the tokens of a text, or the text of tokens
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    input: InputArgs,
    /// Add no token at the beginning, and take the names of special tokens for text; with --ids leave special
    /// tokens out
    #[arg(long)]
    no_special: bool,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let input = args.input.read()?;
    let path = models::resolve(args.model.model.as_deref())?;
    let checkpoint = Checkpoint::open(&path)?;
    let missing = || Error::new(Kind::Unsupported, "the model file has no tokenizer").in_file(&path);
    let tokenizer = tokenizer(&checkpoint)?.ok_or_else(missing)?;
    let (tokens, text) = match input {
        Input::Text(text) => {
            let special = if args.no_special { Special::Plain } else { Special::Parse };
            let first = tokenizer.bos().filter(|_| tokenizer.add_bos() && !args.no_special);
            let mut tokens: Vec<u32> = first.into_iter().collect();
            tokens.extend(tokenizer.encode(&text, special)?);
            (tokens, text)
        }
        Input::Ids(tokens) => {
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= tokenizer.vocab_size()) {
                let what = format!("token {token} is not in the vocabulary of {}", tokenizer.vocab_size());
                return Err(Error::invalid(what).into());
            }
            let text = tokenizer.decode(&tokens, !args.no_special);
            (tokens, text)
        }
    };
    if args.json.json {
        return output::json(&json!({ "tokens": tokens, "text": text }));
    }
    if args.input.ids.is_some() {
        return output::line(&text);
    }
    for token in tokens {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default();
        let shown = match tokenizer.is_special(token) {
            true => tokenizer.token_text(token).unwrap_or_default(),
            false => String::from_utf8_lossy(bytes).into_owned(),
        };
        output::line(&format!("{token:7}  {shown:?}"))?;
    }
    Ok(())
}
