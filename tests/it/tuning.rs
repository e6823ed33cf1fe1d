//! Measuring variants: once for a device, without a change to what is computed.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::backend::wgpu::{Options, Picks};
use pocketlm::{Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Prompt, Sampling};

use crate::data::{Scratch, fixture};

/// The files of the driver's cache in a folder.
fn caches(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "bin")).collect()
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

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
    let Some(gpu) = crate::gpu::open(Options { exact: true, ..Options::default() }) else { return };
    let folder = Scratch::new();
    let usual = tell(None);
    assert!(!folder.join("tuning.json").exists());
    assert_eq!(tell(Some(folder.to_path_buf())), usual);
    let picks = Picks::read(&folder, gpu.info());
    let known: Vec<&str> = picks.iter().map(|(kernel, _)| kernel).collect();
    assert_eq!(known, ["matmul f32", "matvec f32", "matvec_swiglu f32"]);
    assert_eq!(tell(Some(folder.to_path_buf())), usual);
    assert_eq!(Picks::read(&folder, gpu.info()), picks, "what is known is measured again");

    // What the driver compiled is one file on Vulkan; whatever becomes of it, the story stays, and the file is made anew.
    let kept = caches(&folder);
    assert_eq!(kept.len(), usize::from(gpu.info().backend == "vulkan"), "{kept:?}");
    for file in &kept {
        let whole = fs::read(file).unwrap();
        // Behind 16 bytes of ours stand 17 of wgpu, then the name of the device.
        let (mut other_device, mut other_driver) = (whole.clone(), whole.clone());
        other_device[16 + 17] ^= 1;
        other_driver[16 + 32] ^= 1;
        for planted in [&mut other_device, &mut other_driver] {
            let sum = checksum(&planted[16..]);
            planted[8..16].copy_from_slice(&sum.to_le_bytes());
        }
        for planted in [&whole[..whole.len() / 2], b"not a cache", &other_device, &other_driver] {
            fs::write(file, planted).unwrap();
            assert_eq!(tell(Some(folder.to_path_buf())), usual);
            assert_ne!(fs::read(file).unwrap(), planted);
        }
    }
}
