//! The GPU: kernels in WGSL on Vulkan, Metal and DX12, through wgpu.
//!
//! Nothing starts before [`devices`] or [`Gpu::open`] is called. `device` finds, opens and loses; `upload` and
//! `readback` move bytes; `ring` hands out results while the device goes on; `spirv` writes shaders for Vulkan;
//! `pipelines` compiles, `ahead` of the need while weights upload, and `cache` keeps what the driver made of it; `program`
//! binds; `submit` alone submits; `tune` keeps what `measure` finds out about the speed of variants, and `quarantine` what
//! `prove` finds out about their numbers; `quirks` is what others found out about drivers.

mod ahead;
mod cache;
mod device;
mod measure;
mod pipelines;
mod profile;
mod program;
mod prove;
mod quarantine;
mod quirks;
mod readback;
mod ring;
mod seal;
pub mod spirv;
mod submit;
mod tune;
mod upload;
mod vacant;

use std::collections::VecDeque;
use std::mem::take;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wgpu::PollType;

use self::device::Device;
use self::pipelines::{Excluded, Pipelines};
use self::program::{Choices, Ready};
use self::readback::Readback;
use self::ring::{Flight, Ring};
use self::seal::Seal;
use self::submit::End;
use self::upload::{Resident, Sender};
use self::vacant::Vacant;
use super::fault::Harm;
use super::footprint::Held;
use super::{Backend, Caps, Meter, Order, Program, Progress, RESULTS, Status, Ticket};
use crate::error::{Error, Result};
use crate::kernel::KernelId;
use crate::plan::{Inputs, ItemId, Plan, Store};

pub use self::device::{Choice, DeviceInfo, Options, SharedDevice, devices};
pub use self::quarantine::Quarantined;
pub use self::quirks::{Part, QUIRKS, Quirk};
pub use self::tune::{Pick, Picks};

/// Submissions that keep the device busy while the host looks at what it has.
const AHEAD: usize = 3;

/// A GPU as a backend.
#[derive(Debug)]
pub struct Gpu {
    caps: Caps,
    device: Arc<Device>,
    pipelines: Arc<Pipelines>,
    excluded: Excluded,
    tuning: Tuning,
    expected: Vec<Arc<Plan>>,
    items: Vec<Resident>,
    programs: Vec<Ready>,
    readback: Readback,
    last_ticket: u64,
    /// Under way, or finished with a result that nobody has asked for; one more than fit waits for the oldest.
    in_flight: VecDeque<Flight>,
    /// The plans, where their memory was given back for a while.
    vacant: Option<Vacant>,
    ring: Ring,
    /// Made with the first program.
    seal: Option<Seal>,
    /// The next submission is to be dropped, for a test.
    drops: bool,
    held: Held,
    /// Whether variants are used that nobody has checked.
    trusts: bool,
}

