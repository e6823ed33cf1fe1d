//! Block layouts against the values that another implementation decodes (`tools/fixtures/quants.py`), and
//! the shader fragments against naga.

use std::path::Path;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use pocketlm::Format;

/// The bytes of a fixture and the values they decode to.
fn fixture(format: Format) -> (Vec<u8>, Vec<f32>) {
    let name = format!("tests/fixtures/quants/{format}.bin");
    let all = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&name))
        .unwrap_or_else(|e| panic!("{name}: {e}; tools/fixtures/quants.py writes it"));
    let (length, rest) = all.split_first_chunk().expect("a length");
    let (blocks, values) = rest.split_at(u32::from_le_bytes(*length) as usize);
    let values = values.chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().expect("4 bytes"))).collect();
    (blocks.to_vec(), values)
}

/// The first element whose bits differ; any NaN is as good as another.
fn first_difference(got: &[f32], expected: &[f32]) -> Option<usize> {
    assert_eq!(got.len(), expected.len());
    let same =
        |got: f32, expected: f32| got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
    got.iter().zip(expected).position(|(&got, &expected)| !same(got, expected))
}

#[test]
fn blocks_decode_to_the_bits_of_the_reference() {
    for format in Format::all_in_gguf() {
        let (blocks, expected) = fixture(format);
        let mut got = vec![0.0; expected.len()];
        format.decode(&blocks, &mut got);
        if let Some(i) = first_difference(&got, &expected) {
            panic!("{format}: element {i} is {:e}, expected {:e}", got[i], expected[i]);
        }
    }
}

#[test]
fn the_comparison_notices_swapped_nibbles() {
    let codes = [
        (Format::Q4_0, 2..18),
        (Format::Q3_K, 32..96),
        (Format::Q4_K, 16..144),
        (Format::Q6_K, 0..128),
        (Format::IQ4_XS, 8..136),
        (Format::MXFP4, 1..17),
        (Format::IQ3_S, 2..66),
        (Format::TQ1_0, 0..52),
    ];
    for (format, codes) in codes {
        let (mut blocks, expected) = fixture(format);
        for byte in blocks.chunks_exact_mut(format.block_bytes()).flat_map(|block| &mut block[codes.clone()])
        {
            *byte = byte.rotate_left(4);
        }
        let mut got = vec![0.0; expected.len()];
        format.decode(&blocks, &mut got);
        assert!(first_difference(&got, &expected).is_some(), "{format}");
    }
}

/// Parses and validates what a kernel makes of a fragment: bindings, fragment, a user of `decode32`.
fn validate(fragment: &str) -> Result<(), String> {
    let source = format!(
        "@group(0) @binding(0) var<storage, read> codes: array<vec4<u32>>;
         @group(0) @binding(1) var<storage, read> scales: array<u32>;
         @group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
         {fragment}
         @compute @workgroup_size(1)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             var decoded = decode32(0u, arrayLength(&scales) * 0u, id.x);
             for (var i = 0u; i < 8u; i++) {{ out[8u * id.x + i] = decoded[i]; }}
         }}"
    );
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    // `unpack2x16float`: part of WGSL proper, and of every device that wgpu calls compliant.
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
    validator.validate(&module).map(|_| ()).map_err(|e| e.emit_to_string(&source))
}

#[test]
fn fragments_are_valid_without_any_extension() {
    for &format in Format::ALL {
        if let Err(e) = validate(format.wgsl()) {
            panic!("{format}: {e}");
        }
        let broken = format.wgsl().replacen("u32", "f32", 1);
        assert!(validate(&broken).is_err(), "{format}: a wrong type passed");
    }
}

#[test]
fn names_and_numbers_lead_back_to_their_format() {
    for &format in Format::ALL {
        assert_eq!(Format::from_name(&format.to_string().to_uppercase()), Some(format));
    }
    let ids = [(0, "f32"), (1, "f16"), (2, "q4_0"), (3, "q4_1"), (6, "q5_0"), (7, "q5_1"), (8, "q8_0")];
    let uneven = [
        (16, "iq2_xxs"),
        (17, "iq2_xs"),
        (18, "iq3_xxs"),
        (19, "iq1_s"),
        (20, "iq4_nl"),
        (21, "iq3_s"),
        (22, "iq2_s"),
        (23, "iq4_xs"),
        (28, "f64"),
        (29, "iq1_m"),
        (34, "tq1_0"),
        (35, "tq2_0"),
        (39, "mxfp4"),
        (40, "nvfp4"),
        (41, "q1_0"),
        (42, "q2_0"),
    ];
    for (id, name) in ids.into_iter().chain(uneven).chain([
        (10, "q2_k"),
        (11, "q3_k"),
        (12, "q4_k"),
        (13, "q5_k"),
        (14, "q6_k"),
        (30, "bf16"),
    ]) {
        assert_eq!(Format::from_gguf_id(id), Format::from_name(name), "{name}");
    }
    assert_eq!(Format::from_gguf_id(4), None, "a number that was withdrawn");
    assert_eq!(Format::from_safetensors_id("BF16"), Some(Format::BF16));
    assert_eq!(Format::from_safetensors_id("F8_E4M3"), None);
}
