//! Floor 1: how numbers are packed. One file per block layout; this page is the list and the contract.
//!
//! A row of a weight matrix is a run of blocks; a block holds a fixed number of consecutive elements of the
//! row. Two orders exist of the same numbers:
//!
//! - **file order**: the bytes as the container holds them. The CPU reads this.
//! - **GPU order**: a structure of arrays, made by [`Layout::repack`] while uploading. Per row, *codes* are bit
//!   fields of [`GpuOrder::code_bits`] bits along K, padded with zero codes to whole units of [`UNIT`] elements
//!   and whole `vec4<u32>`s; a word of b-bit fields (b ≤ 8) holds its element i in byte i mod 4 at bit
//!   b·(i div 4), so that `unpack4xU8` yields four neighbours; wider fields stand in order. *Scales* are
//!   whatever else decoding needs (scales, mins, high bits that would not fill a vector),
//!   [`GpuOrder::scale_halves`] u16 per block, padded to a whole u32 at the end of the row. Nothing is rounded:
//!   both orders decode to the same bits, except that a device may flush subnormals (of f16 where a shader
//!   unpacks them, of f32 anywhere) to zero.
//!
//! Some formats are written out in GPU order, where the file names several elements by one number: a table of points is
//! slow to compile into a shader and slow to read. Their pages say what that costs.
//!
//! To add a format: one file here, `shaders/quant/NAME.wgsl` with `decode32` (or that of another with the same GPU
//! order), one line in the list below; where elements are whole numbers with scales and mins, also
//! `shaders/quant/NAME_codes.wgsl` with `codes32`.
//! Layouts and their sources: ggml's block structures (`ggml-common.h`, `ggml-quants.c`, MIT), written here
//! from the formulas.

mod fit;
mod grid;
pub mod levels;
mod matrix;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use fp4::TABLE as FP4_TABLE;
pub use matrix::{Matrix, Rows};
pub use nf4::{TABLE as NF4_TABLE, encode_runs as encode_nf4_runs};

/// Elements that `decode32` of a shader decodes at once; rows in GPU order are padded to a multiple of it.
pub const UNIT: usize = 32;

/// What a file of this room says about its block layout.
pub trait Layout: Sync {
    /// The name in files, errors, file names and on the command line, lower case: `q4_0`.
    fn name(&self) -> &'static str;
    /// The type number in GGUF.
    fn gguf_id(&self) -> Option<u32>;
    /// The dtype name in safetensors.
    fn safetensors_id(&self) -> Option<&'static str> {
        None
    }
    /// Elements in a block.
    fn block_len(&self) -> usize;
    /// Bytes of a block in file order.
    fn block_bytes(&self) -> usize;
    /// Decodes one block: `bytes.len() == block_bytes()`, `out.len() == block_len()`. Never panics on content. A format
    /// writes this, or [`Self::spell`].
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (mut levels, mut scales) = ([0; 256], [0.0; 16]);
        let levels = &mut levels[..out.len()];
        self.spell(bytes, levels, &mut scales[..out.len() / 16]);
        for ((out, levels), scale) in out.chunks_exact_mut(16).zip(levels.chunks_exact(16)).zip(scales) {
            out.iter_mut().zip(levels).for_each(|(out, &level)| *out = scale * f32::from(level));
        }
    }
    /// The whole numbers, at most 16, that elements are multiples of: empty where they are not, or not so few.
    fn levels(&self) -> &'static [i8] {
        &[]
    }
    /// Decodes one block to levels and a scale for each 16 of them, where a format has [`Self::levels`]. The products
    /// are exact in f32.
    fn spell(&self, _bytes: &[u8], _levels: &mut [i8], _scales: &mut [f32]) {}
    /// Encodes one block of finite values, rounding to nearest; the counterpart of [`Self::decode`]. A format writes
    /// this, or [`Self::encode_weighted`] where it has scales to choose.
    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        self.encode_weighted(values, &[], bytes);
    }
    /// The same where the squared error of each element counts as much as `importance` says, which is not negative: as
    /// long as `values`, or empty where nothing is known.
    fn encode_weighted(&self, values: &[f32], _importance: &[f32], bytes: &mut [u8]) {
        self.encode(values, bytes);
    }
    /// The geometry of a row in GPU order.
    fn gpu_order(&self) -> GpuOrder;
    /// Rewrites one row from file order to GPU order. `codes` and `scales` are zero on entry and have
    /// [`Format::code_words`] and [`Format::scale_words`] words.
    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]);
    /// The fragment that defines `fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8>`:
    /// elements `32·unit ..` of the row whose codes start at vector `codes_at` and scales at word `scales_at`.
    fn wgsl(&self) -> &'static str;
    /// The fragment that defines `const MIDDLE` and `fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes`: the
    /// same elements as whole numbers (`shaders/part/codes.wgsl`), where they are such: signed bytes, of which each 16
    /// have a scale and a min.
    fn wgsl_codes(&self) -> Option<&'static str> {
        None
    }
}

