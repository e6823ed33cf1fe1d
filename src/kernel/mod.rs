//! Floor 3: what is computed. One home per kernel; this page is the list and the contract.
//!
//! A kernel is one operation on rows of activations. Its home says it twice: in WGSL (`shaders/NAME.wgsl`), and
//! as a *twin*, the meaning in the simplest scalar Rust. From the home's `cases` come the test on each backend,
//! the bench, the start-up probe and the `doctor` row.
//!
//! **The call.** A kernel is called with immediates (a [`Call`]'s `rows` and `kv_len`, then the home's own
//! `Params`, at most [`IMMEDIATES`] bytes in all) and its arguments in the order of [`Kernel::args`]. In WGSL
//! the arguments are the bindings of group 0, in order from 0; an [`ArgKind::Matrix`] takes two, `codes` and
//! `scales` (see [`crate::quant`]).
//!
//! **Rows.** Activations are f32, `(rows, stride)` row-major. A row is a token of some sequence; the state
//! `rows` holds `[token, position, sequence, 0]` as four u32 for each. Keys and values live in pages of
//! [`PAGE`] positions: entry `pages[sequence · pages_per_sequence + position / PAGE]` is the page, and a layer's K or V is
//! vectors `(pages, kv_heads, PAGE)` of `head_dim` elements, stored as [`KvType`] says.
//!
//! To add a kernel: `shaders/NAME.wgsl`, `NAME.rs` here, one line in the list below.

mod case;
mod compose;
pub mod kv;
mod made;

use std::fmt;

use bytemuck::Pod;

pub use case::{Case, Data, Tolerance, Work};
pub use compose::compose;
pub use kv::{KvType, kv_at};

use crate::quant::{Format, Matrix};

/// Bytes of immediates that every device class has (Dawn offers no more).
pub const IMMEDIATES: usize = 64;

/// Positions in a page of the KV cache.
pub const PAGE: u32 = 32;

/// Formats that stand for all in what the formats have in common: elements as they are, small blocks, large blocks with
/// scales of their own. A format's whole part in a shader is `decode32`, which `embed` lays open; what a product does with
/// 32 elements does not depend on how they came. So a product's home has all its shapes for these formats, and for each
/// other only as many as show it in each form; and where a shader takes seconds to compile, tests show each body of a
/// product these formats, and each other format to `embed` and to the plainest `matvec` alone.
pub const REPRESENTATIVES: [Format; 3] = [Format::F32, Format::Q4_0, Format::Q6_K];

/// u32 words of a row in the state `rows`: token, position, sequence, 0.
pub const ROW_WORDS: usize = 4;

/// What differs from one submission to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Rows to compute, at least 1.
    pub rows: u32,
    /// The largest position of any row, plus one.
    pub kv_len: u32,
}

/// What a step fixes beside its parameters; it chooses fragments of the shader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// The format of the matrix argument, for kernels that have one.
    pub format: Option<Format>,
    /// The storage of keys and values, for kernels that touch them.
    pub kv: Option<KvType>,
    /// What becomes of a result, for kernels with an epilogue.
    pub epilogue: Option<Epilogue>,
}

impl fmt::Display for Form {
    /// What is fixed, in words: `q4_0 Add`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.map(|format| format.to_string());
        let kv = self.kv.map(|kv| format!("{kv:?}"));
        let epilogue = self.epilogue.map(|epilogue| format!("{epilogue:?}"));
        let parts: Vec<String> = format.into_iter().chain(kv).chain(epilogue).collect();
        f.write_str(&parts.join(" "))
    }
}

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// It replaces the element of the output.
    Store,
    /// It is added to it: the residual connection.
    Add,
}

/// The kind of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A weight matrix, read.
    Matrix,
    /// f32, read.
    F32,
    /// u32, read.
    U32,
    /// f32, read and written.
    F32Mut,
    /// u32, read and written.
    U32Mut,
}

impl ArgKind {
    /// Whether the kernel writes the argument.
    pub fn is_written(self) -> bool {
        matches!(self, Self::F32Mut | Self::U32Mut)
    }
}

