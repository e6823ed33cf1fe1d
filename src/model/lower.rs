//! The forward pass, on one page: a blueprint and its weights become a store and two plans over it for each KV cache.
//!
//! x ← embedding of the token; then in each block x ← x + O·attend(rope(head_norm(QKV·norm(x)))) and
//! x ← x + down·(silu(gate·norm(x)) ⊙ up·norm(x)); at the end, for the rows that are asked for, logits ← head·norm(x).
//! (Touvron et al. 2023, arXiv 2302.13971.) Shapes: x (rows, width); q, k, v side by side in qkv
//! (rows, (heads + 2·kv_heads)·head_dim); gate and up side by side in h (rows, 2·ffn_width).

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::{
    Argmax, Attend, Draw, Embed, Epilogue, Form, Geglu, Gelu, HeadNorm, KvBlocks, KvType, KvWrite, LayerNorm,
    PAGE, Pick, Positions, RmsNorm, Rope, SoftCap, Swiglu, TopK, argmax, attend, draw, embed, geglu, gelu,
    head_norm, kv_blocks, kv_write, layer_norm, pick, positions, rms_norm, rope, soft_cap, swiglu, top_k,
};
use crate::plan::{Builder, Extent, ItemId, Operand, Plan, Store};

use super::apply::Target;
use super::blueprint::{Attention, Block, Blueprint, Ffn, Pairing};
use super::place::{Placed, PlacedBlock, PlacedEmbedding, PlacedLinear, PlacedNorm, Tables, place};
use super::weights::Weights;

/// What is chosen when a model is lowered.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// Positions of a sequence.
    pub context: u32,
    /// The KV caches, at least one.
    pub caches: Vec<CacheOptions>,
    /// The most rows of the prefill plan.
    pub prefill_rows: u32,
    /// The most rows of the decode plan.
    pub decode_rows: u32,
    /// The most rows with logits in one submission.
    pub outputs: u32,
    /// How many of the largest logits `top` holds.
    pub top: u32,
    /// The most bytes of a matrix in the device's order; a larger one is cut by rows.
    pub max_matrix_bytes: u64,
    /// Whether neighbouring steps are joined: for a device to which each step costs a dispatch.
    pub fused: bool,
    /// Whether the squares of the inputs of each matrix are summed, in [`Ports::squares`].
    pub calibrates: bool,
    /// Whether the input of every matrix is rounded to 8 bits row by row first, as runtimes for phones do.
    pub int8_activations: bool,
}

/// Keys and values that are stored in one way.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Their storage.
    pub kv: KvType,
    /// Whether heads are turned by a Walsh–Hadamard transform where they are stored in blocks.
    pub turned: bool,
    /// Sequences with keys and values at the same time.
    pub sequences: u32,
    /// Pages, shared by the sequences.
    pub pages: u32,
}

impl CacheOptions {
    /// Room for so many sequences to fill a context each; heads are turned where they are stored in blocks.
    pub fn full(kv: KvType, context: u32, sequences: u32) -> Self {
        let pages = context.div_ceil(PAGE).saturating_mul(sequences);
        Self { kv, turned: kv.is_blocks(), sequences, pages }
    }
}

/// A model ready to be loaded by a backend.
#[derive(Debug)]
pub struct Lowered {
    /// Weights and states.
    pub store: Store,
    /// By KV cache, as in the options.
    pub caches: Vec<Cache>,
    /// The states that the host touches.
    pub ports: Ports,
    /// The tables by position in the store.
    pub tables: Vec<ItemId>,
    /// The choices.
    pub options: LowerOptions,
}

/// A KV cache, and the plans that read and write it. What computes with it computes all else with the same weights.
#[derive(Clone, Debug)]
pub struct Cache {
    /// How it is stored.
    pub options: CacheOptions,
    /// Its sequences among those of all caches: their lines in [`Ports::pages`].
    pub sequences: Range<u32>,
    /// By block: keys.
    pub keys: Vec<ItemId>,
    /// By block: values.
    pub values: Vec<ItemId>,
    /// A few rows, matrix times vector.
    pub decode: Phase,
    /// Many rows, matrix times matrix.
    pub prefill: Phase,
}

/// A plan and how far to run it.
#[derive(Clone, Debug)]
pub struct Phase {
    /// All steps.
    pub plan: Arc<Plan>,
    /// Steps that fill the KV cache and no more.
    pub body: usize,
    /// Steps up to what the head is given.
    pub hidden: usize,
    /// Steps up to the logits.
    pub logits: usize,
    /// Steps up to the token of the largest logit, which becomes the next row.
    pub argmax: usize,
    /// Steps up to the tokens that chains draw, in place of those: all.
    pub draw: usize,
}

