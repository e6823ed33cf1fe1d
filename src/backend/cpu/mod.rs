//! The CPU backend: the same plans, computed by the caller's thread and a few helpers inside `submit`.
//!
//! Matrices of formats with codes are packed while loading, the others stay in the bytes of the file. A step runs
//! its fast implementation where there is one, else its twin. A written argument is taken out of its place for the time of the call, so that no two arguments can
//! be the same memory.

mod ahead;
mod attend;
mod best;
#[allow(clippy::needless_range_loop, reason = "arrays of registers are walked side by side, unrolled")]
mod codes;
mod cores;
mod fast;
mod imports;
mod packed;
mod pool;
mod product;
mod rows;
#[allow(clippy::needless_range_loop, reason = "arrays of registers are walked side by side, unrolled")]
mod simd;
mod spelled;
mod tiles;
mod unit;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cores::Cores;
use packed::{Packed, Place, Shelf};
use simd::{Isa, Portable};

pub use ahead::read;
pub(super) use packed::bytes_of as packed_bytes;

use super::footprint::Held;
use super::{Backend, Caps, Order, Program, Progress, RESULTS, Status, Ticket};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Arg, ArgKind, Call};
use crate::plan::{Arena, Inputs, Item, ItemId, Operand, Plan, Step, Store};
use crate::quant::Matrix;

/// How a [`Cpu`] computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute, the caller's included; by default as many as the system offers.
    pub threads: Option<usize>,
    /// Activations stay f32 everywhere.
    pub exact: bool,
}

/// The backend.
#[derive(Debug)]
pub struct Cpu {
    caps: Caps,
    cores: Cores,
    items: Vec<Slot>,
    /// The packed matrices of the items.
    shelf: Shelf,
    programs: Vec<Ready>,
    tickets: u64,
    results: VecDeque<(Ticket, Vec<u32>)>,
    held: Held,
}

/// An item of the store.
#[derive(Debug)]
enum Slot {
    /// In file order, and in the CPU's where products are taken in codes.
    Matrix(Matrix, Option<Place>),
    Vector(Arc<[f32]>),
    State(Vec<u32>),
}

impl Slot {
    /// Bytes that were allocated for `item`, whose slot this is.
    fn bytes(&self, item: &Item) -> u64 {
        match (self, item) {
            (Self::Matrix(_, Some(place)), _) => place.bytes() as u64,
            (Self::Matrix(_, None), Item::Matrix(matrix)) => matrix.made_bytes(),
            (Self::Vector(values), _) => size_of_val::<[f32]>(values) as u64,
            (Self::State(words), _) => 4 * words.len() as u64,
            (Self::Matrix(_, None), _) => 0,
        }
    }
}

/// A prepared plan.
#[derive(Debug)]
struct Ready {
    plan: Arc<Plan>,
    arena: Arena,
    rooms: Vec<Vec<u32>>,
}

impl Cpu {
    /// A backend with nothing loaded.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for no threads.
    pub fn new(options: CpuOptions) -> Result<Self> {
        Self::with(options, Isa::find())
    }

    /// A backend that uses no instructions but those that every processor has: for tests, and for doubt.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn portable(options: CpuOptions) -> Result<Self> {
        Self::with(options, Isa::Portable(Portable))
    }

    /// A backend for each instruction set of this machine, the plainest first: for tests, and for doubt.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn every(options: CpuOptions) -> Result<Vec<Self>> {
        Isa::all().into_iter().map(|isa| Self::with(options, isa)).collect()
    }

    fn with(options: CpuOptions, isa: Isa) -> Result<Self> {
        if options.threads == Some(0) {
            return Err(Error::invalid("0 threads cannot compute").hint("ask for at least 1"));
        }
        let cores = Cores::new(options, isa)?;
        let name = format!("CPU ({}, {} threads)", cores.isa.name(), cores.pool.threads());
        let caps = Caps {
            name,
            backend: "cpu",
            max_matrix_bytes: u64::MAX,
            fuses: false,
            ahead: 1,
            software: false,
            order: Order::Cpu { exact: options.exact },
            shares_memory: true,
            meter: Arc::default(),
        };
        let (items, shelf, programs) = (Vec::new(), Shelf::default(), Vec::new());
        let held = Held::of(caps.meter.clone());
        Ok(Self { caps, cores, items, shelf, programs, tickets: 0, results: VecDeque::new(), held })
    }

    fn state(&mut self, id: ItemId, at: usize, len: usize) -> Result<&mut [u8]> {
        let Some(Slot::State(words)) = self.items.get_mut(id.index()) else {
            return Err(Error::internal(format!("item {} is not a state", id.index())));
        };
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
        let all = bytes.len();
        at.checked_add(len).and_then(|end| bytes.get_mut(at..end)).ok_or_else(|| {
            Error::internal(format!("{len} bytes from {at} on are not inside a state of {all}"))
        })
    }
}

