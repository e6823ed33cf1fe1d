//! The weights of a model as the tensors of another dialect: its names, its joined matrices, its order of rotated pairs.

use crate::error::{Error, Result};
use crate::model::dialects::{Beside, Target};
use crate::model::{Blueprint, Linear, NormWeights, Pairing, Part, Slot, Weights};
use crate::quant::Format;

use super::coding::Coding;
use super::item::{Item, Role, SourceRows};

/// Every tensor of the new model, coded as it comes.
pub(super) fn items(weights: &Weights, from: &Blueprint, target: &Target) -> Result<Vec<Item>> {
    let mut cross = Crossing { from, target, items: Vec::new() };
    let width = from.width as usize;
    for (slot, values) in &target.vectors {
        cross.vector(*slot, values)?;
    }
    if !weights.embedding_post.is_empty() {
        return Err(Error::unsupported("the embedding is a product, which would be lost")
            .at(format!("linear {}", weights.embedding.name()))
            .hint("quantize the model that this one was made of"));
    }
    cross.matrix(Slot::Embedding, Role::Vocabulary, SourceRows::of(weights.embedding.clone()));
    if let Some(positions) = &weights.positions {
        let rows = SourceRows::values("positions", positions, width)?;
        cross.matrix(Slot::Positions, Role::Table, rows);
    }
    let layout = target.blueprint.layout;
    for (layer, (block, described)) in weights.blocks.iter().zip(from.layers()).enumerate() {
        let at = |part| Slot::Block(layer, part);
        let order = |heads: u32| cross.order(heads, described.attention.head_dim);
        let (queries, keys) = (order(described.attention.heads), order(described.attention.kv_heads));
        let head = order(1);
        let ordered = |linear: &Linear, order: &Option<Vec<u32>>| Ordered::of(linear, order.as_deref());
        let qkv = [ordered(&block.q, &queries)?, ordered(&block.k, &keys)?, ordered(&block.v, &None)?];
        cross.norm(at(Part::AttentionNorm), &block.attention_norm)?;
        match layout.joined_qkv {
            true => cross.linear(at(Part::Qkv), Ordered::joined(qkv))?,
            false => {
                for (part, linear) in [Part::Q, Part::K, Part::V].into_iter().zip(qkv) {
                    cross.linear(at(part), linear)?;
                }
            }
        }
        for (part, gains) in [Part::QNorm, Part::KNorm].into_iter().zip(block.head_norms.iter().flatten()) {
            let gains = in_order(gains, head.as_deref());
            cross.norm(at(part), &NormWeights { gain: gains, bias: None })?;
        }
        cross.linear(at(Part::O), ordered(&block.o, &None)?)?;
        let parts = [Part::PostAttentionNorm, Part::PostFfnNorm];
        for (part, norm) in parts.into_iter().zip(block.post_norms.iter().flatten()) {
            cross.norm(at(part), norm)?;
        }
        cross.norm(at(Part::FfnNorm), &block.ffn_norm)?;
        let gate = block.gate.as_ref().map(|gate| ordered(gate, &None)).transpose()?;
        let up = ordered(&block.up, &None)?;
        match gate {
            Some(gate) if layout.joined_gate_up => {
                cross.linear(at(Part::GateUp), Ordered::joined([gate, up]))?
            }
            Some(gate) => {
                cross.linear(at(Part::Gate), gate)?;
                cross.linear(at(Part::Up), up)?;
            }
            None => cross.linear(at(Part::Up), up)?,
        }
        cross.linear(at(Part::Down), ordered(&block.down, &None)?)?;
    }
    cross.norm(Slot::FinalNorm, &weights.final_norm)?;
    if let Some(head) = &weights.head {
        let Ordered { rows, bias } = Ordered::of(head, None)?;
        cross.matrix(Slot::Head, Role::Vocabulary, rows);
        bias.map_or(Ok(()), |bias| cross.bias(Slot::Head, &bias))?;
    }
    Ok(cross.items)
}

struct Crossing<'a> {
    from: &'a Blueprint,
    target: &'a Target,
    items: Vec<Item>,
}