/// The states that the host touches.
#[derive(Clone, Debug)]
pub struct Ports {
    /// In: token, position, sequence, 0 of each row. Out: what follows the rows whose logits were wanted.
    pub rows: ItemId,
    /// In: pages of each sequence, `(sequences, context / PAGE)`, each in its own cache.
    pub pages: ItemId,
    /// In: the rows whose logits are wanted.
    pub outputs: ItemId,
    /// In: the chain of each output, as the kernel `draw` takes it.
    pub chains: ItemId,
    /// Out: what the head is given, `(outputs, width)`.
    pub hidden: ItemId,
    /// Out: `(outputs, vocabulary)`.
    pub logits: ItemId,
    /// Out: the token of each output.
    pub token: ItemId,
    /// Out: the largest logits, as the kernel `top_k` writes them.
    pub top: ItemId,
    /// Out, where the plan calibrates: the sums of squares of the inputs of each matrix, by its name.
    pub squares: Vec<(String, ItemId)>,
    /// In: the weights of adapters.
    pub dials: Vec<Dial>,
}

/// The weight of an adapter beside a linear: a state of `rank` times weight · `scale`.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// The state.
    pub item: ItemId,
    /// The adapter, by its place among those of the model.
    pub adapter: usize,
    /// f32 words of the state.
    pub rank: u32,
    /// What the adapter's weight is multiplied by.
    pub scale: f32,
}

impl LowerOptions {
    /// Entries of a sequence in the state `pages`.
    pub fn pages_per_sequence(&self) -> u32 {
        self.context.div_ceil(PAGE)
    }

    /// Sequences of all caches.
    pub fn sequences(&self) -> u32 {
        self.caches.iter().map(|cache| cache.sequences).sum()
    }
}

impl Lowered {
    /// The plans of all caches.
    pub fn plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.caches.iter().flat_map(|cache| [&cache.decode.plan, &cache.prefill.plan])
    }

    /// The states of keys and values of all caches.
    pub fn kv_states(&self) -> impl Iterator<Item = ItemId> {
        self.caches.iter().flat_map(Cache::states)
    }
}

impl Cache {
    /// The states of its keys and values, block by block.
    pub fn states(&self) -> impl Iterator<Item = ItemId> {
        self.keys.iter().zip(&self.values).flat_map(|(&keys, &values)| [keys, values])
    }
}

/// Lowers a model.
///
/// # Errors
/// [`crate::Kind::Internal`] where the plan does not fit together.
pub fn lower(blueprint: &Blueprint, weights: &Weights, options: LowerOptions) -> Result<Lowered> {
    lower_with(blueprint, weights, options, Tables::Filled)
}

/// As [`lower`], but states of their size stand for the tables by position: to see what the model would take, not to load.
///
/// # Errors
/// As [`lower`].
pub fn outline(blueprint: &Blueprint, weights: &Weights, options: LowerOptions) -> Result<Lowered> {
    lower_with(blueprint, weights, options, Tables::Outlined)
}

fn lower_with(
    blueprint: &Blueprint,
    weights: &Weights,
    options: LowerOptions,
    tables: Tables,
) -> Result<Lowered> {
    let mut store = Store::default();
    let (most, context) = (options.max_matrix_bytes, options.context);
    let placed = place(&mut store, blueprint, weights, most, context, tables);
    let mut ports = Ports { dials: placed.dials(), ..open_ports(&mut store, blueprint, &options) };
    for path in placed.paths().filter(|_| options.calibrates) {
        let state = store.add_state(&format!("{}.squares", path.names[0]), path.part_width() as usize);
        ports.squares.extend(path.names.iter().map(|name| (name.clone(), state)));
    }
    let mut caches = Vec::with_capacity(options.caches.len());
    let mut first = 0;
    for (at, &cache) in options.caches.iter().enumerate() {
        let [keys, values] =
            ["keys", "values"].map(|name| open_cache(&mut store, blueprint, name, at, cache));
        let pass = Pass { blueprint, placed: &placed, ports: &ports, options: &options, cache, keys, values };
        let named =
            |name: &str| if at == 0 { name.to_owned() } else { format!("{name} {}", cache.kv.name()) };
        let decode = pass.forward(&store, &named("decode"), options.decode_rows)?;
        let prefill = pass.forward(&store, &named("prefill"), options.prefill_rows)?;
        let Pass { keys, values, .. } = pass;
        let sequences = first..first + cache.sequences;
        first = sequences.end;
        caches.push(Cache { options: cache, sequences, keys, values, decode, prefill });
    }
    let tables = placed.rope_tables.iter().copied().chain(placed.temperature).collect();
    Ok(Lowered { store, caches, ports, tables, options })
}