impl Backend for Cpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()> {
        self.programs.clear();
        self.items.clear();
        self.shelf = Shelf::default();
        self.held.give_back();
        let exact = self.cores.exact;
        let matrices = store.items().filter_map(|(_, item)| match item {
            Item::Matrix(matrix) if !exact => Some(matrix),
            _ => None,
        });
        self.shelf = Shelf::new(matrices)?;
        let total = store.items().map(|(_, item)| weight_bytes(item)).sum();
        let mut done = 0;
        for (_, item) in store.items() {
            let slot = match item {
                Item::Matrix(matrix) if exact => Slot::Matrix(matrix.stored(), None),
                Item::Matrix(matrix) => match self.shelf.pack(&mut self.cores.pool, matrix)? {
                    Some(place) => Slot::Matrix(matrix.clone(), Some(place)),
                    None => Slot::Matrix(matrix.stored(), None),
                },
                Item::Vector { values, .. } => Slot::Vector(values.clone()),
                Item::State { name, words } => {
                    Slot::State(zeroes(*words).map_err(|error| error.at(format!("state {name}")))?)
                }
            };
            self.held.take(slot.bytes(item));
            self.items.push(slot);
            done += weight_bytes(item);
            progress(done, total)?;
        }
        Ok(())
    }

    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program> {
        for step in &plan.steps {
            self.check(&plan, step).map_err(|error| error.at(format!("step {}", step.label)))?;
        }
        let arena = Arena::of(&plan);
        let rooms = arena.rooms.iter().map(|room| zeroes(room.len)).collect::<Result<Vec<_>>>()?;
        self.held.take(rooms.iter().map(|room| 4 * room.len() as u64).sum());
        self.programs.push(Ready { plan: plan.clone(), arena, rooms });
        Ok(Program { index: self.programs.len() - 1, plan })
    }

    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket> {
        let Self { cores, items, shelf, programs, .. } = self;
        let ready = programs
            .get_mut(program.index)
            .filter(|ready| Arc::ptr_eq(&ready.plan, &program.plan))
            .ok_or_else(|| Error::internal("the program was prepared before the last load"))?;
        let plan = ready.plan.clone();
        if inputs.rows > plan.max_rows || inputs.outputs > plan.max_outputs {
            return Err(Error::internal(format!(
                "{inputs:?} is beyond plan {} of {} rows and {} outputs",
                plan.name, plan.max_rows, plan.max_outputs
            )));
        }
        let steps = plan
            .steps
            .get(steps.clone())
            .ok_or_else(|| Error::internal(format!("no steps {steps:?} in plan {}", plan.name)))?;
        let mut dispatches = 0;
        for step in steps {
            if let Some(call) = step.call(inputs) {
                dispatches += 1;
                run(cores, step, call, (items, shelf), ready)
                    .map_err(|error| error.at(format!("step {}", step.label)))?;
            }
        }
        let result = plan.result_of(steps).and_then(|state| match items.get(state.index()) {
            Some(Slot::State(words)) => words.get(..inputs.outputs as usize),
            _ => None,
        });
        self.caps.meter.submitted(dispatches);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(words) = result {
            self.results.truncate(RESULTS - 1);
            self.results.push_front((ticket, words.to_vec()));
        }
        Ok(ticket)
    }

    fn poll(&mut self, ticket: Ticket, _wait: Duration) -> Result<Status> {
        match ticket.0 {
            0 => Err(Error::internal("no such ticket")),
            number if number > self.tickets => Err(Error::internal("no such ticket")),
            _ => {
                let at = self.results.iter().position(|(of, _)| *of == ticket);
                let result = at.and_then(|at| self.results.remove(at));
                Ok(Status::Finished(result.map_or_else(Vec::new, |(_, words)| words)))
            }
        }
    }

    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(self.state(state, at, out.len())?);
        Ok(())
    }

    fn vacate(&mut self, states: &[ItemId]) -> Result<u64> {
        let mut bytes = 0;
        for state in states {
            let Some(Slot::State(words)) = self.items.get_mut(state.index()) else {
                return Err(Error::internal(format!("item {} is not a state", state.index())));
            };
            let count = words.len();
            bytes += 4 * count as u64;
            // The old ones go before the new ones come, which take no memory until they are written.
            *words = Vec::new();
            *words = zeroes(count)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()> {
        self.state(state, at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Cpu {
    /// Whether each operand is there and of the kind that the kernel takes.
    fn check(&self, plan: &Plan, step: &Step) -> Result<()> {
        let kernel = step.home();
        let fits = |(operand, kind): (&Operand, &ArgKind)| match operand {
            Operand::Item(id) => match self.items.get(id.index()) {
                Some(Slot::Matrix(..)) => *kind == ArgKind::Matrix,
                Some(Slot::Vector(_)) => *kind == ArgKind::F32,
                Some(Slot::State(_)) => *kind != ArgKind::Matrix,
                None => false,
            },
            Operand::Temp(id) => {
                id.index() < plan.temps.len() && matches!(kind, ArgKind::F32 | ArgKind::F32Mut)
            }
        };
        let all_fit = step.args.len() == kernel.args.len() && step.args.iter().zip(kernel.args).all(fits);
        if !all_fit || step.params.len() != kernel.params_size {
            return Err(Error::internal(format!("the arguments are not what {} takes", kernel.name)));
        }
        Ok(())
    }
}

/// Computes one step.
fn run(
    cores: &mut Cores,
    step: &Step,
    call: Call,
    (items, shelf): (&mut [Slot], &Shelf),
    ready: &mut Ready,
) -> Result<()> {
    let kernel = step.home();
    let mut taken: Vec<Option<Vec<u32>>> = step
        .args
        .iter()
        .zip(kernel.args)
        .map(|(&operand, kind)| kind.is_written().then(|| std::mem::take(words_of(operand, items, ready))))
        .collect();

    let mut args = Vec::with_capacity(taken.len());
    for ((&operand, &kind), taken) in step.args.iter().zip(kernel.args).zip(&mut taken) {
        args.push(match taken {
            Some(words) => written(kind, within(operand, ready, words)),
            None => shared(operand, kind, items, ready),
        });
    }
    let packed = step.args.iter().find_map(|&operand| packed(operand, items, shelf));
    let outcome = catch_unwind(AssertUnwindSafe(|| fast::run(cores, step, call, packed, &mut args)));
    drop(args);

    for (&operand, taken) in step.args.iter().zip(taken) {
        if let Some(words) = taken {
            *words_of(operand, items, ready) = words;
        }
    }
    outcome.unwrap_or_else(|panic| Err(pool::panicked(&*panic)))
}

/// Where the words of a state or of a temp's room are kept.
fn words_of<'a>(operand: Operand, items: &'a mut [Slot], ready: &'a mut Ready) -> &'a mut Vec<u32> {
    match operand {
        Operand::Item(id) => match &mut items[id.index()] {
            Slot::State(words) => words,
            other => unreachable!("{other:?} is never written: checked while preparing"),
        },
        Operand::Temp(id) => {
            let room = ready.arena.room_of[id.index()].expect("a temp that a step uses has a room");
            &mut ready.rooms[room]
        }
    }
}

/// The words of `operand` in its buffer: a temp may be smaller than its room.
fn within<'a>(operand: Operand, ready: &Ready, words: &'a mut [u32]) -> &'a mut [u32] {
    match operand {
        Operand::Item(_) => words,
        Operand::Temp(id) => &mut words[..ready.plan.temp_len(&ready.plan.temps[id.index()])],
    }
}

fn written(kind: ArgKind, words: &mut [u32]) -> Arg<'_> {
    match kind {
        ArgKind::F32Mut => Arg::F32Mut(bytemuck::cast_slice_mut(words)),
        _ => Arg::U32Mut(words),
    }
}

fn shared<'a>(operand: Operand, kind: ArgKind, items: &'a [Slot], ready: &'a Ready) -> Arg<'a> {
    let words = match operand {
        Operand::Item(id) => match &items[id.index()] {
            Slot::Matrix(matrix, _) => return Arg::Matrix(matrix),
            Slot::Vector(values) => return Arg::F32(values),
            Slot::State(words) => words.as_slice(),
        },
        Operand::Temp(id) => {
            let room = ready.arena.room_of[id.index()].expect("a temp that a step uses has a room");
            &ready.rooms[room][..ready.plan.temp_len(&ready.plan.temps[id.index()])]
        }
    };
    match kind {
        ArgKind::F32 => Arg::F32(bytemuck::cast_slice(words)),
        _ => Arg::U32(words),
    }
}

/// The matrix in the CPU's order, where it is one and has it.
fn packed<'a>(operand: Operand, items: &'a [Slot], shelf: &'a Shelf) -> Option<Packed<'a>> {
    match operand {
        Operand::Item(id) => match &items[id.index()] {
            Slot::Matrix(_, place) => place.as_ref().map(|place| shelf.get(place)),
            Slot::Vector(_) | Slot::State(_) => None,
        },
        Operand::Temp(_) => None,
    }
}

fn weight_bytes(item: &Item) -> u64 {
    match item {
        Item::Matrix(matrix) => matrix.bytes(),
        Item::Vector { values, .. } => size_of_val::<[f32]>(values) as u64,
        Item::State { .. } => 0,
    }
}

/// Zero words, refused where the allocator has none. The pages come from the system as they are and are not touched: a
/// cache that is never filled costs nothing.
fn zeroes(words: usize) -> Result<Vec<u32>> {
    bytemuck::allocation::try_zeroed_vec(words)
        .map_err(|()| Error::new(Kind::OutOfMemory, format!("no memory for {} bytes", 4 * words as u64)))
}
