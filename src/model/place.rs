//! Weights into the store: joined where one product can do for several, cut where one binding cannot hold them.

use crate::kernel::PAGE;
use crate::plan::{Item, ItemId, Store};
use crate::quant::{Format, Matrix};

use super::adapter::Adapted;
use super::blueprint::{Blueprint, Rope};
use super::linear::{Factors, Hadamard, Linear, Side, Transform};
use super::lower::Dial;
use super::weights::{NormWeights, Weights};

/// Where the weights of a model stand in the store.
#[derive(Debug)]
pub(super) struct Placed {
    /// By token.
    pub(super) embedding: PlacedEmbedding,
    /// By layer of the checkpoint.
    pub(super) blocks: Vec<PlacedBlock>,
    /// By position, `(context, width)`.
    pub(super) positions: Option<ItemId>,
    /// The last norm.
    pub(super) final_norm: PlacedNorm,
    /// To logits.
    pub(super) head: PlacedLinear,
    /// Of each rotary embedding `(context, dims / 2, 2)`: cosine and sine.
    pub(super) rope_tables: Vec<ItemId>,
    /// `(context, head_dim / 2, 2)`: the factor of queries, and 0.
    pub(super) temperature: Option<ItemId>,
}

/// Where the rows stand that tokens become.
#[derive(Debug)]
pub(super) struct PlacedEmbedding {
    /// Elements of a row in the pieces.
    pub(super) width: u32,
    /// In the order of tokens.
    pub(super) pieces: Vec<Piece>,
    /// What becomes of a row.
    pub(super) post: Vec<PlacedTransform>,
}

/// Where the gain and the bias of a norm stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedNorm {
    pub(super) gain: ItemId,
    pub(super) bias: Option<ItemId>,
}

impl Placed {
    /// Every path, in the order of the pass.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let linears = self.blocks.iter().flat_map(PlacedBlock::linears).chain([&self.head]);
        linears.flat_map(|linear| &linear.paths)
    }

    /// The states of all adapters.
    pub(super) fn dials(&self) -> Vec<Dial> {
        self.paths().flat_map(|path| &path.adapters).map(|adapter| adapter.dial).collect()
    }
}

impl PlacedBlock {
    /// In the order of the pass.
    fn linears(&self) -> [&PlacedLinear; 4] {
        [&self.qkv, &self.o, &self.gate_up, &self.down]
    }
}

/// Where the weights of a block stand.
#[derive(Debug)]
pub(super) struct PlacedBlock {
    /// Before attention.
    pub(super) attn_norm: PlacedNorm,
    /// Query, key and value projections, outputs side by side.
    pub(super) qkv: PlacedLinear,
    /// Gains of the norms of each head of queries and of keys, `(2, head_dim)`.
    pub(super) head_norms: Option<ItemId>,
    /// Output projection.
    pub(super) o: PlacedLinear,
    /// Of what attention and the feed-forward network add.
    pub(super) post_norms: Option<[PlacedNorm; 2]>,
    /// Before the feed-forward network.
    pub(super) ffn_norm: PlacedNorm,
    /// Gate, if there is one, and up projections, outputs side by side.
    pub(super) gate_up: PlacedLinear,
    /// Down projection.
    pub(super) down: PlacedLinear,
}

/// Linears of one input whose outputs stand side by side.
#[derive(Debug)]
pub(super) struct PlacedLinear {
    /// In the order of their outputs; as many as differ in what they do to input or output.
    pub(super) paths: Vec<Path>,
    /// Biases: item, width, first output.
    pub(super) biases: Vec<(ItemId, u32, u32)>,
}

