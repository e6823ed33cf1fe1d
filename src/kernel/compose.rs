//! Joining the fragments of a variant to the shader of a step.

use super::{Epilogue, Form, Fragment, KvType, Variant};
use crate::error::{Error, Result};

/// The WGSL of `variant` for a step of `form`: fragments in order, one blank line between them.
///
/// # Errors
/// [`crate::Kind::Internal`] where the form lacks what a fragment stands for.
pub fn compose(variant: &Variant, form: Form) -> Result<String> {
    let texts: Result<Vec<_>> = variant.fragments.iter().map(|fragment| text(*fragment, form)).collect();
    Ok(texts?.join("\n"))
}

fn text(fragment: Fragment, form: Form) -> Result<&'static str> {
    let found = match fragment {
        Fragment::Text(text) => Some(text),
        Fragment::Quant => form.format.map(crate::quant::Format::wgsl),
        Fragment::Codes => form.format.and_then(crate::quant::Format::wgsl_codes),
        Fragment::Kv(types) => form.kv.filter(|kv| types.contains(kv)).map(|kv| match kv {
            KvType::F32 => include_str!("../../shaders/part/kv_f32.wgsl"),
            KvType::F16 => {
                concat!(
                    include_str!("../../shaders/part/half_bits.wgsl"),
                    include_str!("../../shaders/part/kv_f16.wgsl")
                )
            }
            KvType::Q8 => {
                concat!(
                    include_str!("../../shaders/part/kv_q8.wgsl"),
                    include_str!("../../shaders/part/kv_place.wgsl")
                )
            }
            KvType::Q4 => {
                concat!(
                    include_str!("../../shaders/part/kv_q4.wgsl"),
                    include_str!("../../shaders/part/kv_place.wgsl")
                )
            }
        }),
        Fragment::ByKv(floats, blocks) => form.kv.map(|kv| if kv.is_blocks() { blocks } else { floats }),
        Fragment::Epilogue => form.epilogue.map(|epilogue| match epilogue {
            Epilogue::Store => include_str!("../../shaders/part/epilogue_store.wgsl"),
            Epilogue::Add => include_str!("../../shaders/part/epilogue_add.wgsl"),
        }),
    };
    found.ok_or_else(|| Error::internal(format!("{form:?} says nothing of the fragment {fragment:?}")))
}
