//! Shaders as SPIR-V that Vulkan's rules allow: [`write()`], then [`mend`].
//!
//! naga decorates every array and struct with its layout. Vulkan allows that only for memory which the host sees;
//! on types of workgroup memory it is an error (VUID-StandaloneSpirv-None-10684, wgpu issue 7696), which drivers of
//! Adreno GPUs are suspected to answer with wrong results.

use std::collections::{HashMap, HashSet};
use std::iter;

use naga::back::spv::{Capability, Options, WriterFlags, ZeroInitializeWorkgroupMemoryMode, write_vec};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::error::{Error, Result};
use crate::kernel::{Needs, Overrides};

/// What a device has in hardware or has not; wgpu knows and does not say, so that these shaders are left to it.
const LEFT_TO_WGPU: [&str; 2] = ["dot4I8Packed", "dot4U8Packed"];

/// What [`write()`] gives, mended; `None` where the shader is left to wgpu.
///
/// # Errors
/// As [`write()`] and [`mend`].
pub fn assemble(text: &str, needs: Needs, overrides: &Overrides) -> Result<Option<Vec<u32>>> {
    if LEFT_TO_WGPU.iter().any(|function| text.contains(function)) {
        return Ok(None);
    }
    mend(&write(text, needs, overrides)?).map(Some)
}

/// The SPIR-V of a shader in WGSL, without run-time checks, in the oldest version that has what it `needs`.
///
/// # Errors
/// [`crate::Kind::Internal`] where naga refuses the shader.
pub fn write(text: &str, needs: Needs, overrides: &Overrides) -> Result<Vec<u32>> {
    let refused = |what: String| Error::internal(what).at("SPIR-V");
    let parsed = naga::front::wgsl::parse_str(text).map_err(|e| refused(e.emit_to_string(text)))?;
    // The second is `unpack2x16float`.
    let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, needs.subgroup > 0);
    capabilities.set(Capabilities::SHADER_FLOAT16, needs.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, needs.matrix > 0);
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&parsed)
        .map_err(|e| refused(e.emit_to_string(text)))?;
    let constants = overrides.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let (module, info) = naga::back::pipeline_constants::process_overrides(&parsed, &info, None, &constants)
        .map_err(|e| refused(e.to_string()))?;
    write_vec(&module, &info, &options(needs), None).map_err(|e| refused(e.to_string()))
}

/// `words` without layout on types that the host never sees.
///
/// # Errors
/// [`crate::Kind::Internal`] where `words` are no SPIR-V, or where one type is that of workgroup memory and of a
/// buffer: then its layout can neither stay nor go.
pub fn mend(words: &[u32]) -> Result<Vec<u32>> {
    let types = Types::of(words)?;
    let (seen, unseen) = (types.within(is_seen_by_host), types.within(|class| class == WORKGROUP));
    let mut laid_out = instructions(words)?.into_iter().filter_map(layout_of);
    if let Some(both) = laid_out.find(|id| seen.contains(id) && unseen.contains(id)) {
        return Err(Error::internal(format!("type %{both} is of workgroup memory and of a buffer"))
            .at("SPIR-V")
            .hint("give the array in workgroup memory another length"));
    }
    let is_stray = |instruction: &&[u32]| layout_of(instruction).is_some_and(|id| !seen.contains(&id));
    let kept = instructions(words)?.into_iter().filter(|instruction| !is_stray(instruction));
    Ok(iter::once(&words[..HEADER]).chain(kept).flatten().copied().collect())
}

/// Words before the first instruction.
const HEADER: usize = 5;
const WORKGROUP: u32 = 4;

fn is_seen_by_host(class: u32) -> bool {
    const UNIFORM: u32 = 2;
    const PUSH_CONSTANT: u32 = 9;
    const STORAGE_BUFFER: u32 = 12;
    matches!(class, UNIFORM | PUSH_CONSTANT | STORAGE_BUFFER)
}

fn options(needs: Needs) -> Options<'static> {
    let mut capabilities = vec![Capability::Shader, Capability::Matrix];
    if needs.subgroup > 0 {
        capabilities.extend([
            Capability::GroupNonUniform,
            Capability::GroupNonUniformVote,
            Capability::GroupNonUniformArithmetic,
            Capability::GroupNonUniformBallot,
            Capability::GroupNonUniformShuffle,
            Capability::GroupNonUniformShuffleRelative,
            Capability::GroupNonUniformQuad,
        ]);
    }
    if needs.f16 {
        capabilities.push(Capability::Float16);
    }
    if needs.matrix > 0 {
        capabilities.extend([Capability::CooperativeMatrixKHR, Capability::VulkanMemoryModel]);
    }
    Options {
        lang_version: match needs {
            Needs { matrix: 1.., .. } => (1, 6),
            Needs { subgroup: 1.., .. } => (1, 3),
            _ => (1, 0),
        },
        flags: WriterFlags::empty(),
        // Bindings keep the numbers that the shader gives them: 0 and up without a gap, as wgpu's are on Vulkan.
        fake_missing_bindings: true,
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Unchecked,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        // Kernels write workgroup memory before they read it.
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Options::default()
    }
}