/// An argument as a twin sees it. A written argument is seen by nobody else during the call.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A weight matrix in file order.
    Matrix(&'a Matrix),
    /// f32, read.
    F32(&'a [f32]),
    /// u32, read.
    U32(&'a [u32]),
    /// f32, read and written.
    F32Mut(&'a mut [f32]),
    /// u32, read and written.
    U32Mut(&'a mut [u32]),
}

/// A piece of a shader. The fragments of a variant are joined in order.
#[derive(Clone, Copy, Debug)]
pub enum Fragment {
    /// This text.
    Text(&'static str),
    /// `decode32` of the step's format.
    Quant,
    /// `codes32` of the step's format; a variant with it does not exist for a format without.
    Codes,
    /// The step's [`KvType`], one of these: `shaders/part/kv_f32.wgsl` and its like.
    Kv(&'static [KvType]),
    /// The first text where the step's [`KvType`] is of single elements, the other where it is of blocks.
    ByKv(&'static str, &'static str),
    /// `finish` of the step's [`Epilogue`]: `shaders/part/epilogue_store.wgsl` or `epilogue_add.wgsl`.
    Epilogue,
}

/// Workgroups in x beyond which [`fold`] continues in z; the same number stands in the shaders that fold.
const FOLD: u32 = 32768;

/// `groups` workgroups in x, folded into z where they are too many for one dimension, and `rows` in y.
fn fold(groups: u32, rows: u32) -> [u32; 3] {
    [groups.min(FOLD), rows, groups.div_ceil(FOLD)]
}

/// What a variant needs of a device beyond the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Subgroup operations, and threads that a subgroup has at least: 0 for none, 1 for subgroups of any size.
    pub subgroup: u32,
    /// `enable f16`.
    pub f16: bool,
    /// Cooperative matrices of f16 with sums in f32: the sum of their sides, 8 and 16.
    pub matrix: u32,
    /// Leave to round activations to fewer bits than f32 has, which a device that is to be exact does not give.
    pub rounding: bool,
}

impl Needs {
    /// Nothing beyond the floor.
    pub const NOTHING: Self = Self { subgroup: 0, f16: false, matrix: 0, rounding: false };
    /// Subgroup operations.
    pub const SUBGROUP: Self = Self { subgroup: 1, ..Self::NOTHING };
    /// Subgroup operations among at least 8 threads.
    pub const SUBGROUP_OF_8: Self = Self { subgroup: 8, ..Self::NOTHING };

    /// Activations rounded to whole numbers.
    pub const I8: Self = Self { rounding: true, ..Self::NOTHING };
    /// Activations rounded to f16, and sums too.
    pub const F16: Self = Self { f16: true, ..Self::I8 };
    /// Whole numbers, and subgroup operations.
    pub const SUBGROUP_I8: Self = Self { subgroup: 1, ..Self::I8 };
    /// f16, and subgroup operations.
    pub const SUBGROUP_F16: Self = Self { subgroup: 1, ..Self::F16 };

    /// Cooperative matrices of 8 by 8.
    pub const MATRIX_8: Self = Self { subgroup: 1, f16: true, matrix: 8, rounding: true };
    /// Cooperative matrices of 16 by 16.
    pub const MATRIX_16: Self = Self { matrix: 16, ..Self::MATRIX_8 };

    /// Whether a device that has `has` meets them.
    pub fn are_met(self, has: Self) -> bool {
        self.subgroup <= has.subgroup
            && (has.f16 || !self.f16)
            && (has.matrix & self.matrix == self.matrix)
            && (has.rounding || !self.rounding)
    }
}

/// One way to compute a kernel on a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Unique in its kernel: `subgroup`, `plain`.
    pub name: &'static str,
    /// The shader, in pieces.
    pub fragments: &'static [Fragment],
    /// What it needs.
    pub needs: Needs,
}

impl Variant {
    /// Whether the form has what the fragments stand for.
    fn exists_for(&self, form: Form) -> bool {
        let has_codes = form.format.is_none_or(|format| format.wgsl_codes().is_some());
        has_codes || !self.fragments.iter().any(|fragment| matches!(fragment, Fragment::Codes))
    }
}

/// Values of `override` constants by name.
pub type Overrides = Vec<(&'static str, f64)>;

/// What a file of this room says about its kernel.
pub trait Home: 'static {
    /// The immediates after `rows` and `kv_len`; the same fields in the shader's `Params`.
    type Params: Pod + std::fmt::Debug;
    /// The kernel in the list.
    const ID: KernelId;
    /// The arguments in order.
    const ARGS: &'static [ArgKind];
    /// From the best to the plainest; the last needs nothing.
    const VARIANTS: &'static [Variant];

    /// Whether `variant` can compute these parameters; the last variant can compute any.
    fn suits(_params: &Self::Params, _variant: &Variant) -> bool {
        true
    }
    /// Values of the shader's `override` constants for this step.
    fn overrides(_params: &Self::Params, _variant: &Variant) -> Overrides {
        Vec::new()
    }
    /// Workgroups, each dimension at most 65535; 0 where a call has nothing to do.
    fn grid(params: &Self::Params, call: Call, variant: &Variant) -> [u32; 3];
    /// The meaning, on the host: f32 with sums in f64.
    fn twin(params: &Self::Params, call: Call, form: Form, args: &mut [Arg<'_>]);
    /// Bytes moved and operations done.
    fn work(params: &Self::Params, call: Call, form: Form) -> Work;
    /// The shapes worth testing, the smallest first.
    fn cases() -> Vec<Case>;
    /// A small case for steps with these parameters in this form: the same variants suit it, with the same overrides, so
    /// that what is compiled for it is what the steps run. `None` where no case has the form.
    fn probe(_params: &Self::Params, form: Form) -> Option<Case> {
        Self::cases().into_iter().find(|case| case.form == form)
    }
}

/// A home with its types forgotten; see [`Home`] for the parts.
#[derive(Debug)]
pub struct Kernel {
    /// The stem of its two files.
    pub name: &'static str,
    /// The arguments in order.
    pub args: &'static [ArgKind],
    /// From the best to the plainest.
    pub variants: &'static [Variant],
    /// Bytes of the home's `Params`.
    pub params_size: usize,
    describe: fn(&[u8]) -> String,
    suits: fn(&[u8], &Variant) -> bool,
    overrides: fn(&[u8], &Variant) -> Overrides,
    grid: fn(&[u8], Call, &Variant) -> [u32; 3],
    twin: fn(&[u8], Call, Form, &mut [Arg<'_>]),
    work: fn(&[u8], Call, Form) -> Work,
    cases: fn() -> Vec<Case>,
    probe: fn(&[u8], Form) -> Option<Case>,
}

impl Kernel {
    const fn of<H: Home>(name: &'static str) -> Self {
        assert!(8 + size_of::<H::Params>() <= IMMEDIATES, "too many parameters for the immediates");
        Self {
            name,
            args: H::ARGS,
            variants: H::VARIANTS,
            params_size: size_of::<H::Params>(),
            describe: |params| format!("{:?}", bytemuck::pod_read_unaligned::<H::Params>(params)),
            suits: |params, variant| H::suits(&bytemuck::pod_read_unaligned(params), variant),
            overrides: |params, variant| H::overrides(&bytemuck::pod_read_unaligned(params), variant),
            grid: |params, call, variant| H::grid(&bytemuck::pod_read_unaligned(params), call, variant),
            twin: |params, call, form, args| H::twin(&bytemuck::pod_read_unaligned(params), call, form, args),
            work: |params, call, form| H::work(&bytemuck::pod_read_unaligned(params), call, form),
            cases: H::cases,
            probe: |params, form| H::probe(&bytemuck::pod_read_unaligned(params), form),
        }
    }

    /// The parameters with their names.
    pub fn describe(&self, params: &[u8]) -> String {
        (self.describe)(params)
    }

    /// Whether `variant` can compute these parameters in this form; the last variant can compute any.
    pub fn suits(&self, params: &[u8], form: Form, variant: &Variant) -> bool {
        variant.exists_for(form) && (self.suits)(params, variant)
    }

    /// Values of the shader's `override` constants for these parameters.
    pub fn overrides(&self, params: &[u8], variant: &Variant) -> Overrides {
        (self.overrides)(params, variant)
    }

    /// Workgroups; 0 where a call has nothing to do.
    pub fn grid(&self, params: &[u8], call: Call, variant: &Variant) -> [u32; 3] {
        (self.grid)(params, call, variant)
    }

    /// Runs the twin.
    ///
    /// # Panics
    /// Where `args` are not of the kinds and sizes that [`Self::args`] and the parameters say.
    pub fn twin(&self, params: &[u8], call: Call, form: Form, args: &mut [Arg<'_>]) {
        (self.twin)(params, call, form, args);
    }

    /// Bytes moved and operations done.
    pub fn work(&self, params: &[u8], call: Call, form: Form) -> Work {
        (self.work)(params, call, form)
    }

    /// The shapes worth testing, the smallest first.
    pub fn cases(&self) -> Vec<Case> {
        (self.cases)()
    }

    /// A small case that shows whether steps with these parameters in this form are computed right; see [`Home::probe`].
    pub fn probe(&self, params: &[u8], form: Form) -> Option<Case> {
        (self.probe)(params, form)
    }
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $id:ident => $module:ident,)*) => {
        $(
            pub mod $module;
            pub use $module::$id;
        )*

        /// A kernel in the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KernelId {
            $($(#[$doc])* $id,)*
        }

        impl KernelId {
            /// Every kernel, in the order of the list.
            pub const ALL: &'static [KernelId] = &[$(KernelId::$id,)*];

            /// The kernel's home.
            pub fn kernel(self) -> &'static Kernel {
                match self {
                    $(Self::$id => {
                        static KERNEL: Kernel = Kernel::of::<$module::$id>(stringify!($module));
                        &KERNEL
                    })*
                }
            }
        }
    };
}

kernels! {
    /// Gathers rows of the embedding matrix by token.
    Embed => embed,
    /// Adds a vector for the position of each row.
    Positions => positions,
    /// Root-mean-square normalisation with a gain.
    RmsNorm => rms_norm,
    /// Normalisation to mean 0 and variance 1, with a gain and a bias.
    LayerNorm => layer_norm,
    /// A matrix times a few rows, one dot product per output element: decode.
    Matvec => matvec,
    /// silu of one product, times another: decode of the gated half of a feed-forward network.
    MatvecSwiglu => matvec_swiglu,
    /// A matrix times many rows, in tiles: prefill.
    Matmul => matmul,
    /// Adds a vector to each row.
    Bias => bias,
    /// Multiplies each row by a vector.
    Scale => scale,
    /// Elements of each row in another order.
    Gather => gather,
    /// The Walsh–Hadamard transform of blocks of each row.
    Hadamard => hadamard,
    /// The small factors of a sum of Kronecker products.
    Kronecker => kronecker,
    /// Root-mean-square normalisation of each head of queries and keys.
    HeadNorm => head_norm,
    /// The sum over rows of the square of each element.
    Squares => squares,
    /// Rounds each row to 256 steps.
    Round8 => round8,
    /// Rotates query and key heads by their position.
    Rope => rope,
    /// Writes keys and values to their pages.
    KvWrite => kv_write,
    /// Both at once.
    RopeKv => rope_kv,
    /// Writes keys and values to their pages in blocks, turned with the queries by a Walsh–Hadamard transform.
    KvBlocks => kv_blocks,
    /// Rotates heads, turns them, and writes keys and values in blocks.
    RopeKvBlocks => rope_kv_blocks,
    /// Causal softmax attention over the pages of a sequence.
    Attend => attend,
    /// The same for few rows, over pieces of the keys.
    AttendSplit => attend_split,
    /// What belongs to the pieces, put together.
    AttendJoin => attend_join,
    /// silu(gate) · up.
    Swiglu => swiglu,
    /// gelu(gate) · up.
    Geglu => geglu,
    /// gelu(up).
    Gelu => gelu,
    /// Bends logits to stay below a cap.
    SoftCap => soft_cap,
    /// Gathers the rows whose logits are wanted.
    Pick => pick,
    /// The same, normalised.
    PickNorm => pick_norm,
    /// The token of the largest logit.
    Argmax => argmax,
    /// The largest logits, their tokens, and the logarithm of the sum of exponentials.
    TopK => top_k,
    /// The token that a chain draws from them.
    Draw => draw,
    /// The end of a submission.
    Seal => seal,
}
