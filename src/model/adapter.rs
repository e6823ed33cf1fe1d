//! Low-rank adapters (Hu et al. 2021, LoRA, arXiv 2106.09685): y += weight · α/r · B · (A · x) beside a linear of a base, in the
//! files of PEFT (safetensors beside `adapter_config.json`) and of llama.cpp (GGUF, `general.type` = `adapter`).
//!
//! A is `(r, K)`, B `(N, r)`. The weight is the host's, and can change between submissions.

use std::collections::HashSet;
use std::path::Path;

use regex::RegexBuilder;

use crate::error::{Error, Kind, Result};
use crate::format::{Checkpoint, Config, Dialect, Files, Metadata, Tensor};
use crate::quant::Matrix;

use super::blueprint::{Blueprint, Pairing};
use super::linear::same;
use super::{Naming, Part, Slot, Stems, Weights};

/// The path of an adapter beside a linear.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The adapter, by its place among those of the model.
    pub adapter: usize,
    /// A.
    pub down: Matrix,
    /// B.
    pub up: Matrix,
    /// α/r, or what the file has in its place.
    pub scale: f32,
}

/// Files of weights in a folder of PEFT.
const WEIGHTS: &str = "adapter_model.safetensors";
/// Its settings beside them.
const SETTINGS: &str = "adapter_config.json";
/// Settings of PEFT that would change the numbers, and are not there.
const REFUSED: &[&str] = &[
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "alora_invocation_tokens",
    "target_parameters",
    "trainable_token_indices",
];
/// Beginnings of training that change the base, to which an adapter then belongs.
const OTHER_BASES: &[&str] = &["pissa", "olora", "corda", "lora_ga"];
/// Architectures whose rows of queries and keys llama.cpp's converter reorders.
const REORDERED: &[&str] = &["llama", "smollm3"];
/// Bytes that a pattern of the settings may take when compiled.
const MOST_OF_A_PATTERN: usize = 1 << 20;

/// Opens the adapter at `path`: a folder of PEFT, the weights in it, or a GGUF file. `files` remembers what is read.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn open(files: &Files, path: &Path) -> Result<Checkpoint> {
    let weights = path.join(WEIGHTS);
    let adapter = Checkpoint::open_with(files, if weights.is_file() { &weights } else { path })?;
    // Read when the adapter is put beside the weights.
    files.optional(&adapter.path.with_file_name(SETTINGS))?;
    Ok(adapter)
}

impl Weights {
    /// Puts the paths of an adapter beside the linears; `index` is its place among those of the model.
    ///
    /// # Errors
    /// [`Kind::BadFile`] and [`Kind::Unsupported`] with file, tensor and reason where it does not fit the model.
    pub fn adapt(
        &mut self,
        base: &Dialect,
        blueprint: &Blueprint,
        adapter: &Checkpoint,
        index: usize,
    ) -> Result<()> {
        let settings = Settings::of(adapter).map_err(|error| error.in_file(&adapter.path))?;
        let order = settings.order(base, blueprint);
        let mut read = HashSet::new();
        for (slot, linears) in self.linears_mut(&blueprint.layout) {
            let name = settings.stem(slot, blueprint);
            let Some([a, b]) = settings.pair(adapter, &name)? else { continue };
            let (down, mut up) = pair(a, b)?;
            let rows: u32 = linears.iter().map(|linear| linear.rows()).sum();
            same("outputs of the adapter", up.rows() as u32, rows).map_err(|error| b.locate(error))?;
            if let (Slot::Block(_, Part::Q | Part::K), Some(pairing)) = (slot, order) {
                up = reordered(&up, blueprint.blocks[0].attention.head_dim, pairing)?;
            }
            let scale = settings.scale(&name, a)?;
            let mut first = 0;
            for linear in linears {
                same("inputs of the adapter", down.cols() as u32, linear.cols)
                    .map_err(|error| a.locate(error))?;
                let end = first + linear.rows() as usize;
                let up = if up.rows() == end - first { up.clone() } else { up.slice(first..end) };
                linear.adapters.push(Adapted { adapter: index, down: down.clone(), up, scale });
                first = end;
            }
            read.extend([&a.name, &b.name]);
        }
        match adapter.tensors.values().find(|tensor| !read.contains(&tensor.name)) {
            Some(tensor) => Err(tensor.refuse("the model has no linear for this tensor of an adapter")),
            None if read.is_empty() => Err(Error::bad_file("no adapter is there").in_file(&adapter.path)),
            None => Ok(()),
        }
    }
}

/// What the file of an adapter says beside its tensors.
enum Settings<'a> {
    Peft(Box<Peft>),
    Gguf(&'a Metadata, f32),
}

struct Peft {
    rank: u32,
    alpha: f32,
    by_root: bool,
    ranks: Config,
    alphas: Config,
}