/// Measured variants, and where to keep them.
#[derive(Clone, Debug, Default)]
struct Tuning {
    picks: Picks,
    folder: Option<PathBuf>,
    spent: Duration,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`crate::Kind::DeviceUnavailable`] where there is none for `choice`, or the driver refuses.
    pub fn open(choice: Choice, options: Options) -> Result<Self> {
        Self::on(Device::open(choice, options)?)
    }

    /// Uses a device that the host has opened, together with the host.
    ///
    /// # Errors
    /// [`crate::Kind::DeviceUnavailable`] where it lacks what [`SharedDevice`] asks for.
    pub fn shared(host: &SharedDevice, options: Options) -> Result<Self> {
        Self::on(Device::share(host, options)?)
    }

    fn on(device: Device) -> Result<Self> {
        log::info!("{} over {}, driver {}", device.info.name, device.info.backend, device.info.driver);
        // A variant that was asked for is not up for choice.
        let folder = device.options.tuning.clone().filter(|_| device.options.variant.is_none());
        let picks = folder.as_ref().map_or_else(Picks::default, |folder| Picks::read(folder, &device.info));
        let pipelines = Pipelines::new(&device, folder.as_deref())?;
        let tuning = Tuning { picks, folder, spent: Duration::ZERO };
        let excluded = quirks::excluded(&device.info);
        Ok(Self::over(Arc::new(device), Arc::new(pipelines), excluded, tuning))
    }

    /// A second backend over the same device, for a second model: nothing is loaded in it, and nothing that is
    /// compiled is compiled again.
    pub fn share(&self) -> Self {
        Self::over(self.device.clone(), self.pipelines.clone(), self.excluded.clone(), self.tuning.clone())
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        &self.device.info
    }

    /// Never uses this variant of a kernel from now on, in programs yet to be prepared.
    pub fn exclude(&mut self, kernel: KernelId, variant: &'static str) {
        self.excluded.insert((kernel, variant));
    }

    /// The name of the variant that a program prepared now would use where the parameters suit any.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] where none works on the device.
    pub fn variant(&self, kernel: KernelId) -> Result<&'static str> {
        let (has, usual) = (self.device.info.has, self.device.usual_variant());
        Ok(pipelines::choose(kernel, |_| true, has, usual, &self.excluded)?.name)
    }

    /// What was measured of the variants of hot kernels on this device.
    pub fn picks(&self) -> &Picks {
        &self.tuning.picks
    }

    /// Variants of kernels that were found wrong on this device and are not used.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.device.quarantine.list()
    }

    /// Runs a program once and gives the label and the microseconds of each step, by the device's own clock.
    ///
    /// # Errors
    /// As [`Backend::submit`]; [`crate::Kind::Unsupported`] where the device has no clock.
    pub fn profile(&mut self, program: &Program, inputs: Inputs) -> Result<Vec<(String, f64)>> {
        self.device.check()?;
        let ready = ready(&self.programs, program)?;
        ready.check(inputs)?;
        profile::profile(&self.device, &mut self.readback, ready, inputs)
    }

    /// The rate at which the device copies `bytes` from one buffer to another, in GB/s read and written.
    ///
    /// # Errors
    /// `OutOfMemory`, `DeviceLost`.
    pub fn copy_rate(&self, bytes: u64) -> Result<f64> {
        self.device.check()?;
        profile::copy_rate(&self.device, bytes)
    }

    /// Loses the device, for tests of what happens then. Others that share it lose it too.
    pub fn lose(&self) {
        self.device.destroy();
    }

    fn over(device: Arc<Device>, pipelines: Arc<Pipelines>, excluded: Excluded, tuning: Tuning) -> Self {
        let caps = caps(&device.info, device.meter.clone());
        let held = Held::of(device.meter.clone());
        let trusts = device.options.trusted;
        Self {
            caps,
            device,
            pipelines,
            excluded,
            tuning,
            expected: Vec::new(),
            items: Vec::new(),
            programs: Vec::new(),
            readback: Readback::default(),
            last_ticket: 0,
            in_flight: VecDeque::new(),
            vacant: None,
            ring: Ring::default(),
            seal: None,
            drops: false,
            held,
            trusts,
        }
    }

    /// A backend over the same device for a check: it takes what it is given, and measures nothing.
    fn beside(&self, excluded: Excluded) -> Self {
        let tuning = Tuning { folder: None, ..self.tuning.clone() };
        let beside = Self::over(self.device.clone(), self.pipelines.clone(), excluded, tuning);
        Self { trusts: true, ..beside }
    }

    fn ready(&self, excluded: &Excluded, plan: Arc<Plan>) -> Result<Ready> {
        let choices = Choices { excluded, picks: &self.tuning.picks };
        Ready::of(&self.device, &self.pipelines, choices, &self.items, plan)
    }
}

