//! Cases: small calls of a kernel with seeded data, from which tests, probes and benches are made.

use bytemuck::Pod;

use super::{Arg, ArgKind, Call, Form, Home, KernelId, Needs, Variant};
use crate::quant::Matrix;

/// One call of a kernel on made-up data.
#[derive(Clone, Debug)]
pub struct Case {
    /// Says what is special about the shape.
    pub name: String,
    /// The kernel.
    pub kernel: KernelId,
    /// The bytes of the home's `Params`.
    pub params: Vec<u8>,
    /// Rows and KV length.
    pub call: Call,
    /// Fragments.
    pub form: Form,
    /// The arguments before the call.
    pub args: Vec<Data>,
    /// How far a written f32 may stand from the twin's; written u32 are equal.
    pub tolerance: Tolerance,
    /// Words of written u32 arguments that hold the bits of an f32 and are judged as one.
    pub f32_words: Vec<usize>,
}

/// An argument of a case.
#[derive(Clone, Debug)]
pub enum Data {
    /// A weight matrix.
    Matrix(Matrix),
    /// f32.
    F32(Vec<f32>),
    /// u32.
    U32(Vec<u32>),
}

/// How far a written f32 may stand from the twin's: an absolute error, derived from sizes, norms and the
/// rounding unit where the case is made, never tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f32);

impl Tolerance {
    /// Bit-equal (two zeros of either sign are equal).
    pub const EXACT: Self = Self(0.0);

    /// For a dot product of vectors of these norms, summed in f32 in any order. Partial sums of terms with
    /// random signs stay near ‖w‖·‖x‖/√k, so the roundings of k additions add up to about ε/2·‖w‖·‖x‖ (Higham,
    /// *Accuracy and Stability of Numerical Algorithms*, 2.8 and 4.2); sixteen standard deviations are allowed.
    pub fn dot(w_norm: f32, x_norm: f32) -> Self {
        Self(8.0 * f32::EPSILON * w_norm * x_norm)
    }

    /// Where both errors may occur.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// For values of magnitude up to `magnitude` after `roundings` roundings each.
    pub fn roundings(roundings: u32, magnitude: f32) -> Self {
        Self(f32::EPSILON * roundings as f32 * magnitude)
    }
}

/// What a call costs at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes read and written once each.
    pub bytes: f64,
    /// Floating-point operations, a multiply-add counted as two.
    pub flops: f64,
}

impl Case {
    /// A case of kernel `H`.
    ///
    /// # Panics
    /// Where `args` are not of the kinds that the kernel takes: a mistake in the home.
    pub fn of<H: Home>(
        name: impl Into<String>,
        params: H::Params,
        call: Call,
        form: Form,
        args: Vec<Data>,
        tolerance: Tolerance,
    ) -> Self {
        let name = name.into();
        let kinds_fit =
            args.len() == H::ARGS.len() && args.iter().zip(H::ARGS).all(|(arg, kind)| arg.is(*kind));
        assert!(kinds_fit, "{}, case {name}: the arguments are not {:?}", H::ID.kernel().name, H::ARGS);
        Self {
            name,
            kernel: H::ID,
            params: bytes_of(&params),
            call,
            form,
            args,
            tolerance,
            f32_words: Vec::new(),
        }
    }

    /// The same with [`Self::f32_words`].
    pub fn with_f32_words(self, words: impl IntoIterator<Item = usize>) -> Self {
        Self { f32_words: words.into_iter().collect(), ..self }
    }

    /// The same as `variant` is to be judged, by what it rounds. Where [`Tolerance::dot`] allows 2⁻²⁰·‖w‖·‖x‖,
    ///
    /// - cooperative matrices take both factors of each product to f16, each off by 2⁻¹¹ of itself: together at most
    ///   2⁻¹⁰·‖w‖·‖x‖;
    /// - f16 takes x to it, the product and three sums of four: with random signs a standard deviation is
    ///   1.2 · 2⁻¹¹·‖w‖·‖x‖/√k, of which the same 2⁻¹⁰ is nine at k = 32, and more beyond;
    /// - whole numbers are half a step off, of which the largest of 32 has 32639. With Σ|w| ≤ √32·‖w‖ in each 32 that is
    ///   √32 / 65278, less than 2⁻¹³·‖w‖·‖x‖.
    pub fn as_judged(&self, variant: &Variant) -> Self {
        let Tolerance(exact) = self.tolerance;
        let times = match variant.needs {
            Needs { rounding: false, .. } => 1.0,
            Needs { f16: true, .. } => 1024.0,
            Needs { f16: false, .. } => 128.0,
        };
        Self { tolerance: Tolerance(times * exact), ..self.clone() }
    }

    /// Runs the twin on a copy of the arguments and gives the copy back.
    pub fn expected(&self) -> Vec<Data> {
        let kernel = self.kernel.kernel();
        let mut data = self.args.clone();
        let mut args: Vec<Arg<'_>> =
            data.iter_mut().zip(kernel.args).map(|(data, kind)| data.as_arg(*kind)).collect();
        kernel.twin(&self.params, self.call, self.form, &mut args);
        data
    }
}

impl Data {
    fn is(&self, kind: ArgKind) -> bool {
        match self {
            Self::Matrix(_) => kind == ArgKind::Matrix,
            Self::F32(_) => matches!(kind, ArgKind::F32 | ArgKind::F32Mut),
            Self::U32(_) => matches!(kind, ArgKind::U32 | ArgKind::U32Mut),
        }
    }

    /// The data as an argument of `kind`.
    ///
    /// # Panics
    /// Where the data is of another kind.
    pub fn as_arg(&mut self, kind: ArgKind) -> Arg<'_> {
        match (self, kind) {
            (Self::Matrix(matrix), ArgKind::Matrix) => Arg::Matrix(matrix),
            (Self::F32(values), ArgKind::F32) => Arg::F32(values),
            (Self::F32(values), ArgKind::F32Mut) => Arg::F32Mut(values),
            (Self::U32(values), ArgKind::U32) => Arg::U32(values),
            (Self::U32(values), ArgKind::U32Mut) => Arg::U32Mut(values),
            (data, kind) => panic!("{data:?} is not {kind:?}"),
        }
    }
}

fn bytes_of<T: Pod>(value: &T) -> Vec<u8> {
    bytemuck::bytes_of(value).to_vec()
}
