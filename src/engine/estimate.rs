//! What a model takes of memory, said before its weights are read: from names, shapes and choices alone.
//!
//! The parts are those that are allocated: items of the store in the order of the backend, rooms of the temps. What the
//! driver of a GPU keeps for itself (compiled shaders, its own tables) is known to nobody before, and is not in it.

use std::collections::BTreeSet;
use std::fmt;

use crate::backend::Caps;
use crate::backend::{Backend, Footprint};
use crate::base::Memory;
use crate::error::{Error, Kind, Result};
use crate::kernel::KvType;
use crate::model::Lowered;
use crate::plan::{Item, ItemId};

use super::device;
use super::options::{Device, EngineOptions};
use super::remedy::Remedy;

#[cfg(feature = "wgpu")]
use crate::backend::wgpu as gpu;

/// What a GPU's load holds beside the weights for a while: chunks of 4 MiB being rewritten and on their way.
const UPLOAD: u64 = 20 << 20;
/// Threads, stacks and what else a process has that has loaded a model.
const PROCESS: u64 = 3 << 19;
/// What a step of a plan takes on the host, with its name, arguments and bindings.
const STEP: u64 = 1 << 10;

/// What a model takes of memory, in bytes, and whether that is there. See [`crate::Engine::estimate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// What the file calls the model.
    pub name: String,
    /// The device that it is for.
    pub device: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`.
    pub backend: &'static str,
    /// Positions of a session.
    pub context: u32,
    /// Positions the model was trained for.
    pub trained_context: u32,
    /// Sessions with keys and values at the same time.
    pub sessions: u32,
    /// The most tokens of a prompt that are computed at once.
    pub prefill: u32,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Sessions beside those whose keys and values are stored otherwise.
    pub more_sessions: Vec<(KvType, u32)>,
    /// Matrices in the order of the device, and the vectors and tables beside them.
    pub weights: u64,
    /// Keys and values of all sessions, full. On the CPU they take memory as they fill.
    pub kv: u64,
    /// Inputs, results and what a submission keeps in between.
    pub scratch: u64,
    /// Host memory beside all that: the vocabulary, the plans, and on a GPU what of the vectors stays on the host.
    pub host: u64,
    /// Host memory that the load needs for a while beside all that.
    pub staging: u64,
    /// Pages of the model file that are read for every token: the system takes them back when it must, and they are no
    /// part of the sums.
    pub mapped: u64,
    /// The largest buffer.
    pub largest: Largest,
    /// The largest buffer that the device has.
    pub largest_allowed: Option<u64>,
    /// Whether weights, keys and values are in memory of the host's.
    pub shares_memory: bool,
    /// What there is.
    pub budget: Budget,
    /// Whether it fits.
    pub verdict: Verdict,
    /// The longest context that fits, the other choices as they are; at most [`Self::trained_context`].
    pub largest_context: Option<u32>,
    /// What would fit where this does not, each by itself, the mildest first.
    pub remedies: Vec<Remedy>,
}

/// A buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Largest {
    /// What it holds: a tensor, a state, a plan's temps.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// Memory that there is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// What the app allows the model, [`super::LoadOptions::memory`].
    pub given: Option<u64>,
    /// What this process can have at most: the memory and the swap of the machine, or less by its control group.
    pub most: Option<u64>,
    /// What it can have now without pushing others out.
    pub available: Option<u64>,
}

/// Whether a model fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// It does where others make room for it: more than what is free now, less than all.
    Tight,
    /// It fits in the host's memory; how much the device has, it does not say.
    Unknown,
    /// It takes more than the app allows.
    OverBudget,
    /// It takes more than there is.
    OverMachine,
    /// The device has no buffer as large as one that it needs.
    OverBuffer,
}

impl Estimate {
    /// Bytes on the device; 0 where that is the CPU.
    pub fn device_bytes(&self) -> u64 {
        if self.backend == "cpu" { 0 } else { self.computing() }
    }

    /// Bytes on the host, but for the pages of the file.
    pub fn host_bytes(&self) -> u64 {
        self.total() - self.device_bytes()
    }

    /// Bytes of both after the load, all sessions full.
    pub fn total(&self) -> u64 {
        self.computing().saturating_add(self.host)
    }

    /// The most bytes of both at any moment.
    pub fn peak(&self) -> u64 {
        self.total().saturating_add(self.staging)
    }

    /// Whether it can be loaded.
    pub fn fits(&self) -> bool {
        matches!(self.verdict, Verdict::Fits | Verdict::Tight | Verdict::Unknown)
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] with what would fit.
    pub fn check(&self) -> Result<()> {
        let what = match self.verdict {
            Verdict::Fits | Verdict::Tight | Verdict::Unknown => return Ok(()),
            Verdict::OverBudget => {
                let given = Bytes(self.budget.given.unwrap_or(0));
                format!("the model takes {} and {given} are allowed", Bytes(self.peak()))
            }
            Verdict::OverMachine => {
                let most = Bytes(self.budget.most.unwrap_or(0));
                format!("the model takes {} and the machine has {most}", Bytes(self.resident()))
            }
            Verdict::OverBuffer => {
                let Largest { name, bytes } = &self.largest;
                let allowed = Bytes(self.largest_allowed.unwrap_or(0));
                format!("{name} takes {} and the device has buffers of {allowed}", Bytes(*bytes))
            }
        };
        let would: Vec<String> = self.remedies.iter().map(|remedy| remedy.beside(self).to_string()).collect();
        let hint = match would.is_empty() {
            true => "nothing that is known of would make it fit".to_owned(),
            false => format!("what would fit: {}", would.join("; or ")),
        };
        Err(Error::new(Kind::OutOfMemory, what).hint(hint))
    }

    /// What the plans would take on a device, by parts; not judged yet.
    pub(super) fn of(lowered: &Lowered, caps: &Caps, vocabulary: u64) -> Self {
        let order = caps.order;
        let kv_states: BTreeSet<ItemId> = lowered.kv_states().collect();
        let (mut weights, mut kv, mut scratch) = <(Footprint, Footprint, Footprint)>::default();
        let mut largest = Largest::default();
        let mut vectors = 0u64;
        for (id, item) in lowered.store.items() {
            let footprint = order.item(item);
            let is_vector = matches!(item, Item::Vector { .. }) || lowered.tables.contains(&id);
            let part = match item {
                Item::Matrix(_) => &mut weights,
                _ if is_vector => &mut weights,
                _ if kv_states.contains(&id) => &mut kv,
                _ => &mut scratch,
            };
            *part = part.and(footprint);
            largest.grow(item.name(), footprint);
            if is_vector {
                vectors = vectors.saturating_add(4 * item.words() as u64);
            }
        }
        for plan in lowered.plans() {
            let footprint = order.temps(plan);
            scratch = scratch.and(footprint);
            largest.grow(&format!("the temps of {}", plan.name), footprint);
        }
        let steps = STEP * lowered.plans().map(|plan| plan.steps.len() as u64).sum::<u64>();
        let is_cpu = caps.backend == "cpu";
        let options = &lowered.options;
        let first = &options.caches[0];
        Self {
            name: String::new(),
            device: caps.name.clone(),
            backend: caps.backend,
            context: options.context,
            trained_context: options.context,
            sessions: first.sequences,
            more_sessions: options.caches[1..].iter().map(|cache| (cache.kv, cache.sequences)).collect(),
            prefill: options.prefill_rows,
            kv_type: first.kv,
            weights: weights.held,
            kv: kv.held,
            scratch: scratch.held,
            host: PROCESS + vocabulary + steps + if is_cpu { 0 } else { vectors },
            staging: if is_cpu { 0 } else { UPLOAD },
            mapped: weights.mapped,
            largest,
            largest_allowed: (caps.max_matrix_bytes < u64::MAX).then_some(caps.max_matrix_bytes),
            shares_memory: caps.shares_memory,
            budget: Budget::default(),
            verdict: Verdict::Unknown,
            largest_context: None,
            remedies: Vec::new(),
        }
    }

    /// With the verdict under `budget`.
    pub(super) fn judged(mut self, budget: Budget) -> Self {
        let over = |bytes: u64, limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
        let Budget { given, most, available } = budget;
        self.budget = budget;
        self.verdict = match () {
            () if over(self.largest.bytes, self.largest_allowed) => Verdict::OverBuffer,
            () if over(self.peak(), given) => Verdict::OverBudget,
            () if over(self.resident(), most) => Verdict::OverMachine,
            () if over(self.resident() + self.staging + self.mapped, available) => Verdict::Tight,
            // What the app allows, it has.
            () if given.is_none() && (most.is_none() || !self.shares_memory) => Verdict::Unknown,
            () => Verdict::Fits,
        };
        self
    }

    /// Bytes of what computes.
    fn computing(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.scratch)
    }

    /// Bytes in memory of the host's after the load.
    fn resident(&self) -> u64 {
        if self.shares_memory { self.total() } else { self.host }
    }
}

impl Budget {
    /// What there is for a model that may take `given`.
    pub(super) fn of(given: Option<u64>) -> Self {
        let memory = Memory::of_host();
        Self { given, most: memory.most(), available: memory.available }
    }
}

impl Largest {
    fn grow(&mut self, name: &str, footprint: Footprint) {
        if footprint.largest > self.bytes {
            *self = Self { name: name.to_owned(), bytes: footprint.largest };
        }
    }
}

/// What the device of `options` will be, without opening it.
///
/// # Errors
/// `DeviceUnavailable` where there is none.
pub(super) fn foresee(options: &EngineOptions) -> Result<Caps> {
    let cpu = || Ok(device::bare_cpu(options)?.caps().clone());
    #[cfg(feature = "wgpu")]
    {
        if options.shared.is_some() {
            return device::open(options).map(|open| open.backend.caps().clone());
        }
        let gpu = |choice| gpu::foresee(choice, &device::gpu_options(options));
        match options.device {
            Device::Cpu => cpu(),
            Device::Gpu => gpu(gpu::Choice::Any),
            Device::Index(index) => gpu(gpu::Choice::Index(index)),
            Device::Auto => {
                let found = gpu::devices();
                let real = found.iter().find(|device| !device.software && device.refused.is_none());
                real.map_or_else(cpu, |device| gpu(gpu::Choice::Index(device.index)))
            }
        }
    }
    #[cfg(not(feature = "wgpu"))]
    match options.device {
        Device::Cpu | Device::Auto => cpu(),
        // It says why there is none.
        Device::Gpu | Device::Index(_) => device::open(options).map(|open| open.backend.caps().clone()),
    }
}

/// Bytes as people read them.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mib, gib) = (f64::from(1 << 20), f64::from(1 << 30));
        match self.0 as f64 {
            bytes if bytes >= gib => write!(f, "{:.2} GiB", bytes / gib),
            bytes => write!(f, "{:.1} MiB", bytes / mib),
        }
    }
}
