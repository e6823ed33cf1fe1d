//! Mistral: Llama with a sliding window over all layers, in its first version. In GGUF it goes by the name of Llama.
//! (Jiang et al. 2023, arXiv 2310.06825.)

use crate::error::Result;
use crate::model::{Blueprint, Stems};

use super::{Arch, Folder};

pub(super) const ARCH: Arch = Arch {
    name: "mistral",
    class: "MistralForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: None,
    from_hugging_face,
};

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let mut blueprint = folder.like_llama()?;
    folder.slide(&mut blueprint, |_| true)?;
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}
