//! Each variant of each kernel in each form, proven without a device: it parses, validates with the capabilities of
//! the floor and what the variant says it needs, stays within the floor's limits, takes the arguments that its
//! home lists, and can be written as SPIR-V and as MSL.

use std::collections::BTreeSet;

use naga::back::{msl, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess, TypeInner};
use pocketlm::Format;
use pocketlm::kernel::{
    ArgKind, Epilogue, Form, Fragment, IMMEDIATES, Kernel, KernelId, Needs, Overrides, Variant, compose,
};

/// Bytes of workgroup memory of the floor.
const WORKGROUP_BYTES: u32 = 16384;
/// Threads of a workgroup of the floor.
const WORKGROUP_THREADS: u32 = 256;
/// Storage buffers of the floor.
const STORAGE_BUFFERS: usize = 8;

/// Every form that the fragments of a variant tell apart.
pub(crate) fn forms(variant: &Variant) -> Vec<Form> {
    let has = |wanted: fn(&Fragment) -> bool| variant.fragments.iter().any(wanted);
    let mut forms = vec![Form::default()];
    if has(|fragment| matches!(fragment, Fragment::Quant)) {
        let each =
            |form: &Form| Format::ALL.iter().map(|&f| Form { format: Some(f), ..*form }).collect::<Vec<_>>();
        forms = forms.iter().flat_map(each).collect();
    }
    if has(|fragment| matches!(fragment, Fragment::Codes)) {
        let with_codes = || Format::ALL.iter().filter(|format| format.wgsl_codes().is_some());
        let each = |form: &Form| with_codes().map(|&f| Form { format: Some(f), ..*form }).collect::<Vec<_>>();
        forms = forms.iter().flat_map(each).collect();
    }
    let kv_types = variant.fragments.iter().find_map(|fragment| match fragment {
        Fragment::Kv(types) => Some(*types),
        _ => None,
    });
    if let Some(types) = kv_types {
        let each = |form: &Form| types.iter().map(|&kv| Form { kv: Some(kv), ..*form }).collect::<Vec<_>>();
        forms = forms.iter().flat_map(each).collect();
    }
    if has(|fragment| matches!(fragment, Fragment::Epilogue)) {
        let each = |form: &Form| {
            [Epilogue::Store, Epilogue::Add].map(|epilogue| Form { epilogue: Some(epilogue), ..*form })
        };
        forms = forms.iter().flat_map(each).collect();
    }
    forms
}

fn capabilities(needs: Needs) -> Capabilities {
    // The second is `unpack2x16float`, which WGSL has without an extension.
    let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, needs.subgroup > 0);
    capabilities.set(Capabilities::SHADER_FLOAT16, needs.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, needs.matrix > 0);
    capabilities
}

/// Parses, validates and resolves `overrides`.
fn proven(source: &str, needs: Needs, overrides: &Overrides) -> Result<(Module, ModuleInfo), String> {
    let parsed = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(needs));
    let info = validator.validate(&parsed).map_err(|e| e.emit_to_string(source))?;
    let constants = overrides.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let (module, info) = naga::back::pipeline_constants::process_overrides(&parsed, &info, None, &constants)
        .map_err(|e| format!("overrides {overrides:?}: {e}"))?;
    Ok((module.into_owned(), info.into_owned()))
}

/// The limits of the floor.
fn within_the_floor(module: &Module) -> Result<(), String> {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let size = |ty| layouter[ty].size;
    let space = |space: AddressSpace| {
        module.global_variables.iter().filter(move |(_, variable)| variable.space == space)
    };
    let workgroup: u32 = space(AddressSpace::WorkGroup).map(|(_, v)| size(v.ty).next_multiple_of(16)).sum();
    if workgroup > WORKGROUP_BYTES {
        return Err(format!("{workgroup} bytes of workgroup memory"));
    }
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    if threads > WORKGROUP_THREADS {
        return Err(format!("{threads} threads in a workgroup"));
    }
    let immediates: u32 = space(AddressSpace::Immediate).map(|(_, v)| size(v.ty)).sum();
    if immediates as usize > IMMEDIATES {
        return Err(format!("{immediates} bytes of immediates"));
    }
    let storage = module
        .global_variables
        .iter()
        .filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. }))
        .count();
    if storage > STORAGE_BUFFERS {
        return Err(format!("{storage} storage buffers"));
    }
    Ok(())
}