/// The geometry of a row in GPU order; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOrder {
    /// Bits of an element in the codes: 1, 2, 4, 8, 16 or 32.
    pub code_bits: usize,
    /// Half words (u16) of a block in the scales.
    pub scale_halves: usize,
}

macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident => $module:ident,)*) => {
        $(mod $module;)*

        /// A block layout of weights.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, reason = "the names of the field: Q4_K, not Q4K")]
        pub enum Format {
            $($(#[$doc])* $variant,)*
        }

        impl Format {
            /// Every format, in the order of the list.
            pub const ALL: &'static [Format] = &[$(Format::$variant,)*];

            fn layout(self) -> &'static dyn Layout {
                match self {
                    $(Format::$variant => &$module::$variant,)*
                }
            }
        }
    };
}

formats! {
    /// 32-bit IEEE float.
    F32 => f32,
    /// 16-bit IEEE float.
    F16 => f16,
    /// The upper half of a 32-bit float.
    BF16 => bf16,
    /// 64-bit IEEE float, computed with as an f32.
    F64 => f64,
    /// 4 bits and a scale per 32.
    Q4_0 => q4_0,
    /// 4 bits, a scale and a minimum per 32.
    Q4_1 => q4_1,
    /// 5 bits and a scale per 32.
    Q5_0 => q5_0,
    /// 5 bits, a scale and a minimum per 32.
    Q5_1 => q5_1,
    /// 8 bits and a scale per 32.
    Q8_0 => q8_0,
    /// 2 bits; 4-bit scales and minimums per 16 under a scale and a minimum per 256.
    Q2_K => q2_k,
    /// 3 bits; 6-bit scales per 16 under a scale per 256.
    Q3_K => q3_k,
    /// 4 bits; 6-bit scales and minimums per 32 under a scale and a minimum per 256.
    Q4_K => q4_k,
    /// 5 bits; 6-bit scales and minimums per 32 under a scale and a minimum per 256.
    Q5_K => q5_k,
    /// 6 bits; 8-bit scales per 16 under a scale per 256.
    Q6_K => q6_k,
    /// 4 bits for one of 16 uneven levels, a scale per 32.
    IQ4_NL => iq4_nl,
    /// 4 bits for one of 16 uneven levels; 6-bit scales per 32 under a scale per 256.
    IQ4_XS => iq4_xs,
    /// 4-bit floats; a power of two per 32.
    MXFP4 => mxfp4,
    /// 4-bit floats; an 8-bit float per 16.
    NVFP4 => nvfp4,
    /// A point of 8 elements in 11 bits, each −1, 0 or 1; 3-bit scales per 32 under a scale per 256.
    IQ1_S => iq1_s,
    /// A point of 8 elements in 11 bits, each −1, 0 or 1; 3-bit scales per 16 under a scale per 256.
    IQ1_M => iq1_m,
    /// A point of 8 elements in 8 bits and 7 signs; 4-bit scales per 32 under a scale per 256.
    IQ2_XXS => iq2_xxs,
    /// A point of 8 elements in 9 bits and 7 signs; 4-bit scales per 16 under a scale per 256.
    IQ2_XS => iq2_xs,
    /// A point of 8 elements in 10 bits and 8 signs; 4-bit scales per 16 under a scale per 256.
    IQ2_S => iq2_s,
    /// A point of 4 elements in 8 bits, 7 signs for 8; 4-bit scales per 32 under a scale per 256.
    IQ3_XXS => iq3_xxs,
    /// A point of 4 elements in 9 bits and 4 signs; 4-bit scales per 32 under a scale per 256.
    IQ3_S => iq3_s,
    /// Base-3 digits, five in a byte; a scale per 256.
    TQ1_0 => tq1_0,
    /// 2 bits and a scale per 256.
    TQ2_0 => tq2_0,
    /// A sign and a scale per 128.
    Q1_0 => q1_0,
    /// 2 bits and a scale per 64.
    Q2_0 => q2_0,
    /// 4 bits around zero and an f32 scale per 32.
    I4 => i4,
    /// 8 bits around zero and an f32 scale per 32.
    I8 => i8,
    /// 2 bits, an f32 scale and zero point per 32.
    Z2 => z2,
    /// 4 bits, an f32 scale and zero point per 32.
    Z4 => z4,
    /// 8 bits, an f32 scale and zero point per 32.
    Z8 => z8,
    /// 4-bit quantiles of a normal distribution, an f32 scale per 32.
    NF4 => nf4,
    /// 4-bit floats, an f32 scale per 32.
    FP4 => fp4,
    /// Coordinates of points of the lattice E8.
    E8P => e8p,
}

