//! A linear becomes steps: transforms, products, low-rank paths, biases.

use crate::error::Result;
use crate::kernel::{
    Bias, Epilogue, Form, Gather, Hadamard, Matmul, Matvec, Round8, Scale, Squares, bias, gather, hadamard,
    matvec, round8, scale, squares,
};
use crate::plan::{Builder, Extent, Operand};

use super::lower::Pass;
use super::place::{Path, Piece, PlacedLinear, PlacedSide, PlacedTransform};

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
        let (input, mut x, mut width) = (x, x, path.cols);
        for transform in &path.pre {
            let next = transform.width(width);
            let turned = Target::temp(b, "turned", extent, next);
            self.transform(b, label, extent, transform, (x, width), turned)?;
            (x, width) = (turned.y, next);
        }
        if let Some((_, state)) = self.ports.squares.iter().find(|(name, _)| *name == path.names[0]) {
            let params = squares::Params { width: path.k };
            let args = [x, Operand::Item(*state)];
            b.step::<Squares>(format!("{label}.squares"), extent, Form::default(), params, &args)?;
        }
        let sum = if path.post.is_empty() { to } else { Target::temp(b, "sum", extent, path.rows) };
        let mut rounded = x;
        if self.options.int8_activations {
            rounded = b.temp("rounded", extent, path.k as usize);
            let params = round8::Params { width: path.k };
            b.step::<Round8>(format!("{label}.round"), extent, Form::default(), params, &[x, rounded])?;
        }
        self.products(b, label, extent, &path.pieces, (rounded, path.k), sum)?;
        for side in &path.sides {
            self.side(b, label, extent, side, (x, path.k), sum)?;
        }
        let (mut from, mut width) = (sum.y, path.rows);
        for (index, transform) in path.post.iter().enumerate() {
            let next = transform.width(width);
            let last = index + 1 == path.post.len();
            let turned = if last { to } else { Target::temp(b, "turned", extent, next) };
            self.transform(b, label, extent, transform, (from, width), turned)?;
            (from, width) = (turned.y, next);
        }
        for adapter in &path.adapters {
            self.side(b, label, extent, &adapter.side, (input, path.cols), to)?;
        }
        Ok(())
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
            let narrow = b.max_of(extent) <= self.options.decode_rows;
            match narrow {
                true => b.step::<Matvec>(label, extent, form, params, &args)?,
                false => b.step::<Matmul>(label, extent, form, params, &args)?,
            }
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
struct Target {
    y: Operand,
    stride: u32,
    offset: u32,
    epilogue: Epilogue,
}

impl Target {
    /// Scratch of `width` elements a row.
    fn temp(b: &mut Builder<'_>, name: &str, extent: Extent, width: u32) -> Self {
        let y = b.temp(name, extent, width as usize);
        Self { y, stride: width, offset: 0, epilogue: Epilogue::Store }
    }
}