/// Each instruction as its words; the first holds its length and its code.
fn instructions(words: &[u32]) -> Result<Vec<&[u32]>> {
    let broken = || Error::internal("an instruction without an end").at("SPIR-V");
    let mut rest = words.get(HEADER..).ok_or_else(broken)?;
    let mut found = Vec::new();
    while let Some(&first) = rest.first() {
        let len = first as usize >> 16;
        let (instruction, after) = rest.split_at_checked(len).filter(|_| len > 0).ok_or_else(broken)?;
        found.push(instruction);
        rest = after;
    }
    Ok(found)
}

/// The type whose layout the instruction says.
fn layout_of(instruction: &[u32]) -> Option<u32> {
    const ARRAY_STRIDE: u32 = 6;
    const MATRIX_STRIDE: u32 = 7;
    const OFFSET: u32 = 35;
    match *instruction {
        // OpDecorate, OpMemberDecorate
        [first, id, ARRAY_STRIDE, ..] if first & 0xffff == 71 => Some(id),
        [first, id, _, MATRIX_STRIDE | OFFSET, ..] if first & 0xffff == 72 => Some(id),
        _ => None,
    }
}

/// What types consist of.
struct Types {
    /// The types in an array or a struct.
    parts: HashMap<u32, Vec<u32>>,
    /// Storage class and type of each pointer.
    pointers: Vec<(u32, u32)>,
}

impl Types {
    fn of(words: &[u32]) -> Result<Self> {
        let mut types = Self { parts: HashMap::new(), pointers: Vec::new() };
        for instruction in instructions(words)? {
            match (instruction[0] & 0xffff, &instruction[1..]) {
                // OpTypeArray and OpTypeRuntimeArray, OpTypeStruct, OpTypePointer
                (28 | 29, &[id, element, ..]) => {
                    types.parts.insert(id, vec![element]);
                }
                (30, [id, members @ ..]) => {
                    types.parts.insert(*id, members.to_vec());
                }
                (32, &[_, class, to]) => types.pointers.push((class, to)),
                _ => {}
            }
        }
        Ok(types)
    }

    /// Every type in memory of the storage classes that `wanted` takes.
    fn within(&self, wanted: impl Fn(u32) -> bool) -> HashSet<u32> {
        let mut found = HashSet::new();
        let mut open: Vec<u32> =
            self.pointers.iter().filter(|(class, _)| wanted(*class)).map(|&(_, to)| to).collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(self.parts.get(&id).into_iter().flatten());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instruction of this code.
    fn op(code: u32, operands: &[u32]) -> Vec<u32> {
        [&[(operands.len() as u32 + 1) << 16 | code], operands].concat()
    }

    fn module(instructions: &[Vec<u32>]) -> Vec<u32> {
        [vec![0x0723_0203, 0x0001_0300, 0, 99, 0], instructions.concat()].concat()
    }

    #[test]
    fn only_layouts_that_no_host_sees_are_dropped() {
        let kept = [
            op(71, &[10, 6, 4]),     // a stride in a storage buffer
            op(72, &[12, 0, 35, 0]), // an offset there
            op(71, &[20, 11, 26]),   // no layout
            op(28, &[10, 1, 2]),     // array 10 of 1
            op(30, &[12, 10]),       // struct 12 of 10
            op(32, &[13, 12, 12]),   // in a storage buffer
            op(28, &[20, 21, 2]),    // array 20 of struct 21
            op(30, &[21, 1, 1]),     //
            op(32, &[22, 4, 20]),    // in workgroup memory
        ];
        let stray = [op(71, &[20, 6, 8]), op(72, &[21, 0, 35, 0]), op(72, &[21, 1, 35, 4])];
        assert_eq!(mend(&module(&[&stray[..], &kept].concat())).unwrap(), module(&kept));
        assert_eq!(mend(&module(&kept)).unwrap(), module(&kept));
    }

    #[test]
    fn a_type_of_both_memories_and_words_that_end_early_are_refused() {
        let both = [op(71, &[10, 6, 4]), op(28, &[10, 1, 2]), op(32, &[11, 4, 10]), op(32, &[12, 12, 10])];
        assert!(mend(&module(&both)).unwrap_err().to_string().contains("%10"));
        // Without layout it matters nowhere.
        assert!(mend(&module(&both[1..])).is_ok());
        let whole = module(&both[1..]);
        assert!(mend(&whole[..whole.len() - 1]).is_err());
        assert!(mend(&whole[..4]).is_err());
        assert!(mend(&[&whole[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_only_wgpu_knows_is_left_to_it() {
        let text = |function: &str| {
            format!(
                "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
                @compute @workgroup_size(1) fn main() {{ y[0] = u32({function}(y[1], y[2])); }}"
            )
        };
        let assemble = |text: &str| assemble(text, Needs::NOTHING, &Overrides::new());
        assert!(assemble(&text("max")).unwrap().is_some());
        assert!(assemble(&text("dot4U8Packed")).unwrap().is_none());
        assert!(assemble("fn main( {").is_err());
    }
}
