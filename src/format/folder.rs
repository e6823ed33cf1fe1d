//! What stands beside the weights in a folder, and weights cut into shards with an index: the same whatever
//! container the weights are in.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde_json::Value;

use crate::base::Bytes;
use crate::error::{Error, Kind, Result};

use super::{Config, Dialect, Files, HuggingFace, Meta, Tensor};

/// A tensor that every checkpoint with Meta's names has, and no other.
const META_TENSOR: &str = "tok_embeddings.weight";

/// The dialect of the `tensors`, by their names, with the files beside them.
pub(super) fn dialect(files: &Files, folder: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<Dialect> {
    Ok(match tensors.contains_key(META_TENSOR) {
        true => Dialect::Meta(Box::new(Meta {
            params: Config::read_with(files, &folder.join("params.json"))?,
            tokenizer_model: files.optional(&folder.join("tokenizer.model"))?,
        })),
        false => Dialect::HuggingFace(Box::new(hugging_face(files, folder)?)),
    })
}

fn hugging_face(files: &Files, folder: &Path) -> Result<HuggingFace> {
    let tokenizer_config = Config::read_with(files, &folder.join("tokenizer_config.json"))?;
    let template_path = folder.join("chat_template.jinja");
    let chat_template = match files.optional(&template_path)? {
        Some(bytes) => Some(String::from_utf8(bytes.to_vec()).map_err(|error| {
            Error::bad_file("the template is not UTF-8")
                .at_offset(error.utf8_error().valid_up_to() as u64)
                .in_file(&template_path)
        })?),
        None => tokenizer_config.as_ref().and_then(Config::chat_template),
    };
    Ok(HuggingFace {
        config: Config::read_with(files, &folder.join("config.json"))?,
        generation_config: Config::read_with(files, &folder.join("generation_config.json"))?,
        hf_quant_config: Config::read_with(files, &folder.join("hf_quant_config.json"))?,
        tokenizer_json: files.optional(&folder.join("tokenizer.json"))?,
        tokenizer_model: files.optional(&folder.join("tokenizer.model"))?,
        tokenizer_config,
        chat_template,
    })
}

/// The tensors of all shards, each checked to be where the index says; `single` reads a shard.
pub(super) fn sharded(
    files: &Files,
    folder: &Path,
    index: &[u8],
    single: fn(&Path, &Bytes) -> Result<BTreeMap<String, Tensor>>,
) -> Result<BTreeMap<String, Tensor>> {
    let index = Config::parse(index)?;
    let map = index.object("weight_map")?.ok_or_else(|| Error::bad_file("there is no weight_map"))?;
    let mut names_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in map.iter() {
        let refuse = |what: String| Error::bad_file(what).at(format!("tensor {name}"));
        let Value::String(shard) = shard else { return Err(refuse("the shard is not a string".to_owned())) };
        if !is_plain(shard) {
            return Err(refuse(format!("the shard {shard:?} is not a file name inside the folder")));
        }
        names_of.entry(shard).or_default().push(name);
    }
    let mut tensors = BTreeMap::new();
    for (shard, names) in names_of {
        let path = folder.join(shard);
        let bytes = files.map(&path).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, "a shard of the model is missing")
                .in_file(&path)
                .hint("download all files of the model"),
            _ => error,
        })?;
        let mut held = single(&path, &bytes).map_err(|error| error.in_file(&path))?;
        for name in names {
            let tensor = held.remove(name).ok_or_else(|| {
                Error::bad_file("the index says that the shard holds a tensor, but it does not")
                    .at(format!("tensor {name}"))
                    .in_file(&path)
            })?;
            tensors.insert(name.to_owned(), tensor);
        }
        if let Some(name) = held.keys().next() {
            log::debug!("{}: {} tensors that the index lacks, such as {name}", path.display(), held.len());
        }
    }
    Ok(tensors)
}

/// Whether `shard` names a file in the folder itself, on every system.
fn is_plain(shard: &str) -> bool {
    let mut parts = Path::new(shard).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one && !shard.contains(['/', '\\', ':', '\0'])
}
