//! The SPIR-V of every shader before the judge of Vulkan's rules, `spirv-val`: as naga writes it, and mended.
//!
//! The judge has to know the rule that is broken, as that of SPIRV-Tools 2025.5 does; `./test` installs it.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use pocketlm::backend::wgpu::spirv;
use pocketlm::kernel::{Needs, REPRESENTATIVES, compose};

use crate::shaders::{Shader, every_shader};

/// What `spirv-val` objects to, if anything.
fn objection(words: &[u32], vulkan: &str) -> Option<String> {
    let validator = env::var("SPIRV_VAL").unwrap_or_else(|_| "spirv-val".into());
    let mut child = Command::new(&validator)
        .args(["--target-env", vulkan, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{validator}: {e}; ./test installs it, or name yours in SPIRV_VAL"));
    child.stdin.take().unwrap().write_all(bytemuck::cast_slice(words)).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&said).trim().to_owned())
}

/// Shaders in which every fragment stands at least once: what a format is to a product it is to all, and `embed` has each.
fn shaders() -> Vec<Shader> {
    let is_shown = |shader: &Shader| match shader.form.format {
        Some(format) => shader.kernel.name == "embed" || REPRESENTATIVES.contains(&format),
        None => true,
    };
    every_shader().into_iter().filter(is_shown).collect()
}

fn written(shader: &Shader) -> Vec<u32> {
    let text = compose(shader.variant, shader.form).unwrap();
    spirv::write(&text, shader.variant.needs, &shader.overrides)
        .unwrap_or_else(|e| panic!("{}: {e}", shader.name()))
}

#[test]
fn every_mended_shader_is_valid() {
    let shaders = shaders();
    let mut wrong = Vec::new();
    for shader in &shaders {
        let mended = spirv::mend(&written(shader)).unwrap_or_else(|e| panic!("{}: {e}", shader.name()));
        // The oldest rules that its version of SPIR-V meets, and the newest.
        let oldest = match shader.variant.needs {
            Needs { matrix: 1.., .. } => "vulkan1.3",
            Needs { subgroup: 1.., .. } => "vulkan1.1",
            _ => "vulkan1.0",
        };
        for vulkan in [oldest, "vulkan1.3"] {
            if let Some(what) = objection(&mended, vulkan) {
                wrong.push(format!("{}, {vulkan}: {what}", shader.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} are refused:\n{}", wrong.len(), shaders.len(), wrong.join("\n"));
}

#[test]
fn what_naga_writes_for_workgroup_arrays_is_refused_for_the_known_reason() {
    for shader in shaders() {
        let words = written(&shader);
        let mended = spirv::mend(&words).unwrap();
        let text = compose(shader.variant, shader.form).unwrap();
        let has_arrays =
            text.lines().any(|line| line.starts_with("var<workgroup>") && line.contains("array<"));
        if !has_arrays {
            continue;
        }
        assert_ne!(mended, words, "{}", shader.name());
        let what = objection(&words, "vulkan1.3").unwrap_or_else(|| {
            panic!("{}: unmended, it passes; an older spirv-val does not know the rule", shader.name())
        });
        assert!(what.contains("explicit layout"), "{}: {what}", shader.name());
    }
}
