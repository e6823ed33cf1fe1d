//! Floor 4: a plan is a value. A printable list of steps, with kernels named and widths fixed; nothing has run.
//!
//! The *store* holds what plans share and what outlives a submission: matrices, vectors, and states (the KV
//! cache, the inputs, the results). A plan's own *temps* live from the step that writes them first to the step
//! that reads them last. How many rows are computed is said at submission, up to the plan's limits.

mod arena;
mod build;
mod dump;
mod fuse;

use std::sync::Arc;

use crate::kernel::{ArgKind, Call, Form, Kernel, KernelId};
use crate::quant::Matrix;

pub use arena::{Arena, Room};
pub use build::Builder;

/// Everything that plans share.
#[derive(Clone, Debug, Default)]
pub struct Store {
    items: Vec<Item>,
}

/// A thing in the store.
#[derive(Clone, Debug)]
pub enum Item {
    /// A weight matrix in file order; a backend may keep it in another.
    Matrix(Matrix),
    /// Constant f32: gains, biases, tables.
    Vector {
        /// What it is, for dumps and errors.
        name: String,
        /// The numbers.
        values: Arc<[f32]>,
    },
    /// Words that steps read and write and the host reads and writes; zero after loading.
    State {
        /// What it is, for dumps and errors.
        name: String,
        /// u32 or f32 words.
        words: usize,
    },
}

/// Names an item of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(u32);

/// Names a temp of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TempId(u32);

/// How many rows a step computes, or a temp holds. Rows that lie one behind the other can be taken for more and narrower
/// ones: that is how one matrix is multiplied with the parts of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// As many as tokens are submitted.
    Tokens,
    /// As many as logits are wanted.
    Outputs,
    /// So many for each token: equal parts of its row.
    TokenParts(u32),
    /// So many for each row with logits.
    OutputParts(u32),
}

/// Scratch of a plan: f32, `(rows, width)`.
#[derive(Clone, Debug)]
pub struct Temp {
    /// What it is, for dumps.
    pub name: String,
    /// Rows.
    pub extent: Extent,
    /// Elements of a row.
    pub width: usize,
}

/// What a step works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// An item of the store.
    Item(ItemId),
    /// A temp of the plan.
    Temp(TempId),
}

/// One call of one kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where in the model it belongs: `blk.3.attn_q`.
    pub label: String,
    /// What is computed.
    pub kernel: KernelId,
    /// The bytes of the home's `Params`.
    pub params: Vec<u8>,
    /// Fragments.
    pub form: Form,
    /// Rows.
    pub extent: Extent,
    /// The arguments, in the kernel's order.
    pub args: Vec<Operand>,
}

/// A list of steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is for: `decode`, `prefill`.
    pub name: String,
    /// The most tokens in one submission.
    pub max_rows: u32,
    /// The most rows with logits in one submission.
    pub max_outputs: u32,
    /// A state with a word for each output, which is handed out at the end of a submission that writes it.
    pub result: Option<ItemId>,
    /// Scratch.
    pub temps: Vec<Temp>,
    /// In order.
    pub steps: Vec<Step>,
}

/// How much a submission computes. The contents are in the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Tokens, 1 ..= `max_rows`.
    pub rows: u32,
    /// Rows with logits, at most `max_outputs`. Steps with the extent `Outputs` are passed over where it is 0.
    pub outputs: u32,
    /// The largest position of any row, plus one.
    pub kv_len: u32,
}

impl Store {
    /// Adds an item.
    pub fn add(&mut self, item: Item) -> ItemId {
        self.items.push(item);
        ItemId(self.items.len() as u32 - 1)
    }

    /// Adds constant f32.
    pub fn add_vector(&mut self, name: &str, values: &[f32]) -> ItemId {
        self.add(Item::Vector { name: name.into(), values: values.into() })
    }

    /// Adds a state of zero words.
    pub fn add_state(&mut self, name: &str, words: usize) -> ItemId {
        self.add(Item::State { name: name.into(), words })
    }

    /// The item.
    ///
    /// # Panics
    /// Where `id` is of another store.
    pub fn item(&self, id: ItemId) -> &Item {
        &self.items[id.0 as usize]
    }

    /// Every item with its name.
    pub fn items(&self) -> impl ExactSizeIterator<Item = (ItemId, &Item)> {
        self.items.iter().enumerate().map(|(index, item)| (ItemId(index as u32), item))
    }
}

impl Item {
    /// What it is, for dumps and errors.
    pub fn name(&self) -> &str {
        match self {
            Self::Matrix(matrix) => matrix.name(),
            Self::Vector { name, .. } | Self::State { name, .. } => name,
        }
    }

    /// Words of a vector or a state; 0 for a matrix.
    pub fn words(&self) -> usize {
        match self {
            Self::Matrix(_) => 0,
            Self::Vector { values, .. } => values.len(),
            Self::State { words, .. } => *words,
        }
    }

    /// Whether a kernel may take it as an argument of `kind`.
    pub fn fits(&self, kind: ArgKind) -> bool {
        match self {
            Self::Matrix(_) => kind == ArgKind::Matrix,
            Self::Vector { .. } => kind == ArgKind::F32,
            Self::State { .. } => kind != ArgKind::Matrix,
        }
    }
}

impl Extent {
    /// The same rows, each taken for `parts` rows of as many elements.
    pub fn in_parts(self, parts: u32) -> Self {
        match self {
            whole if parts == 1 => whole,
            Self::Tokens => Self::TokenParts(parts),
            Self::Outputs => Self::OutputParts(parts),
            Self::TokenParts(more) => Self::TokenParts(more * parts),
            Self::OutputParts(more) => Self::OutputParts(more * parts),
        }
    }

    /// The rows that these are, or are parts of.
    pub fn whole(self) -> Self {
        match self {
            Self::Tokens | Self::TokenParts(_) => Self::Tokens,
            Self::Outputs | Self::OutputParts(_) => Self::Outputs,
        }
    }

    fn rows(self, tokens: u32, outputs: u32) -> u32 {
        match self {
            Self::Tokens => tokens,
            Self::Outputs => outputs,
            Self::TokenParts(parts) => parts * tokens,
            Self::OutputParts(parts) => parts * outputs,
        }
    }
}

impl ItemId {
    /// Its place in the store.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl TempId {
    /// Its place in the plan.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Inputs {
    /// The rows of `extent`.
    pub fn rows_of(self, extent: Extent) -> u32 {
        extent.rows(self.rows, self.outputs)
    }
}

impl Step {
    /// The kernel's home.
    pub fn home(&self) -> &'static Kernel {
        self.kernel.kernel()
    }

    /// What differs from one submission to the next, for this step; `None` where it has no rows to compute.
    pub fn call(&self, inputs: Inputs) -> Option<Call> {
        let rows = inputs.rows_of(self.extent);
        (rows > 0).then_some(Call { rows, kv_len: inputs.kv_len })
    }
}

impl Plan {
    /// The most rows of `extent`.
    pub fn max_of(&self, extent: Extent) -> u32 {
        extent.rows(self.max_rows, self.max_outputs)
    }

    /// The result, where one of `steps` writes it.
    pub fn result_of(&self, steps: &[Step]) -> Option<ItemId> {
        let result = self.result?;
        let writes = |step: &Step| {
            let mut args = step.args.iter().zip(step.home().args);
            args.any(|(&operand, kind)| kind.is_written() && operand == Operand::Item(result))
        };
        steps.iter().rev().any(writes).then_some(result)
    }

    /// Elements of a temp.
    pub fn temp_len(&self, temp: &Temp) -> usize {
        self.max_of(temp.extent) as usize * temp.width
    }
}
