//! Weights into the store: joined where one product can do for several, cut where one binding cannot hold them.

use crate::kernel::PAGE;
use crate::plan::{Item, ItemId, Store};
use crate::quant::{Format, Matrix};

use super::blueprint::{Blueprint, Rope};
use super::linear::Linear;
use super::weights::Weights;

/// Where the weights of a model stand in the store.
#[derive(Debug)]
pub(super) struct Placed {
    /// By token.
    pub(super) embedding: Vec<Piece>,
    /// By block.
    pub(super) blocks: Vec<PlacedBlock>,
    /// Gain of the last norm.
    pub(super) final_norm: ItemId,
    /// To logits.
    pub(super) head: PlacedLinear,
    /// `(context, dims / 2, 2)`: cosine and sine.
    pub(super) rope_table: ItemId,
}

/// Where the weights of a block stand.
#[derive(Debug)]
pub(super) struct PlacedBlock {
    /// Gain of the norm before attention.
    pub(super) attn_norm: ItemId,
    /// Query, key and value projections, outputs side by side.
    pub(super) qkv: PlacedLinear,
    /// Output projection.
    pub(super) o: PlacedLinear,
    /// Gain of the norm before the feed-forward network.
    pub(super) ffn_norm: ItemId,
    /// Gate and up projections, outputs side by side.
    pub(super) gate_up: PlacedLinear,
    /// Down projection.
    pub(super) down: PlacedLinear,
}

/// Linears of one input whose outputs stand side by side.
#[derive(Debug)]
pub(super) struct PlacedLinear {
    /// Inputs.
    pub(super) k: u32,
    /// Products, in the order of their outputs.
    pub(super) pieces: Vec<Piece>,
    /// Biases: item, width, first output.
    pub(super) biases: Vec<(ItemId, u32, u32)>,
}

/// A matrix in the store that yields outputs `first_row ..` of what it is a piece of.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The matrix.
    pub(super) item: ItemId,
    /// Its first output.
    pub(super) first_row: u32,
    /// Its outputs.
    pub(super) rows: u32,
    /// Its format.
    pub(super) format: Format,
    /// `vec4<u32>`s of a row of codes.
    pub(super) code_stride: u32,
    /// u32s of a row of scales.
    pub(super) scale_stride: u32,
}

/// Puts the weights of a model into `store`; no matrix there takes more than `max_bytes` in GPU order.
pub(super) fn place(
    store: &mut Store,
    blueprint: &Blueprint,
    weights: &Weights,
    max_bytes: u64,
    context: u32,
) -> Placed {
    let embedding = place_matrix(store, &weights.embedding, 0, max_bytes);
    let head = match &weights.head {
        Some(head) => place_linears(store, &[head], max_bytes),
        None => PlacedLinear { k: blueprint.width, pieces: embedding.clone(), biases: Vec::new() },
    };
    let blocks = weights.blocks.iter().enumerate().map(|(i, block)| PlacedBlock {
        attn_norm: store.add_vector(&format!("blk.{i}.attn_norm"), &block.attention_norm),
        qkv: place_linears(store, &[&block.q, &block.k, &block.v], max_bytes),
        o: place_linears(store, &[&block.o], max_bytes),
        ffn_norm: store.add_vector(&format!("blk.{i}.ffn_norm"), &block.ffn_norm),
        gate_up: place_linears(store, &[&block.gate, &block.up], max_bytes),
        down: place_linears(store, &[&block.down], max_bytes),
    });
    let blocks = blocks.collect();
    let final_norm = store.add_vector("output_norm", &weights.final_norm);
    let rope_table = store.add_vector("rope_table", &rope_table(&blueprint.rope, context));
    Placed { embedding, blocks, final_norm, head, rope_table }
}

fn place_linears(store: &mut Store, linears: &[&Linear], max_bytes: u64) -> PlacedLinear {
    let matrices: Vec<&Matrix> = linears.iter().map(|linear| &linear.base).collect();
    let groups = match Matrix::join(matrices[0], &matrices[1..]) {
        Some(joined) => vec![joined],
        None => matrices.iter().map(|&matrix| matrix.clone()).collect(),
    };
    let mut placed = PlacedLinear { k: matrices[0].cols() as u32, pieces: Vec::new(), biases: Vec::new() };
    let mut first_row = 0;
    for matrix in &groups {
        placed.pieces.extend(place_matrix(store, matrix, first_row, max_bytes));
        first_row += matrix.rows() as u32;
    }
    let mut first_row = 0;
    for linear in linears {
        if let Some(bias) = &linear.bias {
            let item = store.add_vector(&format!("{}.bias", linear.base.name()), bias);
            placed.biases.push((item, bias.len() as u32, first_row));
        }
        first_row += linear.base.rows() as u32;
    }
    placed
}

fn place_matrix(store: &mut Store, matrix: &Matrix, first_row: u32, max_bytes: u64) -> Vec<Piece> {
    let format = matrix.format();
    let (code_words, scale_words) = (format.code_words(matrix.cols()), format.scale_words(matrix.cols()));
    let row_bytes = 4 * code_words.max(scale_words) as u64;
    let rows_at_once = usize::try_from(max_bytes / row_bytes).unwrap_or(usize::MAX).max(1);
    let starts = (0..matrix.rows()).step_by(rows_at_once);
    let piece = |start: usize| {
        let rows = start..matrix.rows().min(start.saturating_add(rows_at_once));
        let whole = rows.len() == matrix.rows();
        let part = if whole { matrix.clone() } else { matrix.slice(rows.clone()) };
        Piece {
            item: store.add(Item::Matrix(part)),
            first_row: first_row + rows.start as u32,
            rows: rows.len() as u32,
            format,
            code_stride: (code_words / 4) as u32,
            scale_stride: scale_words as u32,
        }
    };
    starts.map(piece).collect()
}

/// Cosine and sine of position × inverse frequency, in f64 and rounded once.
fn rope_table(rope: &Rope, context: u32) -> Vec<f32> {
    // Whole pages: rows that pad the last page may carry any of its positions.
    let positions = context.next_multiple_of(PAGE);
    let turn = |position: u32, frequency: f64| {
        let (sin, cos) = (f64::from(position) * frequency).sin_cos();
        let factor = f64::from(rope.attention_factor);
        [(cos * factor) as f32, (sin * factor) as f32]
    };
    (0..positions).flat_map(|position| rope.inv_freq.iter().flat_map(move |&f| turn(position, f))).collect()
}