impl<'a> Settings<'a> {
    fn of(adapter: &'a Checkpoint) -> Result<Self> {
        match &adapter.dialect {
            Dialect::Gguf(metadata) => {
                let (key, kind) = ("general.type", metadata.text("general.type")?.unwrap_or("model"));
                if kind != "adapter" {
                    return Err(Error::bad_file(format!("a file of the type {kind:?} is no adapter")).at(key));
                }
                let kind = metadata.text("adapter.type")?.unwrap_or("lora");
                if kind != "lora" {
                    return Err(Error::unsupported(format!(
                        "adapters of the type {kind:?} are not supported"
                    ))
                    .at("adapter.type"));
                }
                let key = "adapter.lora.alpha";
                let alpha = metadata.float(key)?.ok_or_else(|| missing(key))?;
                Ok(Self::Gguf(metadata, alpha as f32))
            }
            Dialect::HuggingFace(_) => {
                let path = adapter.path.with_file_name(SETTINGS);
                let Some(config) = Config::read(&path)? else {
                    return Err(
                        Error::new(Kind::NotFound, "the settings of the adapter are missing").in_file(path)
                    );
                };
                let peft = Peft::read(&config).map_err(|error| error.in_file(path))?;
                Ok(Self::Peft(Box::new(peft)))
            }
            _ => Err(Error::unsupported("an adapter in this container is not supported")
                .hint("PEFT's safetensors and llama.cpp's GGUF are")),
        }
    }

    /// What the names of a linear begin with.
    fn stem(&self, slot: Slot, blueprint: &Blueprint) -> String {
        match (self, blueprint.layout.naming) {
            (Self::Peft(_), naming @ Naming::HuggingFace(_)) => naming.stem(slot),
            (Self::Peft(_), _) => Naming::HuggingFace(&Stems::LLAMA).stem(slot),
            (Self::Gguf(..), _) => Naming::Gguf.stem(slot),
        }
    }

    /// A and B of the linear `stem`, if there.
    fn pair<'t>(&self, adapter: &'t Checkpoint, stem: &str) -> Result<Option<[&'t Tensor; 2]>> {
        let names = match self {
            Self::Peft(_) => ["A", "B"].map(|ab| format!("base_model.model.{stem}.lora_{ab}.weight")),
            Self::Gguf(..) => ["a", "b"].map(|ab| format!("{stem}.weight.lora_{ab}")),
        };
        if names.iter().all(|name| !adapter.tensors.contains_key(name)) {
            return Ok(None);
        }
        let [a, b] = names;
        Ok(Some([adapter.tensor(&a)?, adapter.tensor(&b)?]))
    }

    /// What B · A is multiplied by, where A is `a`.
    fn scale(&self, stem: &str, a: &Tensor) -> Result<f32> {
        let rank = a.dims[0];
        let scale = match self {
            // As llama.cpp takes it: 0 says that the factors are to be taken as they are.
            Self::Gguf(_, 0.0) => 1.0,
            Self::Gguf(_, alpha) => alpha / rank as f32,
            Self::Peft(peft) => {
                let due = of_pattern(&peft.ranks, stem)?.unwrap_or(f64::from(peft.rank));
                if due != rank as f64 {
                    return Err(a.refuse(format!("the rank is {rank}, where the settings say {due}")));
                }
                let alpha = of_pattern(&peft.alphas, stem)?.map_or(peft.alpha, |alpha| alpha as f32);
                alpha / if peft.by_root { (rank as f32).sqrt() } else { rank as f32 }
            }
        };
        match scale.is_finite() {
            true => Ok(scale),
            false => Err(a.refuse(format!("{scale} cannot scale an adapter"))),
        }
    }

    /// The order that rows of queries and keys have to be brought into.
    ///
    /// Hugging Face's rows of a head are in halves that turn together; llama.cpp's converter and Meta have such rows beside
    /// each other.
    fn order(&self, base: &Dialect, blueprint: &Blueprint) -> Option<Pairing> {
        let pairing = blueprint.ropes.first()?.pairing;
        let is_same = matches!(
            (self, base),
            (Self::Peft(_), Dialect::HuggingFace(_)) | (Self::Gguf(..), Dialect::Gguf(_) | Dialect::Meta(_))
        );
        let is_reordered = match self {
            Self::Peft(_) => pairing == Pairing::Interleaved && blueprint.arch != "llama4",
            Self::Gguf(metadata, _) => {
                let arch = metadata.text("general.architecture").ok().flatten();
                arch.is_some_and(|arch| REORDERED.contains(&arch))
            }
        };
        (!is_same && is_reordered).then_some(pairing)
    }
}

