//! The whole numbers that weights are multiples of, in formats where these are few; least first.

/// `iq4_nl` and `iq4_xs`: closer together near zero, as weights are (ggml's `kvalues_iq4nl`, MIT).
pub const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `mxfp4` and `nvfp4`: floats of 2 bits of exponent and 1 of mantissa, doubled.
pub const FLOAT: [i8; 15] = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12];

/// `iq1_s` and `iq1_m`: −1, 0 and 1 moved up or down by an eighth, in eighths.
pub const IQ1: [i8; 6] = [-9, -7, -1, 1, 7, 9];

/// `iq2_xxs`, `iq2_xs` and `iq2_s`.
pub const IQ2: [i8; 6] = [-43, -25, -8, 8, 25, 43];

/// `iq3_xxs`.
pub const IQ3_XXS: [i8; 16] = [-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62];

/// `iq3_s`.
pub const IQ3_S: [i8; 16] = [-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15];

/// `tq1_0`, `tq2_0`, `q1_0` and `q2_0`.
pub const FOUR: [i8; 4] = [-1, 0, 1, 2];