impl PlacedLinear {
    /// A matrix of `k` inputs and `rows` outputs, and no more.
    fn matrix(name: &str, k: u32, rows: u32, pieces: Vec<Piece>) -> Self {
        let (pre, post, sides, adapters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let names = vec![name.to_owned()];
        let (first_row, factors) = (0, None);
        let path = Path { cols: k, pre, k, pieces, factors, sides, rows, post, first_row, names, adapters };
        Self { paths: vec![path], biases: Vec::new() }
    }
}

/// Outputs that come from one input in one way.
#[derive(Debug)]
pub(super) struct Path {
    /// Elements of the input.
    pub(super) cols: u32,
    /// What becomes of the input.
    pub(super) pre: Vec<PlacedTransform>,
    /// Inputs of the base.
    pub(super) k: u32,
    /// Products, in the order of their outputs.
    pub(super) pieces: Vec<Piece>,
    /// What makes Kronecker products of them.
    pub(super) factors: Option<PlacedFactors>,
    /// Low-rank paths.
    pub(super) sides: Vec<PlacedSide>,
    /// Outputs of the base.
    pub(super) rows: u32,
    /// What becomes of them.
    pub(super) post: Vec<PlacedTransform>,
    /// Where the outputs stand.
    pub(super) first_row: u32,
    /// The names of the matrices.
    pub(super) names: Vec<String>,
    /// What adapters add to them, of the input as it comes.
    pub(super) adapters: Vec<PlacedAdapter>,
}

impl Path {
    /// Parts of the input that are multiplied one by one.
    pub(super) fn parts(&self) -> u32 {
        self.factors.as_ref().map_or(1, |factors| factors.cols)
    }

    /// Inputs of the products.
    pub(super) fn part_width(&self) -> u32 {
        self.k / self.parts()
    }
}

/// The factors of Kronecker products, as in [`Factors`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedFactors {
    pub(super) item: ItemId,
    pub(super) terms: u32,
    pub(super) rows: u32,
    pub(super) cols: u32,
}

/// A low-rank path beside products.
#[derive(Debug)]
pub(super) struct PlacedSide {
    pub(super) down: Vec<Piece>,
    pub(super) rank: u32,
    /// What the `rank` numbers between are multiplied by, if by more than 1.
    pub(super) scale: Option<ItemId>,
    pub(super) up: Vec<Piece>,
}

/// The path of an adapter.
#[derive(Debug)]
pub(super) struct PlacedAdapter {
    pub(super) side: PlacedSide,
    pub(super) dial: Dial,
}

/// A transform and its vector in the store.
#[derive(Debug)]
pub(super) enum PlacedTransform {
    /// By the factors.
    Scale(ItemId),
    /// In this order, of so many elements.
    Gather(ItemId, u32),
    /// Of blocks of so many elements, over the table of this order.
    Hadamard(ItemId, u32, u32),
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

/// What stands for tables by position, which grow with the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// Their numbers.
    Filled,
    /// States of their size, which take neither time nor memory.
    Outlined,
}

impl Tables {
    fn place(self, store: &mut Store, name: &str, words: usize, table: impl FnOnce() -> Vec<f32>) -> ItemId {
        match self {
            Self::Filled => store.add_vector(name, &table()),
            Self::Outlined => store.add_state(name, words),
        }
    }
}

