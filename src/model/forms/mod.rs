//! Compressed forms of Hugging Face folders: each reads the tensors that stand for a weight matrix into a [`Linear`].
//!
//! To add one: one file here with its [`Kind`], one line in the list below.

mod grouped;

use std::fmt;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dialect};

use super::Linear;
use super::source::Stem;

/// A form with the settings of a checkpoint.
pub(super) trait Form: fmt::Debug {
    /// The linear of `stem`, `(cols) -> (rows)`, or `None` where its tensors are not of this form: then it is a plain matrix.
    /// Whatever can be wrong with the bytes is found out here.
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>>;
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
}

/// The form of a checkpoint, if it says one.
pub(super) fn of(checkpoint: &Checkpoint) -> Result<Option<Box<dyn Form>>> {
    let Some((method, settings)) = settings(checkpoint)? else { return Ok(None) };
    let read = || {
        let kind = KINDS.iter().find(|kind| kind.method == method).ok_or_else(|| {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.method).collect();
            Error::unsupported(format!("the quantization method {method:?} is not supported"))
                .hint(format!("supported are {}", known.join(", ")))
        })?;
        (kind.read)(checkpoint, &settings)
    };
    let in_settings =
        |error: Error| error.at("quantization_config").in_file(checkpoint.path.with_file_name("config.json"));
    read().map(Some).map_err(in_settings)
}

/// The name and the settings of the form.
fn settings(checkpoint: &Checkpoint) -> Result<Option<(String, Config)>> {
    let Dialect::HuggingFace(folder) = &checkpoint.dialect else { return Ok(None) };
    let Some(config) = &folder.config else { return Ok(None) };
    let Some(settings) = config.object("quantization_config")? else { return Ok(None) };
    let method = settings.text("quant_method")?.unwrap_or("unnamed").to_owned();
    Ok(Some((method, settings)))
}
