//! Measuring variants: once for a device, without a change to what is computed.

use std::path::PathBuf;

use pocketlm::backend::wgpu::{Options, Picks};
use pocketlm::{Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Prompt, Sampling};

use crate::data::{Scratch, fixture};

fn tell(tuning: Option<PathBuf>) -> String {
    let options = EngineOptions { device: Device::Gpu, exact: true, tuning, ..EngineOptions::default() };
    let path = fixture("stories260k/stories260K-f32.gguf");
    let model = Engine::new(options).load(path, &LoadOptions::default(), |_| Ok(())).unwrap();
    let options = GenerateOptions {
        max_tokens: Some(20),
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        ..GenerateOptions::default()
    };
    model.session().generate(&Prompt::Raw(String::new()), &options).unwrap().finish().unwrap().text
}

#[test]
fn variants_are_measured_once_and_the_story_stays() {
    let Some(gpu) = crate::gpu::open(Options::default()) else { return };
    let folder = Scratch::new();
    let usual = tell(None);
    assert!(!folder.join("tuning.json").exists());
    assert_eq!(tell(Some(folder.to_path_buf())), usual);
    let picks = Picks::read(&folder, gpu.info());
    let known: Vec<&str> = picks.iter().map(|(kernel, _)| kernel).collect();
    assert_eq!(known, ["matmul f32", "matvec f32", "matvec_swiglu f32"]);
    assert_eq!(tell(Some(folder.to_path_buf())), usual);
    assert_eq!(Picks::read(&folder, gpu.info()), picks, "what is known is measured again");
}