impl Format {
    /// The name in files, errors and on the command line: `q4_0`.
    pub fn name(self) -> &'static str {
        self.layout().name()
    }

    /// The format of this name, whatever the case of its letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Every format that GGUF has a type number for.
    pub fn all_in_gguf() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|format| format.gguf_id().is_some())
    }

    /// The format of this name among those.
    pub fn named_in_gguf(name: &str) -> Option<Self> {
        Self::from_name(name).filter(|format| format.gguf_id().is_some())
    }

    /// The format with this type number in GGUF.
    pub fn from_gguf_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.layout().gguf_id() == Some(id))
    }

    /// The type number in GGUF, if it has one.
    pub fn gguf_id(self) -> Option<u32> {
        self.layout().gguf_id()
    }

    /// The format with this dtype name in safetensors.
    pub fn from_safetensors_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.layout().safetensors_id() == Some(id))
    }

    /// Elements in a block; a row is a whole number of blocks.
    pub fn block_len(self) -> usize {
        self.layout().block_len()
    }

    /// Bytes of a block in file order.
    pub fn block_bytes(self) -> usize {
        self.layout().block_bytes()
    }

    /// Bits of a weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_len() as f64
    }

    /// Bytes of a row of `k` elements in file order, or `None` where `k` is not a whole number of blocks or
    /// the size cannot be addressed.
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        k.is_multiple_of(self.block_len()).then(|| (k / self.block_len()).checked_mul(self.block_bytes()))?
    }

    /// Decodes whole blocks in file order: `bytes` and `out` hold the same number of them.
    ///
    /// # Panics
    /// Where they do not.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let layout = self.layout();
        let (blocks, rest) = (bytes.chunks_exact(layout.block_bytes()), bytes.len() % layout.block_bytes());
        assert!(
            rest == 0 && blocks.len() * layout.block_len() == out.len(),
            "{self}: {} bytes, {} elements",
            bytes.len(),
            out.len()
        );
        for (block, out) in blocks.zip(out.chunks_exact_mut(layout.block_len())) {
            layout.decode(block, out);
        }
    }

    /// The whole numbers that elements are multiples of, at most 16, least first: one of [`levels`]. Empty for formats
    /// that are not of this kind.
    pub fn levels(self) -> &'static [i8] {
        self.layout().levels()
    }

    /// Decodes whole blocks of a format with [`Self::levels`] to levels, and to a scale for each 16 of them.
    ///
    /// # Panics
    /// Where the lengths do not fit each other.
    pub fn spell(self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let (layout, len) = (self.layout(), self.block_len());
        let blocks = bytes.chunks_exact(layout.block_bytes());
        assert!(
            blocks.len() * len == levels.len() && 16 * scales.len() == levels.len(),
            "{self}: {} bytes, {} levels, {} scales",
            bytes.len(),
            levels.len(),
            scales.len()
        );
        let out = levels.chunks_exact_mut(len).zip(scales.chunks_exact_mut(len / 16));
        for (block, (levels, scales)) in blocks.zip(out) {
            layout.spell(block, levels, scales);
        }
    }

    /// Encodes finite `values`, a whole number of blocks, to file order.
    ///
    /// # Panics
    /// Where `values` is not a whole number of blocks.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let (layout, mut bytes) = (self.layout(), self.room_for(values));
        let blocks = bytes.chunks_exact_mut(layout.block_bytes());
        for (values, block) in values.chunks_exact(layout.block_len()).zip(blocks) {
            layout.encode(values, block);
        }
        bytes
    }

    /// The same where the squared error of each element counts as much as its `importance` says, which is finite and
    /// not negative: for weights, the mean square of the activations that they are multiplied by.
    ///
    /// # Panics
    /// Where `values` is not a whole number of blocks, or `importance` of another length.
    pub fn encode_weighted(self, values: &[f32], importance: &[f32]) -> Vec<u8> {
        assert_eq!(values.len(), importance.len(), "{self}: an importance for each element");
        let (layout, mut bytes) = (self.layout(), self.room_for(values));
        let blocks = bytes.chunks_exact_mut(layout.block_bytes());
        let values = values.chunks_exact(layout.block_len()).zip(importance.chunks_exact(layout.block_len()));
        for ((values, importance), block) in values.zip(blocks) {
            layout.encode_weighted(values, importance, block);
        }
        bytes
    }

    fn room_for(self, values: &[f32]) -> Vec<u8> {
        assert!(values.len().is_multiple_of(self.block_len()), "{self}: {} elements", values.len());
        vec![0; values.len() / self.block_len() * self.block_bytes()]
    }

    /// This format, or where rows of `cols` elements are no whole blocks of it, one of blocks of 32 with the next more bits,
    /// and f16 where they are not even that.
    pub fn for_columns(self, cols: u64) -> Self {
        let fits = |format: &Self| cols.is_multiple_of(format.block_len() as u64);
        let narrower = match self.bits_per_weight() {
            ..4.5 => Self::Q4_0,
            ..5.5 => Self::Q5_0,
            ..6.0 => Self::Q5_1,
            _ => Self::Q8_0,
        };
        [self, narrower].into_iter().find(fits).unwrap_or(Self::F16)
    }

    /// What a matrix with a row for each token gets in a model of this format, as llama.cpp's quantizer has it: itself where
    /// it is a float or `q8_0`, else `q6_k`, or `q8_0` where rows of `cols` elements are no whole blocks of that.
    pub fn for_vocabulary(self, cols: u64) -> Self {
        if self == Self::Q8_0 || self.block_len() == 1 { self } else { Self::Q6_K.for_columns(cols) }
    }

    /// u32 words of the codes of a row of `k` elements in GPU order, a multiple of 4.
    pub fn code_words(self, k: usize) -> usize {
        let bits = k.next_multiple_of(UNIT) * self.layout().gpu_order().code_bits;
        bits.div_ceil(128) * 4
    }

    /// u32 words of the scales of a row of `k` elements in GPU order.
    pub fn scale_words(self, k: usize) -> usize {
        (k.div_ceil(self.block_len()) * self.layout().gpu_order().scale_halves).div_ceil(2)
    }

    /// Rewrites one row of `k` elements from file order to GPU order, into zeroed words.
    pub fn repack(self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        self.layout().repack(row, codes, scales);
    }

    /// The shader fragment with `decode32`.
    pub fn wgsl(self) -> &'static str {
        self.layout().wgsl()
    }

    /// The shader fragment with `codes32`, for formats whose elements are whole numbers, a scale and a min.
    pub fn wgsl_codes(self) -> Option<&'static str> {
        self.layout().wgsl_codes()
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