impl Backend for Gpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn expect(&mut self, plans: &[Arc<Plan>]) {
        self.expected = plans.to_vec();
    }

    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()> {
        self.programs.clear();
        self.items.clear();
        self.vacant = None;
        self.held.give_back();
        // Memory of what was loaded before is free once the device has been polled.
        self.device.check()?;
        let expected = take(&mut self.expected);
        let jobs = self.to_compile(&expected);
        let upload = || upload::store(&self.device, store, progress);
        let items = ahead::beside(&self.device, &self.pipelines, &jobs, upload)?;
        self.items = items;
        self.held.take(self.items.iter().map(Resident::bytes).sum());
        Ok(())
    }

    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program> {
        self.device.check()?;
        self.come_back()?;
        if let Some(folder) = self.tuning.folder.clone() {
            self.tune(&plan, &folder)?;
        }
        if !self.trusts {
            self.prove(&plan).map_err(|error| error.at(format!("plan {}", plan.name)))?;
        }
        let ready = self
            .ready(&self.excluded, plan.clone())
            .map_err(|error| error.at(format!("plan {}", plan.name)))?;
        self.held.take(ready.bytes);
        if self.seal.is_none() {
            self.seal = Some(Seal::new(&self.device, &self.pipelines)?);
        }
        if self.tuning.folder.is_some()
            && let Err(error) = self.pipelines.keep()
        {
            // It costs the next start the same time again, and nothing else.
            log::warn!("what was compiled for {} is not kept: {error}", self.device.info.name);
        }
        self.programs.push(ready);
        Ok(Program { index: self.programs.len() - 1, plan })
    }

    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket> {
        self.device.check()?;
        self.come_back()?;
        if self.in_flight.len() >= RESULTS
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.device.wait(&oldest.index)?;
        }
        let ready = ready(&self.programs, program)?;
        ready.check(inputs)?;
        if steps.start > steps.end || steps.end > ready.ops.len() {
            return Err(Error::internal(format!("steps {steps:?} of {}", ready.ops.len())));
        }
        let result = ready.plan.result_of(&ready.plan.steps[steps.clone()]).filter(|_| inputs.outputs > 0);
        let bytes = if result.is_some() { 4 * u64::from(inputs.outputs) } else { 0 };
        let buffer = |state: ItemId| upload::state(&self.items, state.index(), 0, bytes as usize);
        let result = result.map(buffer).transpose()?.map(|buffer| (buffer, bytes));
        let seal = self.seal.as_ref().ok_or_else(|| Error::internal("a program without a seal"))?;
        let slot = self.ring.slot(&self.device, seal.slot_bytes(bytes))?;
        let ticket = Ticket(self.last_ticket + 1);
        // Not 0, which a new slot holds.
        let nonce = (ticket.0 % u64::from(u32::MAX)) as u32 + 1;
        let end = End { seal, nonce, result, slot: &slot };
        let index = match take(&mut self.drops) {
            false => submit::steps(&self.device, ready, steps, inputs, Some(&end))?,
            true => submit::writes(&self.device)?,
        };
        self.last_ticket = ticket.0;
        let result = slot.mapped(&self.device)?;
        self.in_flight.push_back(Flight { ticket, index, nonce, result });
        Ok(ticket)
    }

    fn poll(&mut self, ticket: Ticket, wait: Duration) -> Result<Status> {
        self.device.check()?;
        if ticket.0 > self.last_ticket {
            return Err(Error::internal(format!("{ticket:?} was never given")));
        }
        let Some(at) = self.in_flight.iter().position(|flight| flight.ticket == ticket) else {
            return Ok(Status::Finished(Vec::new()));
        };
        let submission_index = Some(self.in_flight[at].index.clone());
        if !self.device.poll(PollType::Wait { submission_index, timeout: Some(wait) })? {
            return Ok(Status::Running);
        }
        if at + 1 == self.in_flight.len() {
            self.device.meter.drained();
        }
        let Some(Flight { nonce, result, .. }) = self.in_flight.remove(at) else {
            return Err(Error::internal(format!("{ticket:?} is not in flight")));
        };
        let seal = self.seal.as_ref().ok_or_else(|| Error::internal("a submission without a seal"))?;
        let opened = seal.open(self.ring.words(&self.device, result)?);
        if opened.nonce != nonce {
            return Err(self.device.forsaken());
        }
        self.device.meter.timed(opened.took);
        Ok(Status::Finished(opened.words))
    }

    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()> {
        self.device.check()?;
        self.come_back()?;
        let buffer = upload::state(&self.items, state.index(), at, out.len())?;
        self.readback.read(&self.device, buffer, at, out)
    }

    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()> {
        self.device.check()?;
        self.come_back()?;
        let buffer = upload::state(&self.items, state.index(), at, bytes.len())?;
        if at.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
            return Sender::new(&self.device).send(buffer, at as u64, bytes);
        }
        // Only whole words can be written: those at the ends keep the bytes that are not meant.
        let (before, end) = (at % 4, at + bytes.len());
        let mut words = vec![0; end.next_multiple_of(4) - (at - before)];
        self.readback.read(&self.device, buffer, at - before, &mut words)?;
        words[before..before + bytes.len()].copy_from_slice(bytes);
        Sender::new(&self.device).send(buffer, (at - before) as u64, &words)
    }

    fn vacate(&mut self, states: &[ItemId]) -> Result<u64> {
        self.leave(states)
    }

    fn harm(&mut self, harm: Harm) -> bool {
        match harm {
            // What the host draws with is not ours to take.
            Harm::Lost if self.device.is_hosts => return false,
            Harm::Lost => self.lose(),
            Harm::Dropped => self.drops = true,
            _ => return false,
        }
        true
    }
}

/// What the chosen device will be and can, without opening it.
///
/// # Errors
/// [`crate::Kind::DeviceUnavailable`] where there is none for `choice`.
pub fn foresee(choice: Choice, options: &Options) -> Result<Caps> {
    device::foresee(choice, options).map(|info| caps(&info, Arc::default()))
}

fn caps(info: &DeviceInfo, meter: Arc<Meter>) -> Caps {
    Caps {
        name: info.name.clone(),
        backend: info.backend,
        // Buffers are whole vectors.
        max_matrix_bytes: info.max_binding_bytes.min(info.max_buffer_bytes) / 16 * 16,
        fuses: true,
        ahead: AHEAD,
        software: info.software,
        order: Order::Gpu,
        shares_memory: info.shares_memory(),
        meter,
    }
}

/// The program where it was prepared over what is loaded now.
fn ready<'a>(programs: &'a [Ready], program: &Program) -> Result<&'a Ready> {
    let known = programs.get(program.index).filter(|ready| Arc::ptr_eq(&ready.plan, &program.plan));
    known.ok_or_else(|| Error::internal(format!("plan {} is not prepared here", program.plan.name)))
}
