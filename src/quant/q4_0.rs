//! `q4_0`: 32 elements, `d: f16`, 16 bytes of nibbles; element j in the low nibble of byte j, element j + 16
//! in its high nibble; w = (q − 8)·d.

use half::f16;

use super::{GpuOrder, Layout, set_half};

pub(super) struct Q4_0;

impl Layout for Q4_0 {
    fn name(&self) -> &'static str {
        "q4_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(2)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        18
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (j, &byte) in bytes[2..].iter().enumerate() {
            out[j] = (f32::from(byte & 15) - 8.0) * d;
            out[j + 16] = (f32::from(byte >> 4) - 8.0) * d;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        // The element of the largest magnitude becomes code 0, so the eighth negative code is used.
        let extreme = values.iter().fold(0.0f32, |extreme, &v| if v.abs() > extreme.abs() { v } else { extreme });
        let d = f16::from_f32(extreme / -8.0);
        let inverse = if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
        let code = |v: f32| (v * inverse + 8.5).floor().clamp(0.0, 15.0) as u8;
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (j, byte) in bytes[2..].iter_mut().enumerate() {
            *byte = code(values[j]) | code(values[j + 16]) << 4;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(18).zip(codes.chunks_exact_mut(4)).enumerate() {
            set_half(scales, block, [bytes[0], bytes[1]]);
            nibbles_along_k(&bytes[2..], codes);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q4_0.wgsl")
    }
}

/// 16 bytes that hold elements j and j + 16 in their nibbles, rewritten as 4 words in GPU order.
pub(super) fn nibbles_along_k(bytes: &[u8], codes: &mut [u32]) {
    for (j, &byte) in bytes.iter().enumerate() {
        set_nibble(codes, j, byte & 15);
        set_nibble(codes, j + 16, byte >> 4);
    }
}

/// Sets the 4-bit code of `element` in zeroed words in GPU order.
pub(super) fn set_nibble(codes: &mut [u32], element: usize, code: u8) {
    let (word, i) = (element / 8, element % 8);
    codes[word] |= u32::from(code) << (8 * (i % 4) + 4 * (i / 4));
}
