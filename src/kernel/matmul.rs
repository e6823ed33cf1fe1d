//! `y[r, j] = Σₖ W[j, k] · x[r, k]` for many rows r: tiles of W are decoded once into workgroup memory and used for
//! all rows of the tile, by threads or by cooperative matrices, which are behind the plainer tile in the list: they are
//! an experiment of wgpu, used only where they were measured and found right. So are tiles of units that round x, of which
//! there are four rows by four outputs to a thread, since a unit takes many registers. With the epilogue `Add`, the result
//! is added to y. The same parameters as `matvec`.

use super::{
    Arg, ArgKind, Call, Case, Epilogue, Form, Fragment, Home, KernelId, Needs, Overrides, REPRESENTATIVES,
    Variant, Work, matvec,
};

use matvec::{
    CODES, HALF, OUTPUTS, PRODUCT, Shape, UNIT_F16, UNIT_F32, UNIT_I8, X_SCALAR, X_TOGETHER, X_VECTOR,
};

pub use super::matvec::Params;

const TILE: Fragment = Fragment::Text(include_str!("../../shaders/matmul.wgsl"));
/// The same over units that were rounded.
const UNITS: Fragment = Fragment::Text(include_str!("../../shaders/matmul_units.wgsl"));
/// Cooperative matrices, before all other fragments.
const MATRIX: Fragment = Fragment::Text(include_str!("../../shaders/part/matrix.wgsl"));
/// Their tiles, behind [`X_VECTOR`].
const MATRIX_TILES: Fragment = Fragment::Text(include_str!("../../shaders/part/matrix_tiles.wgsl"));

/// The home.
#[derive(Debug)]
pub struct Matmul;

impl Home for Matmul {
    type Params = Params;
    const ID: KernelId = KernelId::Matmul;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "tile",
            fragments: &[Fragment::Quant, UNIT_F32, Fragment::Epilogue, OUTPUTS, PRODUCT, X_VECTOR, TILE],
            needs: Needs::NOTHING,
        },
        Variant {
            name: "matrix16",
            fragments: &[
                MATRIX,
                Fragment::Quant,
                UNIT_F32,
                Fragment::Epilogue,
                OUTPUTS,
                PRODUCT,
                X_VECTOR,
                MATRIX_TILES,
                Fragment::Text(include_str!("../../shaders/matmul_matrix16.wgsl")),
            ],
            needs: Needs::MATRIX_16,
        },
        Variant {
            name: "matrix8",
            fragments: &[
                MATRIX,
                Fragment::Quant,
                UNIT_F32,
                Fragment::Epilogue,
                OUTPUTS,
                PRODUCT,
                X_VECTOR,
                MATRIX_TILES,
                Fragment::Text(include_str!("../../shaders/matmul_matrix8.wgsl")),
            ],
            needs: Needs::MATRIX_8,
        },
        Variant {
            name: "thread",
            fragments: &[
                Fragment::Quant,
                UNIT_F32,
                Fragment::Epilogue,
                OUTPUTS,
                PRODUCT,
                X_VECTOR,
                X_TOGETHER,
                Fragment::Text(include_str!("../../shaders/matmul_thread.wgsl")),
            ],
            needs: Needs::SUBGROUP_OF_8,
        },
        Variant {
            name: "tile_i8",
            fragments: &[
                Fragment::Codes,
                CODES,
                UNIT_I8,
                Fragment::Epilogue,
                OUTPUTS,
                PRODUCT,
                X_VECTOR,
                UNITS,
            ],
            needs: Needs::I8,
        },
        Variant {
            name: "tile_f16",
            fragments: &[
                HALF,
                Fragment::Codes,
                CODES,
                UNIT_F16,
                Fragment::Epilogue,
                OUTPUTS,
                PRODUCT,
                X_VECTOR,
                UNITS,
            ],
            needs: Needs::F16,
        },
        Variant {
            name: "plain",
            fragments: &[Fragment::Quant, UNIT_F32, Fragment::Epilogue, OUTPUTS, PRODUCT, X_SCALAR, TILE],
            needs: Needs::NOTHING,
        },
    ];

    fn suits(p: &Params, variant: &Variant) -> bool {
        variant.name == "plain" || matvec::vectors(p)
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        match variant.name {
            "plain" => Vec::new(),
            _ => vec![matvec::ragged(p)],
        }
    }

    fn grid(p: &Params, call: Call, variant: &Variant) -> [u32; 3] {
        let (rows, outputs) = if variant.name == "thread" { (8, 32) } else { (64, 64) };
        [p.n.div_ceil(outputs), call.rows.div_ceil(rows), 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        matvec::product(p, call, form, args);
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let bits = form.format.map_or(32.0, crate::quant::Format::bits_per_weight);
        let (rows, k, n) = (f64::from(call.rows), f64::from(p.k), f64::from(p.n));
        Work { bytes: k * n * bits / 8.0 + 4.0 * rows * (k + n), flops: 2.0 * rows * k * n }
    }

    fn cases() -> Vec<Case> {
        let each = REPRESENTATIVES.into_iter().flat_map(|format| {
            [
                Shape { format, rows: 9, k: 33, n: 5, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 1, k: 1, n: 1, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 64, k: 172, n: 64, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 65, k: 172, n: 65, spare: 3, epilogue: Epilogue::Add },
                Shape { format, rows: 33, k: 576, n: 130, spare: 4, epilogue: Epilogue::Add },
                Shape { format, rows: 17, k: 2048, n: 31, spare: 8, epilogue: Epilogue::Store },
            ]
        });
        let others = matvec::others().flat_map(|format| {
            [
                Shape { format, rows: 9, k: 172, n: 5, spare: 0, epilogue: Epilogue::Store },
                Shape { format, rows: 17, k: 172, n: 31, spare: 4, epilogue: Epilogue::Add },
            ]
        });
        each.chain(others).map(|shape| shape.case::<Self>()).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        Shape::like(p, form, 9).map(|shape| shape.case::<Self>())
    }
}
