//! Floor 5: who computes. Seven verbs between plans and devices; nobody here has heard of a language model.

pub mod cpu;
pub mod fault;
mod footprint;
pub mod probe;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::plan::{Inputs, ItemId, Plan, Store};

pub use footprint::{Footprint, Order};

/// What a device is and can.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The device's own name.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`.
    pub backend: &'static str,
    /// The most bytes that the codes of one matrix may take in GPU order, and so may its scales; a larger one is
    /// cut by rows before it comes here.
    pub max_matrix_bytes: u64,
    /// Whether a plan of few, joined steps suits it.
    pub fuses: bool,
    /// How many submissions are worth having under way at a time: 1 where one is computed while it is made.
    pub ahead: usize,
    /// Whether the numbers come from software pretending to be a GPU.
    pub software: bool,
    /// In whose order it keeps weights.
    pub order: Order,
    /// Whether its memory is the host's.
    pub shares_memory: bool,
    /// What it has done so far, and what it holds.
    pub meter: Arc<Meter>,
}

/// What a device has done and holds, counted as it works.
#[derive(Debug, Default)]
pub struct Meter {
    submissions: AtomicU64,
    dispatches: AtomicU64,
    drains: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds, 0 where nobody knows.
    took: AtomicU64,
}

impl Meter {
    /// Submissions so far, those of writes and reads included.
    pub fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// Kernels started so far.
    pub fn dispatches(&self) -> u64 {
        self.dispatches.load(Ordering::Relaxed)
    }

    /// Times so far that the host waited until the device had nothing left to do; 0 for a CPU.
    pub fn drains(&self) -> u64 {
        self.drains.load(Ordering::Relaxed)
    }

    /// Bytes of memory allocated for weights, states and temps now: on the device, or on the host where the CPU computes.
    /// Weights that are read in the model file are not among them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the submission took that was found finished last, by the device's own clock, where it has one.
    pub fn took(&self) -> Option<Duration> {
        Some(self.took.load(Ordering::Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    #[cfg(feature = "wgpu")]
    fn timed(&self, took: Option<Duration>) {
        let nanos = took.map_or(0, |took| took.as_nanos() as u64);
        self.took.store(nanos, Ordering::Relaxed);
    }

    #[cfg(feature = "wgpu")]
    fn drained(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn submitted(&self, dispatches: u64) {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.dispatches.fetch_add(dispatches, Ordering::Relaxed);
    }
}

/// A plan made ready for a backend: pipelines compiled, bindings made.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its place in the backend.
    pub index: usize,
    /// What it computes.
    pub plan: Arc<Plan>,
}

/// A submission under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How far a submission is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Still computing.
    Running,
    /// Done. The plan's result as this submission left it, a word for each output, where it wrote one and nobody has
    /// asked before; what came after it does not matter.
    Finished(Vec<u32>),
}

/// Results that are kept for those who have not asked yet.
const RESULTS: usize = 64;

/// Bytes uploaded and bytes in all, while loading; an error from it stops the load.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// The seven verbs, and a hint. Every error is typed: a lost device is [`crate::Kind::DeviceLost`], never a panic.
pub trait Backend: Send {
    /// What the device is and can.
    fn caps(&self) -> &Caps;

    /// The plans that will be prepared over what is loaded next: a backend may begin with them while it loads. A hint:
    /// other plans, or none, may follow.
    fn expect(&mut self, _plans: &[Arc<Plan>]) {}

    /// Takes the store: weights to the device, states zeroed. What was loaded and prepared before is gone.
    ///
    /// # Errors
    /// `OutOfMemory`, `DeviceLost`, and what `progress` returns.
    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()>;

    /// Makes a plan over the loaded store ready.
    ///
    /// # Errors
    /// `OutOfMemory`, `DeviceLost`, `Internal` where a shader does not compile.
    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program>;

    /// Starts the steps `steps`; they see all that was written and submitted before.
    ///
    /// # Errors
    /// `DeviceLost`; `Internal` where `inputs` are beyond the plan's limits.
    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket>;

    /// How far a submission is, after waiting for at most `wait`. Its result is kept until 64 others have followed.
    ///
    /// # Errors
    /// `DeviceLost`.
    fn poll(&mut self, ticket: Ticket, wait: Duration) -> Result<Status>;

    /// Reads a state from byte `at` on, after all that was submitted before.
    ///
    /// # Errors
    /// `DeviceLost`; `Internal` where the bytes are not inside a state.
    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()>;

    /// Writes a state from byte `at` on, for all that is submitted after.
    ///
    /// # Errors
    /// `DeviceLost`; `Internal` where the bytes are not inside a state.
    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()>;

    /// Gives the memory of these states back, and that of temps where it can be had again: what they held is lost, they are
    /// zero for whoever comes next. A hint: the bytes that are free now, perhaps none.
    ///
    /// # Errors
    /// `DeviceLost`; `Internal` where one is not a state.
    fn vacate(&mut self, _states: &[ItemId]) -> Result<u64> {
        Ok(0)
    }

    /// Does a harm to the device itself, for tests of what happens then: whether it can.
    fn harm(&mut self, _harm: fault::Harm) -> bool {
        false
    }
}