/// The states of the keys, or of the values, of one cache.
fn open_cache(
    store: &mut Store,
    blueprint: &Blueprint,
    name: &str,
    at: usize,
    cache: CacheOptions,
) -> Vec<ItemId> {
    let words = |block: &Block| {
        let attention = &block.attention;
        let of_page = (PAGE * attention.kv_heads) as usize;
        cache.kv.words(cache.pages as usize * of_page, attention.head_dim as usize)
    };
    let of = if at == 0 { String::new() } else { format!(".{}", cache.kv.name()) };
    let blocks = blueprint.blocks.iter().enumerate();
    blocks.map(|(i, block)| store.add_state(&format!("blk.{i}.{name}{of}"), words(block))).collect()
}

fn open_ports(store: &mut Store, blueprint: &Blueprint, options: &LowerOptions) -> Ports {
    let outputs = options.outputs as usize;
    Ports {
        squares: Vec::new(),
        dials: Vec::new(),
        rows: store.add_state(
            "rows",
            options.prefill_rows.max(options.decode_rows) as usize * crate::kernel::ROW_WORDS,
        ),
        pages: store.add_state("pages", (options.sequences() * options.pages_per_sequence()) as usize),
        outputs: store.add_state("outputs", outputs),
        hidden: store.add_state("hidden", outputs * blueprint.width as usize),
        logits: store.add_state("logits", outputs * blueprint.vocab as usize),
        chains: store.add_state("chains", outputs * draw::CHAIN_WORDS),
        token: store.add_state("token", outputs),
        top: store.add_state("top", outputs * (2 * options.top as usize + 1)),
    }
}

/// The pass through a model that is being lowered.
pub(super) struct Pass<'a> {
    blueprint: &'a Blueprint,
    placed: &'a Placed,
    pub(super) ports: &'a Ports,
    pub(super) options: &'a LowerOptions,
    cache: CacheOptions,
    /// By block.
    keys: Vec<ItemId>,
    /// By block.
    values: Vec<ItemId>,
}

