//! MobileLLM-Pro: Llama 4 without experts, with a window in three of four layers. (Huber et al. 2025, arXiv 2511.06719.)

use super::{Arch, llama4};

pub(super) const ARCH: Arch = Arch {
    name: "mobilellm-pro",
    class: "MobileLLMP1ForCausalLM",
    stems: &llama4::STEMS,
    from_gguf: None,
    from_hugging_face: llama4::from_hugging_face,
};
