//! A linear becomes steps: transforms, products, low-rank paths, biases.

use crate::error::Result;
use crate::kernel::{
    Bias, Epilogue, Form, Gather, Hadamard, Kronecker, Matmul, Matvec, Round8, Scale, Squares, bias, gather,
    hadamard, kronecker, matvec, round8, scale, squares,
};
use crate::plan::{Builder, Extent, Operand};

use super::lower::Pass;
use super::place::{Path, Piece, PlacedFactors, PlacedLinear, PlacedSide, PlacedTransform};

impl Pass<'_> {
    /// `y (+)= linear(x)`: each path, then the biases.
    #[allow(clippy::too_many_arguments, reason = "a call of the forward pass reads best in one line")]
    pub(super) fn linear(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        linear: &PlacedLinear,
        x: Operand,
        y: Operand,
        y_stride: u32,
        epilogue: Epilogue,
    ) -> Result<()> {
        for path in &linear.paths {
            let to = Target { y, stride: y_stride, offset: path.first_row, epilogue };
            self.path(b, label, extent, path, x, to)?;
        }
        for &(item, width, y_offset) in &linear.biases {
            let params = bias::Params { width, y_stride, y_offset };
            b.step::<Bias>(
                format!("{label}.bias"),
                extent,
                Form::default(),
                params,
                &[Operand::Item(item), y],
            )?;
        }
        Ok(())
    }

    /// `y (+)= post(base · pre(x) + Σ scale · up · down · pre(x))`. Only the input of the base is ever rounded.
    fn path(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        path: &Path,
        x: Operand,
        to: Target,
    ) -> Result<()> {
        let (input, mut x) = (x, x);
        if !path.pre.is_empty() {
            let turned = Target::temp(b, "turned", extent, path.k);
            self.transforms(b, label, extent, &path.pre, (x, path.cols), turned)?;
            x = turned.y;
        }
        let sum = if path.post.is_empty() { to } else { Target::temp(b, "sum", extent, path.rows) };
        self.base(b, label, extent, path, x, sum)?;
        for side in &path.sides {
            self.side(b, label, extent, side, (x, path.k), sum)?;
        }
        if !path.post.is_empty() {
            self.transforms(b, label, extent, &path.post, (sum.y, path.rows), to)?;
        }
        for adapter in &path.adapters {
            self.side(b, label, extent, &adapter.side, (input, path.cols), to)?;
        }
        Ok(())
    }

    /// `y (+)= base · x`; of Kronecker products the parts of x with all matrices first, then what the factors make of that.
    fn base(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        path: &Path,
        x: Operand,
        to: Target,
    ) -> Result<()> {
        let (parts, k) = (extent.in_parts(path.parts()), path.part_width());
        if let Some((_, state)) = self.ports.squares.iter().find(|(name, _)| *name == path.names[0]) {
            let params = squares::Params { width: k };
            let args = [x, Operand::Item(*state)];
            b.step::<Squares>(format!("{label}.squares"), parts, Form::default(), params, &args)?;
        }
        let mut rounded = x;
        if self.options.int8_activations {
            rounded = b.temp("rounded", parts, k as usize);
            let params = round8::Params { width: k };
            b.step::<Round8>(format!("{label}.round"), parts, Form::default(), params, &[x, rounded])?;
        }
        let Some(PlacedFactors { item, terms, rows: y_parts, cols: x_parts }) = path.factors else {
            return self.products(b, label, extent, &path.pieces, (rounded, k), to);
        };
        let width = path.rows / y_parts;
        let between = Target::temp(b, "between", parts, terms * width);
        self.products(b, label, parts, &path.pieces, (rounded, k), between)?;
        let (y_stride, y_offset) = (to.stride, to.offset);
        let params = kronecker::Params { width, terms, y_parts, x_parts, y_stride, y_offset };
        let form = Form { epilogue: Some(to.epilogue), ..Form::default() };
        let args = [between.y, Operand::Item(item), to.y];
        b.step::<Kronecker>(format!("{label}.kronecker"), extent, form, params, &args)
    }

    /// `y += up · (scale · down · x)`; `x` has `k` elements.
    fn side(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        side: &PlacedSide,
        (x, k): (Operand, u32),
        to: Target,
    ) -> Result<()> {
        let down = Target::temp(b, "down", extent, side.rank);
        self.products(b, &format!("{label}.down"), extent, &side.down, (x, k), down)?;
        let mut between = down.y;
        if let Some(item) = side.scale {
            let scaled = Target::temp(b, "scaled", extent, side.rank);
            let scale = PlacedTransform::Scale(item);
            self.transform(b, label, extent, &scale, (down.y, side.rank), scaled)?;
            between = scaled.y;
        }
        let up = Target { epilogue: Epilogue::Add, ..to };
        self.products(b, &format!("{label}.up"), extent, &side.up, (between, side.rank), up)
    }

    /// A product for each piece of a matrix; `x` has `k` elements.
    fn products(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        pieces: &[Piece],
        (x, k): (Operand, u32),
        to: Target,
    ) -> Result<()> {
        for piece in pieces {
            let params = matvec::Params {
                k,
                n: piece.rows,
                x_stride: k,
                y_stride: to.stride,
                y_offset: to.offset + piece.first_row,
                code_stride: piece.code_stride,
                scale_stride: piece.scale_stride,
            };
            let form = Form { format: Some(piece.format), epilogue: Some(to.epilogue), kv: None };
            let args = [x, Operand::Item(piece.item), to.y];
            let narrow = b.max_of(extent.whole()) <= self.options.decode_rows;
            match narrow {
                true => b.step::<Matvec>(label, extent, form, params, &args)?,
                false => b.step::<Matmul>(label, extent, form, params, &args)?,
            }
        }
        Ok(())
    }

    /// `y (+)=` what the transforms, one at least, make of x, first to last; `x` has `width` elements.
    pub(super) fn transforms(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        transforms: &[PlacedTransform],
        (mut x, mut width): (Operand, u32),
        to: Target,
    ) -> Result<()> {
        for (index, transform) in transforms.iter().enumerate() {
            let next = transform.width(width);
            let last = index + 1 == transforms.len();
            let turned = if last { to } else { Target::temp(b, "turned", extent, next) };
            self.transform(b, label, extent, transform, (x, width), turned)?;
            (x, width) = (turned.y, next);
        }
        Ok(())
    }

    /// `y (+)= transform(x)`; `x` has `width` elements.
    fn transform(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        extent: Extent,
        transform: &PlacedTransform,
        (x, width): (Operand, u32),
        to: Target,
    ) -> Result<()> {
        let form = Form { epilogue: Some(to.epilogue), ..Form::default() };
        let (y_stride, y_offset) = (to.stride, to.offset);
        let args = |item| [x, Operand::Item(item), to.y];
        match *transform {
            PlacedTransform::Scale(item) => {
                let params = scale::Params { width, y_stride, y_offset };
                b.step::<Scale>(format!("{label}.scale"), extent, form, params, &args(item))
            }
            PlacedTransform::Gather(item, taken) => {
                let params = gather::Params { width: taken, x_stride: width, y_stride, y_offset };
                b.step::<Gather>(format!("{label}.gather"), extent, form, params, &args(item))
            }
            PlacedTransform::Hadamard(item, block, order) => {
                let params = hadamard::Params { width, block, order, y_stride, y_offset };
                b.step::<Hadamard>(format!("{label}.hadamard"), extent, form, params, &args(item))
            }
        }
    }
}

/// Where a result goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    y: Operand,
    stride: u32,
    offset: u32,
    epilogue: Epilogue,
}

impl Target {
    /// Rows of `width` elements, replaced.
    pub(super) fn whole(y: Operand, width: u32) -> Self {
        Self { y, stride: width, offset: 0, epilogue: Epilogue::Store }
    }

    /// Scratch of `width` elements a row.
    fn temp(b: &mut Builder<'_>, name: &str, extent: Extent, width: u32) -> Self {
        Self::whole(b.temp(name, extent, width as usize), width)
    }
}