/// Puts the weights of a model into `store`; no matrix there takes more than `max_bytes` in GPU order.
pub(super) fn place(
    store: &mut Store,
    blueprint: &Blueprint,
    weights: &Weights,
    max_bytes: u64,
    context: u32,
    tables: Tables,
) -> Placed {
    let name = weights.embedding.name();
    let embedding = PlacedEmbedding {
        width: weights.embedding.cols() as u32,
        pieces: place_matrix(store, &weights.embedding, 0, max_bytes),
        post: weights.embedding_post.iter().map(|post| place_transform(store, name, post)).collect(),
    };
    let head = match &weights.head {
        Some(head) => place_linears(store, &[head], max_bytes),
        None => PlacedLinear::matrix(name, blueprint.width, blueprint.vocab, embedding.pieces.clone()),
    };
    let blocks = blueprint.layers().zip(&weights.blocks).enumerate().map(|(i, (shape, block))| PlacedBlock {
        attn_norm: place_norm(store, &format!("blk.{i}.attn_norm"), &block.attention_norm),
        qkv: place_linears(store, &[&block.q, &block.k, &block.v], max_bytes),
        head_norms: shape.attention.head_norm.map(|_| {
            let ones = || vec![1.0; 2 * shape.attention.head_dim as usize];
            let gains = block.head_norms.as_ref().map_or_else(ones, |gains| gains.concat());
            store.add_vector(&format!("blk.{i}.head_norm"), &gains)
        }),
        o: place_linears(store, &[&block.o], max_bytes),
        post_norms: block.post_norms.as_ref().map(|[attention, ffn]| {
            let [attn_name, ffn_name] = ["attn", "ffn"].map(|half| format!("blk.{i}.post_{half}_norm"));
            [place_norm(store, &attn_name, attention), place_norm(store, &ffn_name, ffn)]
        }),
        ffn_norm: place_norm(store, &format!("blk.{i}.ffn_norm"), &block.ffn_norm),
        gate_up: match &block.gate {
            Some(gate) => place_linears(store, &[gate, &block.up], max_bytes),
            None => place_linears(store, &[&block.up], max_bytes),
        },
        down: place_linears(store, &[&block.down], max_bytes),
    });
    let blocks = blocks.collect();
    let final_norm = place_norm(store, "output_norm", &weights.final_norm);
    let positions = weights.positions.as_ref().map(|rows| store.add_vector("position_embd", rows));
    // Whole pages: rows that pad the last page may carry any of its positions.
    let places = context.next_multiple_of(PAGE);
    let ropes = blueprint.ropes.iter().enumerate();
    let rope_tables = ropes
        .map(|(i, rope)| {
            let words = places as usize * rope.dims as usize;
            tables.place(store, &format!("rope_table.{i}"), words, || rope_table(rope, context, places))
        })
        .collect();
    let tempered = blueprint.blocks.iter().find(|block| block.attention.tempered);
    let temperature = blueprint.temperature.zip(tempered).map(|(temperature, block)| {
        let pairs = block.attention.head_dim as usize / 2;
        let of = |position| [temperature.of(position) as f32, 0.0].repeat(pairs);
        let words = places as usize * 2 * pairs;
        tables.place(store, "temperature", words, || (0..places).flat_map(of).collect())
    });
    Placed { embedding, positions, blocks, final_norm, head, rope_tables, temperature }
}

fn place_norm(store: &mut Store, name: &str, norm: &NormWeights) -> PlacedNorm {
    let bias = norm.bias.as_ref().map(|bias| store.add_vector(&format!("{name}.bias"), bias));
    PlacedNorm { gain: store.add_vector(name, &norm.gain), bias }
}

fn place_linears(store: &mut Store, linears: &[&Linear], max_bytes: u64) -> PlacedLinear {
    let mut placed = PlacedLinear { paths: Vec::new(), biases: Vec::new() };
    let mut first_row = 0;
    // Neighbours that do the same to the input, and nothing to the output, become one product.
    let is_simple = |linear: &Linear| linear.post.is_empty() && linear.factors.is_none();
    for alike in linears.chunk_by(|a, b| is_simple(a) && is_simple(b) && a.pre == b.pre) {
        placed.paths.push(place_path(store, alike, first_row, max_bytes));
        for linear in alike {
            if let Some(bias) = &linear.bias {
                let item = store.add_vector(&format!("{}.bias", linear.base.name()), bias);
                placed.biases.push((item, linear.rows(), first_row));
            }
            first_row += linear.rows();
        }
    }
    placed
}