impl Peft {
    fn read(config: &Config) -> Result<Self> {
        let kind = config.text("peft_type")?.unwrap_or("LORA");
        if kind != "LORA" {
            return Err(Error::unsupported(format!("adapters of the type {kind:?} are not supported"))
                .at("peft_type"));
        }
        for &key in REFUSED {
            let is_set = config.get(key).is_some_and(|value| match value {
                serde_json::Value::Bool(value) => *value,
                serde_json::Value::Array(values) => !values.is_empty(),
                serde_json::Value::Object(values) => !values.is_empty(),
                _ => true,
            });
            if is_set {
                return Err(Error::unsupported("this setting of an adapter is not supported").at(key));
            }
        }
        let init = config.get("init_lora_weights").and_then(|init| init.as_str()).unwrap_or_default();
        if OTHER_BASES.iter().any(|&other| init.starts_with(other)) {
            let what = format!("an adapter of a base that {init:?} has changed is not supported");
            return Err(Error::unsupported(what)
                .at("init_lora_weights")
                .hint("save it with path_initial_model_for_weight_conversion"));
        }
        let bias = config.text("bias")?.unwrap_or("none");
        if bias != "none" {
            return Err(Error::unsupported(format!("trained biases ({bias:?}) are not supported")).at("bias"));
        }
        Ok(Self {
            rank: config.u32("r")?.ok_or_else(|| missing("r"))?,
            alpha: config.float("lora_alpha")?.ok_or_else(|| missing("lora_alpha"))? as f32,
            by_root: config.bool("use_rslora")?.unwrap_or(false),
            ranks: config.object("rank_pattern")?.unwrap_or_default(),
            alphas: config.object("alpha_pattern")?.unwrap_or_default(),
        })
    }
}

/// The number of the first key that, as a pattern, is the end of `stem`, from the beginning of a word on.
fn of_pattern(patterns: &Config, stem: &str) -> Result<Option<f64>> {
    for (pattern, value) in patterns.iter() {
        let end = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .size_limit(MOST_OF_A_PATTERN)
            .build()
            .map_err(|error| Error::bad_file("the pattern is not sound").at(pattern).caused_by(error))?;
        if end.is_match(stem) {
            let number = value.as_f64();
            return number.map(Some).ok_or_else(|| Error::bad_file("a number belongs here").at(pattern));
        }
    }
    Ok(None)
}

/// A and B as matrices.
fn pair(a: &Tensor, b: &Tensor) -> Result<(Matrix, Matrix)> {
    let (down, up) = (matrix(a)?, matrix(b)?);
    match up.cols() == down.rows() {
        true => Ok((down, up)),
        false => Err(b.refuse(format!("the rank is {}, where that of A is {}", up.cols(), down.rows()))),
    }
}

fn matrix(tensor: &Tensor) -> Result<Matrix> {
    let &[rows, cols] = &tensor.dims[..] else {
        return Err(tensor.refuse(format!("the shape is {:?}, where a matrix belongs", tensor.dims)));
    };
    let matrix =
        Matrix::new(&tensor.name, tensor.format()?, rows as usize, cols as usize, tensor.bytes.clone())
            .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file))?;
    let mut row = vec![0.0; matrix.cols()];
    for index in 0..matrix.rows() {
        matrix.decode_row(index, &mut row);
        if let Some(value) = row.iter().find(|value| !value.is_finite()) {
            return Err(tensor.refuse(format!("row {index} holds {value}")));
        }
    }
    Ok(matrix)
}

/// The rows of each head from the other order of the two into that of `pairing`.
fn reordered(up: &Matrix, head_dim: u32, pairing: Pairing) -> Result<Matrix> {
    let half = (head_dim / 2) as usize;
    let mut bytes = Vec::new();
    for row in 0..up.rows() {
        let (head, at) = (row / (2 * half), row % (2 * half));
        let from = match pairing {
            Pairing::Interleaved => at % 2 * half + at / 2,
            Pairing::HalfSplit => at % half * 2 + at / half,
        };
        let from = 2 * half * head + from;
        if from >= up.rows() {
            return Err(
                Error::bad_file("the outputs are not whole heads").at(format!("tensor {}", up.name()))
            );
        }
        bytes.extend_from_slice(&up.row(from));
    }
    Matrix::new(up.name(), up.format(), up.rows(), up.cols(), bytes.into())
}

fn missing(key: &str) -> Error {
    Error::bad_file("a setting of the adapter is missing").at(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Format;

    #[test]
    fn rows_of_heads_change_their_order_and_return() {
        let rows: Vec<f32> = (0..12).map(|row| row as f32).collect();
        let up = Matrix::new("b", Format::F32, 12, 1, Format::F32.encode(&rows).into()).unwrap();
        let values = |matrix: &Matrix| -> Vec<u32> {
            let value = |row| {
                let mut value = [0.0];
                matrix.decode_row(row, &mut value);
                value[0] as u32
            };
            (0..12).map(value).collect()
        };
        let beside = reordered(&up, 6, Pairing::Interleaved).unwrap();
        assert_eq!(values(&beside), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        let halves = reordered(&beside, 6, Pairing::HalfSplit).unwrap();
        assert_eq!(values(&halves), values(&up));
        assert!(reordered(&up, 8, Pairing::Interleaved).is_err());
    }
}