/// The bindings are the home's arguments, the immediates its parameters.
fn as_the_home_says(module: &Module, kernel: &Kernel) -> Result<(), String> {
    let written: Vec<bool> = kernel
        .args
        .iter()
        .flat_map(|kind| match kind {
            ArgKind::Matrix => vec![false, false],
            kind => vec![kind.is_written()],
        })
        .collect();
    let mut bindings = Vec::new();
    let mut immediates = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        match variable.space {
            AddressSpace::Storage { access } => {
                let place = variable.binding.ok_or("a storage buffer without a binding")?;
                bindings.push(((place.group, place.binding), access.contains(StorageAccess::STORE)));
            }
            AddressSpace::Immediate => immediates.push(variable.ty),
            AddressSpace::WorkGroup | AddressSpace::Private => {}
            space => return Err(format!("a variable in {space:?}")),
        }
    }
    bindings.sort_unstable();
    let expected: Vec<_> = written.iter().enumerate().map(|(i, &written)| ((0, i as u32), written)).collect();
    if bindings != expected {
        return Err(format!("the bindings are {bindings:?} where the arguments are {expected:?}"));
    }
    let [immediates] = immediates[..] else { return Err(format!("{} immediates", immediates.len())) };
    let TypeInner::Struct { members, span } = &module.types[immediates].inner else {
        return Err("the immediates are not a struct".into());
    };
    let names: Vec<_> = members.iter().filter_map(|member| member.name.as_deref()).collect();
    if *span as usize != 8 + kernel.params_size || names[..2] != ["rows", "kv_len"] {
        return Err(format!("the immediates are {names:?}, {span} bytes"));
    }
    Ok(())
}

/// The names of the fields in `Params`, in WGSL and as the home's `Debug` prints them.
fn fields_of(module: &Module) -> Vec<String> {
    let params = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params"));
    match params.map(|(_, ty)| &ty.inner) {
        Some(TypeInner::Struct { members, .. }) => members.iter().filter_map(|m| m.name.clone()).collect(),
        _ => Vec::new(),
    }
}

fn write(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    for version in [(1, 3), (1, 6)] {
        let options = spv::Options { lang_version: version, ..spv::Options::default() };
        let words = spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
        if words.len() < 100 {
            return Err(format!("SPIR-V of {} words", words.len()));
        }
    }
    let options =
        msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..msl::Options::default() };
    let (text, _) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .map_err(|e| format!("MSL: {e}"))?;
    if !text.contains("kernel void main_") {
        return Err("MSL without the kernel".into());
    }
    Ok(())
}

fn judge(source: &str, kernel: &Kernel, needs: Needs, overrides: &Overrides) -> Result<(), String> {
    let (module, info) = proven(source, needs, overrides)?;
    within_the_floor(&module)?;
    // As it stands in the file: with its overrides resolved, a module has lost the bindings that it does not use.
    let parsed = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    as_the_home_says(&parsed, kernel)?;
    write(&module, &info)
}

fn prove(kernel: &Kernel, variant: &Variant, form: Form, overrides: &Overrides) -> Result<(), String> {
    let source = compose(variant, form).map_err(|e| e.to_string())?;
    judge(&source, kernel, variant.needs, overrides)
}

/// One shader that can come to be on a device.
pub(crate) struct Shader {
    pub(crate) kernel: &'static Kernel,
    pub(crate) variant: &'static Variant,
    pub(crate) form: Form,
    pub(crate) overrides: Overrides,
}

impl Shader {
    pub(crate) fn name(&self) -> String {
        format!("{} {}, {:?}, {:?}", self.kernel.name, self.variant.name, self.form, self.overrides)
    }
}

/// Each variant in each form, with the overrides of its cases and with none.
pub(crate) fn every_shader() -> Vec<Shader> {
    let mut shaders = Vec::new();
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        let cases = kernel.cases();
        for variant in kernel.variants {
            for form in forms(variant) {
                let of_form = cases
                    .iter()
                    .filter(|case| case.form == form && kernel.suits(&case.params, form, variant));
                // In bits, because f64 has no order.
                let overrides: BTreeSet<Vec<(&str, u64)>> = of_form
                    .map(|case| kernel.overrides(&case.params, variant))
                    .chain([Overrides::new()])
                    .map(|overrides| overrides.into_iter().map(|(name, v)| (name, v.to_bits())).collect())
                    .collect();
                shaders.extend(overrides.into_iter().map(|overrides| {
                    let overrides =
                        overrides.into_iter().map(|(name, v)| (name, f64::from_bits(v))).collect();
                    Shader { kernel, variant, form, overrides }
                }));
            }
        }
    }
    shaders
}

#[test]
fn every_variant_in_every_form_passes_for_every_platform() {
    let shaders = every_shader();
    let wrong: Vec<String> = shaders
        .iter()
        .filter_map(|shader| {
            let what = prove(shader.kernel, shader.variant, shader.form, &shader.overrides).err()?;
            Some(format!("{}: {what}", shader.name()))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} fail:\n{}", wrong.len(), shaders.len(), wrong.join("\n"));
}

#[test]
fn the_last_variant_needs_nothing_and_names_are_unique() {
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        let names: BTreeSet<_> = kernel.variants.iter().map(|variant| variant.name).collect();
        assert_eq!(names.len(), kernel.variants.len(), "{}", kernel.name);
        let last = kernel.variants.last().expect("a variant");
        assert_eq!(last.needs, Needs::NOTHING, "{}", kernel.name);
    }
}

