//! GGUF files in parts: `NAME-00001-of-00003.gguf` and so on, side by side.
//!
//! Each part is a GGUF file with tensors of its own, and says `split.no` (from 0), `split.count` and
//! `split.tensors.count` (of all parts); everything else that is known of the model stands in the first. Parts are found
//! by their names alone, so what a part says has to fit its name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::Bytes;
use crate::error::{Error, Kind, Result};

use super::{Files, Metadata, Tensor};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What a part says of itself.
struct Part {
    number: u32,
    count: u32,
    tensors: Option<u32>,
}

impl Part {
    fn of(metadata: &Metadata) -> Result<Self> {
        let of = |key| metadata.u32(key);
        Ok(Self { number: of(NUMBER)?.unwrap_or(0), count: of(COUNT)?.unwrap_or(1), tensors: of(TENSORS)? })
    }
}

/// Adds the tensors of the other parts to those of the file at `path`, whose metadata this is; `read` reads a part.
///
/// # Errors
/// [`Kind::Unsupported`] where the file is another part than the first, or has no name by which the others are found;
/// [`Kind::NotFound`] where one is missing; [`Kind::BadFile`] where parts contradict each other; those of `read`.
pub(super) fn gather(
    files: &Files,
    path: &Path,
    metadata: &Metadata,
    tensors: &mut BTreeMap<String, Tensor>,
    read: impl Fn(&Path, &Bytes) -> Result<(Metadata, BTreeMap<String, Tensor>)>,
) -> Result<()> {
    let first = Part::of(metadata)?;
    if first.count <= 1 {
        return Ok(());
    }
    let stem = stem_of(path, first.count);
    if first.number != 0 {
        let what =
            format!("this is part {} of a model in {} parts", u64::from(first.number) + 1, first.count);
        let name = stem.map_or_else(|| "NAME".to_owned(), |stem| stem.to_owned());
        let hint = format!("open the first, {}", name_of(&name, 1, first.count));
        return Err(Error::unsupported(what).at(NUMBER).hint(hint));
    }
    let Some(stem) = stem else {
        let what = format!("a model in {} parts, whose first is not called so", first.count);
        let hint = format!("give the parts their names back: {}", name_of("NAME", 1, first.count));
        return Err(Error::unsupported(what).at(COUNT).hint(hint));
    };
    for number in 1..first.count {
        let part = path.with_file_name(name_of(stem, number + 1, first.count));
        add(files, &part, &first, number, tensors, &read).map_err(|error| error.in_file(&part))?;
    }
    let found = tensors.len();
    match first.tensors {
        Some(expected) if expected as usize != found => Err(Error::bad_file(format!(
            "{found} tensors are in the parts, where there should be {expected}"
        ))
        .at(TENSORS)),
        _ => Ok(()),
    }
}

/// Adds the tensors of the part at `path`, whose number is to be `number`.
fn add(
    files: &Files,
    path: &Path,
    first: &Part,
    number: u32,
    tensors: &mut BTreeMap<String, Tensor>,
    read: &impl Fn(&Path, &Bytes) -> Result<(Metadata, BTreeMap<String, Tensor>)>,
) -> Result<()> {
    let bytes = files.map(path).map_err(|error| match error.kind() {
        Kind::NotFound => error.hint(format!("the model has {} parts, which lie side by side", first.count)),
        _ => error,
    })?;
    let (metadata, more) = read(path, &bytes)?;
    let part = Part::of(&metadata)?;
    let differs = |what: &str, is: u32, key: &str, should: u32| {
        (is != should).then(|| Error::bad_file(format!("{what} {is}, where {should} belongs here")).at(key))
    };
    let wrong = differs("the part says that it is number", part.number, NUMBER, number)
        .or_else(|| differs("the number of parts is", part.count, COUNT, first.count))
        .or_else(|| differs("the number of tensors is", part.tensors?, TENSORS, first.tensors?));
    if let Some(error) = wrong {
        return Err(error.hint("the file is of another model, or was renamed"));
    }
    for (name, tensor) in more {
        if let Some(before) = tensors.get(&name) {
            let what = format!("the tensor is in {} too", before.file.display());
            return Err(tensor.refuse(what));
        }
        tensors.insert(name, tensor);
    }
    Ok(())
}

/// Whether a file is named as a part behind the first.
pub(super) fn is_later_part(path: &Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let numbers = name.rsplit_once("-of-").and_then(|(name, count)| Some((name.rsplit_once('-')?.1, count)));
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(number, count)| is_number(number) && is_number(count) && number != "00001")
}

/// `NAME` of the first of `count` parts, or of any other.
fn stem_of(path: &Path, count: u32) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let (stem, number) = name.strip_suffix(&format!("-of-{count:05}.gguf"))?.rsplit_once('-')?;
    (number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(stem)
}

fn name_of(stem: &str, number: u32, count: u32) -> String {
    format!("{stem}-{number:05}-of-{count:05}.gguf")
}