impl Pass<'_> {
    fn forward(&self, store: &Store, name: &str, max_rows: u32) -> Result<Phase> {
        let Self { blueprint, placed, ports, options, .. } = self;
        let width = blueprint.width;
        let plan = Builder::new(store, name, max_rows, options.outputs).handing_out(ports.token);
        let mut plan = if options.fused { plan.fused() } else { plan };
        let b = &mut plan;

        let x = b.temp("x", Extent::Tokens, width as usize);
        self.embed(b, x)?;
        for (i, block) in blueprint.blocks.iter().enumerate() {
            let at = &placed.blocks[block.layer as usize];
            self.attention(b, i, &block.attention, at, x)?;
            self.ffn(b, i, block, at, x)?;
        }
        let body = b.len();

        let (wanted, logits) = (Operand::Item(ports.outputs), Operand::Item(ports.logits));
        let vocab = blueprint.vocab;
        let last = b.temp("last", Extent::Outputs, width as usize);
        b.step::<Pick>("pick", Extent::Outputs, Form::default(), pick::Params { width }, &[wanted, x, last])?;
        let h = Operand::Item(ports.hidden);
        self.norm(b, "output_norm".into(), Extent::Outputs, last, placed.final_norm, h, Epilogue::Store)?;
        let hidden = b.len();
        self.linear(b, "output", Extent::Outputs, &placed.head, h, logits, vocab, Epilogue::Store)?;
        if let Some(cap) = blueprint.logit_cap {
            let params = soft_cap::Params { width: vocab, cap };
            b.step::<SoftCap>("logit_cap", Extent::Outputs, Form::default(), params, &[logits])?;
        }
        let logits_end = b.len();
        let (rows, token) = (Operand::Item(ports.rows), Operand::Item(ports.token));
        let largest = argmax::Params { width: vocab };
        let args = [logits, wanted, rows, token];
        b.step::<Argmax>("argmax", Extent::Outputs, Form::default(), largest, &args)?;
        let argmax = b.len();
        let most = top_k::Params { width: vocab, k: options.top };
        let top = Operand::Item(ports.top);
        b.step::<TopK>("top_k", Extent::Outputs, Form::default(), most, &[logits, top])?;
        let args = [top, wanted, Operand::Item(ports.chains), rows, token];
        b.step::<Draw>("draw", Extent::Outputs, Form::default(), draw::Params { k: options.top }, &args)?;
        let plan = Arc::new(plan.finish());
        Ok(Phase { body, hidden, logits: logits_end, argmax, draw: plan.steps.len(), plan })
    }

    /// x ← x + O·attend(rope(head_norm(QKV·norm(x)))), with the keys and values of block `i`.
    fn attention(
        &self,
        b: &mut Builder<'_>,
        i: usize,
        attention: &Attention,
        at: &PlacedBlock,
        x: Operand,
    ) -> Result<()> {
        let Self { blueprint, placed, ports, options, cache, .. } = self;
        let &Attention { heads, kv_heads, head_dim, scale, window, cap, .. } = attention;
        let (width, tokens) = (blueprint.width, Extent::Tokens);
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let stride = q_width + 2 * kv_width;
        let (keys, values) = (Operand::Item(self.keys[i]), Operand::Item(self.values[i]));
        let (rows, pages) = (Operand::Item(ports.rows), Operand::Item(ports.pages));
        let pages_per_sequence = options.pages_per_sequence();
        let kv = Form { kv: Some(cache.kv), ..Form::default() };
        let label = |what: &str| format!("blk.{i}.{what}");

        let h = b.temp("h", tokens, width as usize);
        self.norm(b, label("attn_norm"), tokens, x, at.attn_norm, h, Epilogue::Store)?;
        let qkv = b.temp("qkv", tokens, stride as usize);
        self.linear(b, &label("attn_qkv"), tokens, &at.qkv, h, qkv, stride, Epilogue::Store)?;
        if let Some(gains) = at.head_norms {
            let params = head_norm::Params { stride, heads, kv_heads, head_dim, epsilon: blueprint.norm_eps };
            let args = [Operand::Item(gains), qkv];
            b.step::<HeadNorm>(label("head_norm"), tokens, Form::default(), params, &args)?;
        }
        if let Some(table) = placed.temperature.filter(|_| attention.tempered) {
            // A turn by nothing that stretches queries.
            let stretch = rope::Params { stride, offset: 0, heads, head_dim, dims: head_dim, interleaved: 1 };
            let args = [rows, Operand::Item(table), qkv];
            b.step::<Rope>(label("temperature"), tokens, Form::default(), stretch, &args)?;
        }
        if let Some(index) = attention.rope {
            let rope = &blueprint.ropes[index];
            let interleaved = u32::from(rope.pairing == Pairing::Interleaved);
            let heads = heads + kv_heads;
            let turn = rope::Params { stride, offset: 0, heads, head_dim, dims: rope.dims, interleaved };
            let args = [rows, Operand::Item(placed.rope_tables[index]), qkv];
            b.step::<Rope>(label("rope"), tokens, Form::default(), turn, &args)?;
        }
        let (k_offset, v_offset) = (q_width, q_width + kv_width);
        let block = if cache.turned && cache.kv.is_blocks() { kv_blocks::block_of(head_dim) } else { 1 };
        let args = [rows, pages, qkv, keys, values];
        if cache.kv.is_blocks() {
            let write = kv_blocks::Params { stride, heads, kv_heads, head_dim, block, pages_per_sequence };
            b.step::<KvBlocks>(label("kv_blocks"), tokens, kv, write, &args)?;
        } else {
            let write =
                kv_write::Params { stride, k_offset, v_offset, kv_heads, head_dim, pages_per_sequence };
            b.step::<KvWrite>(label("kv_write"), tokens, kv, write, &args)?;
        }
        let a = b.temp("a", tokens, q_width as usize);
        let all = pages_per_sequence * PAGE;
        let look = attend::Params {
            q_stride: stride,
            q_offset: 0,
            heads,
            kv_heads,
            head_dim,
            pages_per_sequence,
            scale,
            window: window.map_or(all, |window| window.min(all)),
            cap: cap.unwrap_or(0.0),
            block,
        };
        b.step::<Attend>(label("attend"), tokens, kv, look, &[rows, pages, qkv, keys, values, a])?;
        let post = at.post_norms.map(|[attention, _]| attention);
        self.add(b, &label("attn_output"), &at.o, post, a, x)
    }

    /// x ← x + down·(act(gate·norm(x)) ⊙ up·norm(x)), or x ← x + down·act(up·norm(x))
    fn ffn(&self, b: &mut Builder<'_>, i: usize, block: &Block, at: &PlacedBlock, x: Operand) -> Result<()> {
        let tokens = Extent::Tokens;
        let label = |what: &str| format!("blk.{i}.{what}");
        let h = b.temp("h", tokens, self.blueprint.width as usize);
        self.norm(b, label("ffn_norm"), tokens, x, at.ffn_norm, h, Epilogue::Store)?;
        let width = block.ffn_width;
        let stride = if block.ffn == Ffn::Gelu { width } else { 2 * width };
        let gate_up = b.temp("gate_up", tokens, stride as usize);
        self.linear(b, &label("ffn_gate_up"), tokens, &at.gate_up, h, gate_up, stride, Epilogue::Store)?;
        let f = b.temp("f", tokens, width as usize);
        let (form, args) = (Form::default(), [gate_up, f]);
        match block.ffn {
            Ffn::SwiGlu => {
                b.step::<Swiglu>(label("swiglu"), tokens, form, swiglu::Params { width }, &args)?
            }
            Ffn::GeGlu => b.step::<Geglu>(label("geglu"), tokens, form, geglu::Params { width }, &args)?,
            Ffn::Gelu => b.step::<Gelu>(label("gelu"), tokens, form, gelu::Params { width }, &args)?,
        }
        let post = at.post_norms.map(|[_, ffn]| ffn);
        self.add(b, &label("ffn_down"), &at.down, post, f, x)
    }

    /// x ← x + linear(h), or x ← x + norm(linear(h)) where there is such a norm.
    fn add(
        &self,
        b: &mut Builder<'_>,
        label: &str,
        linear: &PlacedLinear,
        post: Option<PlacedNorm>,
        h: Operand,
        x: Operand,
    ) -> Result<()> {
        let (width, tokens) = (self.blueprint.width, Extent::Tokens);
        let Some(norm) = post else {
            return self.linear(b, label, tokens, linear, h, x, width, Epilogue::Add);
        };
        let more = b.temp("more", tokens, width as usize);
        self.linear(b, label, tokens, linear, h, more, width, Epilogue::Store)?;
        self.norm(b, format!("{label}.post_norm"), tokens, more, norm, x, Epilogue::Add)
    }

    /// x ← embedding of the token, + that of the position
    fn embed(&self, b: &mut Builder<'_>, x: Operand) -> Result<()> {
        let PlacedEmbedding { width, pieces, post } = &self.placed.embedding;
        let row = if post.is_empty() { x } else { b.temp("embedding", Extent::Tokens, *width as usize) };
        for piece in pieces {
            let params = embed::Params {
                width: *width,
                first_token: piece.first_row,
                tokens: piece.rows,
                code_stride: piece.code_stride,
                scale_stride: piece.scale_stride,
                scale: self.blueprint.embedding_scale,
            };
            let form = Form { format: Some(piece.format), ..Form::default() };
            let args = [Operand::Item(self.ports.rows), Operand::Item(piece.item), row];
            b.step::<Embed>("token_embd", Extent::Tokens, form, params, &args)?;
        }
        if !post.is_empty() {
            let to = Target::whole(x, self.blueprint.width);
            self.transforms(b, "token_embd", Extent::Tokens, post, (row, *width), to)?;
        }
        if let Some(table) = self.placed.positions {
            let params = positions::Params { width: self.blueprint.width };
            let args = [Operand::Item(self.ports.rows), Operand::Item(table), x];
            b.step::<Positions>("position_embd", Extent::Tokens, Form::default(), params, &args)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "a call of the forward pass reads best in one line")]
    fn norm(
        &self,
        b: &mut Builder<'_>,
        label: String,
        extent: Extent,
        x: Operand,
        norm: PlacedNorm,
        y: Operand,
        epilogue: Epilogue,
    ) -> Result<()> {
        let (width, epsilon) = (self.blueprint.width, self.blueprint.norm_eps);
        let gain = Operand::Item(norm.gain);
        if let Some(bias) = norm.bias {
            if epilogue == Epilogue::Add {
                return Err(Error::internal("a norm with a bias that is added").at(label));
            }
            let (params, args) = (layer_norm::Params { width, epsilon }, [x, gain, Operand::Item(bias), y]);
            return b.step::<LayerNorm>(label, extent, Form::default(), params, &args);
        }
        let form = Form { epilogue: Some(epilogue), ..Form::default() };
        b.step::<RmsNorm>(label, extent, form, rms_norm::Params { width, epsilon }, &[x, gain, y])
    }
}