impl Crossing<'_> {
    /// Which rows of the projection to `heads` heads stand where the other dialect wants them, if elsewhere.
    fn order(&self, heads: u32, head_dim: u32) -> Option<Vec<u32>> {
        let (from, to) = (self.from.ropes.first()?, self.target.blueprint.ropes.first()?);
        let half = from.dims / 2;
        let taken = |row: u32| match to.pairing {
            _ if row >= from.dims => row,
            Pairing::Interleaved => row / 2 + half * (row % 2),
            Pairing::HalfSplit => 2 * (row % half) + row / half,
        };
        let of_head = |head: u32| (0..head_dim).map(move |row| head * head_dim + taken(row));
        (from.pairing != to.pairing).then(|| (0..heads).flat_map(of_head).collect())
    }

    fn linear(&mut self, slot: Slot, Ordered { rows, bias }: Ordered) -> Result<()> {
        let is_turned = self.target.blueprint.layout.transposed;
        self.matrix(slot, Role::Matrix, if is_turned { rows.turned() } else { rows });
        bias.map_or(Ok(()), |bias| self.bias(slot, &bias))
    }

    fn matrix(&mut self, slot: Slot, role: Role, rows: SourceRows) {
        let name = self.target.blueprint.layout.naming.weight(slot);
        let dims = rows.shape().map(|dim| dim as u64).to_vec();
        let coding = Coding::Blocks(rows.first_format());
        self.items.push(Item { name, dims, role, rows, coding, rank: None });
    }

    fn norm(&mut self, slot: Slot, norm: &NormWeights) -> Result<()> {
        let offset = self.target.blueprint.layout.gain_offset;
        let gain: Vec<f32> = norm.gain.iter().map(|gain| gain - offset).collect();
        self.vector(slot, &gain)?;
        norm.bias.as_ref().map_or(Ok(()), |bias| self.bias(slot, bias))
    }

    fn vector(&mut self, slot: Slot, values: &[f32]) -> Result<()> {
        self.named(self.target.blueprint.layout.naming.weight(slot), values)
    }

    fn bias(&mut self, slot: Slot, values: &[f32]) -> Result<()> {
        self.named(self.target.blueprint.layout.naming.bias(slot), values)
    }

    fn named(&mut self, name: String, values: &[f32]) -> Result<()> {
        let rows = SourceRows::values(&name, values, values.len())?;
        let (dims, coding) = (vec![values.len() as u64], Coding::Blocks(self.float_for(values)));
        self.items.push(Item { name, dims, role: Role::Table, rows, coding, rank: None });
        Ok(())
    }

    /// Libraries that read folders want one type for all floats: 16 bits, where that loses nothing.
    fn float_for(&self, values: &[f32]) -> Format {
        let short = match self.items.iter().find(|item| item.role == Role::Vocabulary) {
            Some(item) if item.coding.is_16_bit() => item.coding.format(),
            _ => Format::F16,
        };
        let mut back = vec![0.0; values.len()];
        short.decode(&short.encode(values), &mut back);
        match self.target.beside {
            Beside::HuggingFace(_) if back == values => short,
            Beside::HuggingFace(_) | Beside::Gguf(_) => Format::F32,
        }
    }
}

/// A linear with its outputs in another order.
struct Ordered {
    rows: SourceRows,
    bias: Option<Vec<f32>>,
}

impl Ordered {
    fn of(linear: &Linear, order: Option<&[u32]>) -> Result<Self> {
        if !linear.is_plain() || !linear.adapters.is_empty() {
            let what = "the weights are compressed with transforms or paths of low rank, which would be lost";
            return Err(Error::unsupported(what)
                .at(format!("linear {}", linear.base.name()))
                .hint("quantize the model that this one was made of"));
        }
        let rows = SourceRows::of(linear.base.clone());
        let rows = order.map_or(rows.clone(), |order| rows.reordered(order));
        Ok(Self { rows, bias: linear.bias.as_deref().map(|bias| in_order(bias, order)) })
    }

    /// All outputs, one linear's after the other's.
    fn joined<const N: usize>(linears: [Self; N]) -> Self {
        let has_bias = linears.iter().any(|linear| linear.bias.is_some());
        let zeros = |rows: &SourceRows| vec![0.0; rows.shape()[0]];
        let bias = linears.iter().flat_map(|Self { rows, bias }| bias.clone().unwrap_or_else(|| zeros(rows)));
        let bias = has_bias.then(|| bias.collect());
        let rows = linears.into_iter().map(|linear| linear.rows).reduce(SourceRows::then);
        Self { rows: rows.expect("there are several"), bias }
    }
}

fn in_order(values: &[f32], order: Option<&[u32]>) -> Vec<f32> {
    match order {
        Some(order) => order.iter().map(|&row| values[row as usize]).collect(),
        None => values.to_vec(),
    }
}