#[test]
fn the_proof_says_no() {
    let kernel = KernelId::Swiglu.kernel();
    let good = compose(&kernel.variants[0], Form::default()).unwrap();
    let judge = |source: &str| judge(source, kernel, Needs::NOTHING, &Overrides::new());
    assert_eq!(judge(&good), Ok(()));
    let planted = [
        ("a type error", good.replace("let gate = x[at];", "let gate = x;")),
        ("subgroups beyond the floor", good.replace("let gate = x[at];", "let gate = subgroupAdd(x[at]);")),
        ("too many threads", good.replace("@workgroup_size(64)", "@workgroup_size(257)")),
        (
            "too much workgroup memory",
            good.replace("let gate = x[at];", "big[id.x] = 0.0; let gate = big[id.y];")
                + "var<workgroup> big: array<f32, 4100>;",
        ),
        ("an argument that is written", good.replace("read> x", "read_write> x")),
        ("an argument missing", good.replace("@binding(1)", "@binding(2)")),
        ("a parameter missing", good.replace("    kv_len: u32,\n", "")),
        ("a parameter too many", good.replace("    width: u32,\n", "    width: u32,\n    height: u32,\n")),
    ];
    for (what, source) in planted {
        assert_ne!(source, good, "{what} was not planted");
        assert!(judge(&source).is_err(), "{what} passed");
    }
}

#[test]
fn parameters_have_the_names_of_the_home() {
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        for variant in kernel.variants {
            let source = compose(variant, forms(variant)[0]).unwrap();
            let (module, _) = proven(&source, variant.needs, &Overrides::new()).unwrap();
            let names = fields_of(&module);
            let printed = kernel.describe(&vec![0; kernel.params_size]);
            let expected: Vec<String> = printed
                .split(['{', ','])
                .filter_map(|field| field.split_once(':').map(|(name, _)| name.trim().to_owned()))
                .collect();
            assert_eq!(names[2..], expected, "{} {}", kernel.name, variant.name);
        }
    }
}

/// What drivers are known to get wrong in a shader, though it is right: two-dimensional workgroups of 64 on Adreno
/// (executorch pull request 22328), arithmetic of subgroups beside cooperative matrices on NVIDIA (blade issue 333).
fn hazards(text: &str, needs: Needs) -> Vec<&'static str> {
    let sizes = text
        .match_indices("@workgroup_size(")
        .map(|(at, _)| text[at..].split(')').next().unwrap_or_default());
    let mut found = Vec::new();
    if sizes.into_iter().any(|size| size.contains(',')) {
        found.push("a workgroup of more than one dimension");
    }
    let arithmetic = [
        "subgroupAdd",
        "subgroupMul",
        "subgroupMin",
        "subgroupMax",
        "subgroupInclusive",
        "subgroupExclusive",
    ];
    if needs.matrix > 0 && arithmetic.iter().any(|name| text.contains(name)) {
        found.push("arithmetic of subgroups beside cooperative matrices");
    }
    found
}

#[test]
fn no_shader_is_of_a_kind_that_drivers_are_known_to_get_wrong() {
    for variant in KernelId::ALL.iter().flat_map(|id| id.kernel().variants) {
        for form in forms(variant) {
            let text = compose(variant, form).unwrap();
            assert_eq!(hazards(&text, variant.needs), [""; 0], "{} {form:?}", variant.name);
        }
    }
    assert_eq!(hazards("@compute @workgroup_size(8, 8) fn main() {}", Needs::NOTHING).len(), 1);
    assert_eq!(hazards("@workgroup_size(64) fn f() { x = subgroupAdd(x); }", Needs::MATRIX_8).len(), 1);
}

/// For the compilers of others, which `./test --all` runs: each shader, but those of cooperative matrices, which are not in
/// WGSL yet.
#[test]
#[ignore = "writes files, where POCKETLM_SHADERS says"]
fn shaders_are_written_for_others() {
    let folder = std::env::var_os("POCKETLM_SHADERS").expect("POCKETLM_SHADERS names a folder");
    std::fs::create_dir_all(&folder).unwrap();
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        for variant in kernel.variants.iter().filter(|variant| variant.needs.matrix == 0) {
            for form in forms(variant) {
                let name = format!("{} {} {form}", kernel.name, variant.name);
                let file = std::path::Path::new(&folder).join(name.trim_end().replace(' ', "-") + ".wgsl");
                std::fs::write(file, compose(variant, form).unwrap()).unwrap();
            }
        }
    }
}
