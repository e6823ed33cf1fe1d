//! Compressed forms of Hugging Face's and Meta's folders: each reads the tensors that stand for a weight matrix into a
//! [`Linear`].
//!
//! To add one: one file here with its [`Kind`], one line in the list below.

mod float4;
mod float8;
mod grouped;
mod int8;

use std::fmt;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dialect};

use crate::quant::Matrix;

use super::source::Stem;
use super::{Linear, Transform};

/// A form with the settings of a checkpoint.
pub(super) trait Form: fmt::Debug {
    /// The linear of `stem`, `(cols) -> (rows)`, or `None` where its tensors are not of this form: then it is a plain matrix.
    /// Whatever can be wrong with the bytes is found out here.
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>>;

    /// The rows of `stem` that tokens become, and what is done to them, where they are no matrix that could be a linear's.
    fn embedding(
        &self,
        _stem: &Stem<'_>,
        _rows: u32,
        _cols: u32,
    ) -> Result<Option<(Matrix, Vec<Transform>)>> {
        Ok(None)
    }
}

/// What a file of this room says about its form.
struct Kind {
    /// `quant_method` in the settings.
    method: &'static str,
    /// Reads the settings.
    read: fn(&Checkpoint, &Config) -> Result<Box<dyn Form>>,
}

macro_rules! forms {
    ($($module:ident,)*) => {
        $(mod $module;)*

        const KINDS: &[Kind] = &[$($module::KIND,)*];
    };
}

forms! {
    gptq,
    meta,
    qlr,
    awq,
    bitsandbytes,
    mlx,
    compressed_tensors,
    hqq,
    modelopt,
    torchao,
    tqcompressor,
}

/// The name of the form of a checkpoint, if it is in one.
///
/// # Errors
/// [`crate::Kind::BadFile`] where settings are of the wrong type.
pub fn name(checkpoint: &Checkpoint) -> Result<Option<String>> {
    Ok(settings(checkpoint)?.map(|settings| settings.method))
}

/// Whether the linear `stem` has a bias, under whichever name.
pub(super) fn has_bias(checkpoint: &Checkpoint, stem: &str) -> bool {
    checkpoint.tensors.contains_key(&format!("{stem}.bias")) || tqcompressor::has_bias(checkpoint, stem)
}

/// The form of a checkpoint, if it says one.
pub(super) fn of(checkpoint: &Checkpoint) -> Result<Option<Box<dyn Form>>> {
    let Some(Settings { method, settings, place }) = settings(checkpoint)? else { return Ok(None) };
    let read = || {
        let kind = KINDS.iter().find(|kind| kind.method == method).ok_or_else(|| {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.method).collect();
            Error::unsupported(format!("the quantization method {method:?} is not supported"))
                .hint(format!("supported are {}", known.join(", ")))
        })?;
        (kind.read)(checkpoint, &settings)
    };
    let [file, key] = place;
    let in_settings = |error: Error| error.at(key).in_file(checkpoint.path.with_file_name(file));
    read().map(Some).map_err(in_settings)
}

/// What a checkpoint says of its form.
struct Settings {
    method: String,
    settings: Config,
    /// File and key.
    place: [&'static str; 2],
}

fn settings(checkpoint: &Checkpoint) -> Result<Option<Settings>> {
    match &checkpoint.dialect {
        Dialect::Gguf(_) => Ok(None),
        Dialect::HuggingFace(folder) => {
            let Some(config) = &folder.config else { return Ok(None) };
            let mut keys = ["quantization_config", "quantization"].into_iter();
            if let Some(key) = keys.find(|key| config.get(key).is_some()) {
                let settings = config.object(key)?.unwrap_or_default();
                // MLX has settings like others, and gives them no name.
                let method = settings.text("quant_method")?.unwrap_or("mlx").to_owned();
                return Ok(Some(Settings { method, settings, place: ["config.json", key] }));
            }
            let beside = folder.hf_quant_config.as_ref().map(modelopt::settings).transpose();
            let in_file = |error: Error| error.in_file(checkpoint.path.with_file_name(modelopt::FILE));
            if let Some(settings) = beside.map_err(in_file)?.flatten() {
                let method = modelopt::KIND.method.to_owned();
                return Ok(Some(Settings { method, settings, place: [modelopt::FILE, modelopt::KEY] }));
            }
            Ok(tqcompressor::is_here(checkpoint).then(|| Settings {
                method: tqcompressor::KIND.method.to_owned(),
                settings: Config::default(),
                place: ["config.json", "architectures"],
            }))
        }
        Dialect::Meta(folder) => {
            let key = "quantization_args";
            let params = folder.params.clone().unwrap_or_default();
            let has_scales = checkpoint.tensors.keys().any(|name| name.ends_with(".scales"));
            let is_quantized = has_scales || params.get(key).is_some();
            let place = ["params.json", key];
            Ok(is_quantized.then(|| Settings { method: "meta".to_owned(), settings: params, place }))
        }
    }
}