/// Linears that share their `pre`; none of several has factors or a `post`.
fn place_path(store: &mut Store, linears: &[&Linear], first_row: u32, max_bytes: u64) -> Path {
    let matrices: Vec<&Matrix> = linears.iter().map(|linear| &linear.base).collect();
    let names = matrices.iter().map(|matrix| matrix.name().to_owned()).collect();
    let groups = match Matrix::join(matrices[0], &matrices[1..]) {
        Some(joined) => vec![joined],
        None => matrices.into_iter().cloned().collect(),
    };
    let (mut pieces, mut product) = (Vec::new(), 0);
    for matrix in &groups {
        pieces.extend(place_matrix(store, matrix, product, max_bytes));
        product += matrix.rows() as u32;
    }
    let (mut sides, mut rows) = (Vec::new(), 0);
    for linear in linears {
        sides.extend(linear.side.iter().map(|side| place_side(store, side, rows, max_bytes)));
        rows += linear.base_rows();
    }
    let (mut adapters, mut output) = (Vec::new(), 0);
    for linear in linears {
        adapters
            .extend(linear.adapters.iter().map(|adapted| place_adapter(store, adapted, output, max_bytes)));
        output += linear.rows();
    }
    let first = linears[0];
    let factors = first.factors.as_ref().map(|factors| place_factors(store, first.base.name(), factors));
    let mut place = |transforms: &[Transform]| {
        transforms.iter().map(|transform| place_transform(store, first.base.name(), transform)).collect()
    };
    let (pre, post) = (place(&first.pre), place(&first.post));
    Path {
        cols: first.cols,
        pre,
        k: first.base_cols(),
        pieces,
        factors,
        sides,
        rows,
        post,
        first_row,
        names,
        adapters,
    }
}

fn place_factors(store: &mut Store, of: &str, factors: &Factors) -> PlacedFactors {
    let Factors { terms, rows, cols, ref values } = *factors;
    PlacedFactors { item: store.add_vector(&format!("{of}.factors"), values), terms, rows, cols }
}

fn place_side(store: &mut Store, side: &Side, first_row: u32, max_bytes: u64) -> PlacedSide {
    let rank = side.down.rows();
    let mut scale = || store.add_vector(&format!("{}.scale", side.down.name()), &vec![side.scale; rank]);
    let scale = (side.scale != 1.0).then(&mut scale);
    PlacedSide {
        down: place_matrix(store, &side.down, 0, max_bytes),
        rank: rank as u32,
        scale,
        up: place_matrix(store, &side.up, first_row, max_bytes),
    }
}

/// The weight of an adapter is a state: the host turns it.
fn place_adapter(store: &mut Store, adapted: &Adapted, first_row: u32, max_bytes: u64) -> PlacedAdapter {
    let Adapted { adapter, down, up, scale } = adapted;
    let rank = down.rows() as u32;
    let item = store.add_state(&format!("{}.weight", down.name()), down.rows());
    let side = PlacedSide {
        down: place_matrix(store, down, 0, max_bytes),
        rank,
        scale: Some(item),
        up: place_matrix(store, up, first_row, max_bytes),
    };
    PlacedAdapter { side, dial: Dial { item, adapter: *adapter, rank, scale: *scale } }
}

fn place_transform(store: &mut Store, of: &str, transform: &Transform) -> PlacedTransform {
    match transform {
        Transform::Scale(gains) => PlacedTransform::Scale(store.add_vector(&format!("{of}.scale"), gains)),
        Transform::Gather(order) => {
            let places: Vec<f32> = order.iter().map(|&from| from as f32).collect();
            PlacedTransform::Gather(store.add_vector(&format!("{of}.order"), &places), order.len() as u32)
        }
        Transform::Hadamard(Hadamard { block, order, table }) => {
            PlacedTransform::Hadamard(store.add_vector(&format!("{of}.hadamard"), table), *block, *order)
        }
    }
}

impl PlacedTransform {
    /// Elements of the result for `width` elements of input.
    pub(super) fn width(&self, width: u32) -> u32 {
        match self {
            Self::Gather(_, width) => *width,
            Self::Scale(_) | Self::Hadamard(..) => width,
        }
    }
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
fn rope_table(rope: &Rope, context: u32, places: u32) -> Vec<f32> {
    let frequencies = rope.frequencies(context);
    let turn = |position: u32, frequency: f64| {
        let (sin, cos) = (f64::from(position) * frequency).sin_cos();
        let factor = f64::from(rope.attention_factor);
        [(cos * factor) as f32, (sin * factor) as f32]
    };
    (0..places).flat_map(|position| frequencies.iter().flat_map(move |&f| turn(position, f))).collect()
}
