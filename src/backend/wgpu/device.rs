//! Finding a device, opening it with what the engine needs of it, and noticing when it is gone.
//!
//! wgpu reports failures in three ways: an error scope, an uncaptured error, or a callback when the device is
//! lost; and where waiting fails it panics. All of them become an [`Error`] here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use wgpu::{Backend, DeviceType, ErrorFilter, Features, PollError, PollType, SubmissionIndex};

use super::super::Meter;
pub(super) use super::super::footprint::padded;
use super::pipelines::Source;
use super::quarantine::Quarantine;
use super::quirks::{self, Quirk};
use crate::error::{Error, Kind, Result};
use crate::kernel::{IMMEDIATES, KernelId, Needs, Variant};
use crate::plan::Step;

/// Drivers give up after seconds; software needs longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// A device that the system offers.
#[derive(Clone, Debug, Default)]
pub struct DeviceInfo {
    /// Its place in [`devices`].
    pub index: usize,
    /// Its own name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`.
    pub backend: &'static str,
    /// `discrete`, `integrated`, `virtual`, `cpu`, `other`.
    pub kind: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// Whether it is a processor that pretends to be a GPU.
    pub software: bool,
    /// What it can beyond the floor.
    pub has: Needs,
    /// The smallest and the largest subgroup.
    pub subgroup: (u32, u32),
    /// Whether it can time its own steps.
    pub timestamps: bool,
    /// Whether it takes SPIR-V from [`super::spirv`].
    pub spirv: bool,
    /// The most bytes that a shader sees of a buffer.
    pub max_binding_bytes: u64,
    /// The most bytes of a buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Why it cannot be used, or `None`.
    pub refused: Option<String>,
    /// What is known to be bad about its driver; what that leaves out is not in `has`.
    pub quirks: Vec<&'static Quirk>,
}

/// Which device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest real GPU.
    #[default]
    Best,
    /// The fastest, software included.
    Any,
    /// The one at this place in [`devices`].
    Index(usize),
}

/// How to use a device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Shaders check their own indices, loops and divisions. For tests: it hides no fault of the driver and
    /// costs time.
    pub checked: bool,
    /// Ask for no more than every WebGPU device has.
    pub floor: bool,
    /// The most bytes of a buffer, where that is less than the device allows.
    pub max_buffer_bytes: Option<u64>,
    /// Leave the writing of SPIR-V to wgpu on Vulkan too, as in shaders that are `checked`.
    pub plain_wgsl: bool,
    /// Never round activations to fewer bits than f32 has.
    pub exact: bool,
    /// Use the variant of this name in kernels that have it.
    pub variant: Option<String>,
    /// A device that is silent for longer is taken for lost; `None` waits ten minutes.
    pub patience: Option<Duration>,
    /// The folder that keeps which variants are fastest, and what the driver compiled where it hands that out; variants
    /// that are not known there are measured when a plan is made ready.
    pub tuning: Option<PathBuf>,
    /// Take the device's numbers on trust: no variant is compared with its twin before it is used. For who compares them
    /// anyhow, and for tests.
    pub trusted: bool,
    /// Variants that compute half of what they should, for tests of what notices.
    #[doc(hidden)]
    pub wrong: Vec<(KernelId, &'static str)>,
}

/// A device that the host has opened for its own drawing or computing, and lets the engine use as well: both submit to one
/// queue, in the order in which they come. The host's callbacks stay its own.
#[derive(Clone, Debug)]
pub struct SharedDevice {
    /// What the device was opened from.
    pub adapter: wgpu::Adapter,
    /// The device, with [`Self::features`] and [`Self::limits`].
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
}

impl SharedDevice {
    /// The features that the engine makes use of, of those that `adapter` has. It needs [`wgpu::Features::IMMEDIATES`]; each
    /// other makes something faster.
    pub fn features(adapter: &wgpu::Adapter) -> Features {
        let wanted =
            Features::IMMEDIATES | Features::TIMESTAMP_QUERY | Features::SUBGROUP | Features::SHADER_F16;
        adapter.features() & wanted
    }

    /// `limits` raised to what the engine needs, and to what `adapter` has for the sizes of buffers.
    pub fn limits(limits: wgpu::Limits, adapter: &wgpu::Adapter) -> wgpu::Limits {
        let has = adapter.limits();
        wgpu::Limits {
            max_immediate_size: limits.max_immediate_size.max(IMMEDIATES as u32),
            max_storage_buffer_binding_size: has.max_storage_buffer_binding_size,
            max_buffer_size: has.max_buffer_size,
            ..limits.or_better_values_from(&wgpu::Limits::defaults())
        }
    }
}

/// Every device of the system. Starts the drivers.
pub fn devices() -> Vec<DeviceInfo> {
    adapters().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

/// The chosen device as it will be when it is opened.
///
/// # Errors
/// [`Kind::DeviceUnavailable`] where there is none for `choice`.
pub(super) fn foresee(choice: Choice, options: &Options) -> Result<DeviceInfo> {
    let mut infos = devices();
    let mut info = infos.swap_remove(pick(choice, &infos)?);
    info.bound(options);
    Ok(info)
}

impl DeviceInfo {
    /// Whether its memory is the host's; of one that does not say, nobody knows.
    pub fn shares_memory(&self) -> bool {
        self.software || self.kind == "integrated"
    }

    /// Takes no larger buffers than `options` ask for.
    fn bound(&mut self, options: &Options) {
        let floor = wgpu::Limits::defaults();
        if options.floor {
            self.max_binding_bytes = self.max_binding_bytes.min(floor.max_storage_buffer_binding_size);
            self.max_buffer_bytes = self.max_buffer_bytes.min(floor.max_buffer_size);
        }
        let most = options.max_buffer_bytes.unwrap_or(u64::MAX);
        self.max_buffer_bytes = self.max_buffer_bytes.min(most);
    }
}

/// An open device, shared by all who compute on it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: DeviceInfo,
    pub(super) options: Options,
    pub(super) meter: Arc<Meter>,
    pub(super) quarantine: Quarantine,
    /// It is the host's, who draws with it.
    pub(super) is_hosts: bool,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    lost: OnceLock<String>,
    stray: Mutex<Option<Error>>,
}

/// The variant that is usually the fastest where threads are lanes of a CPU's vectors, and barriers dear.
const SOFTWARE: &str = "thread";

impl Device {
    /// The variant to take where nothing was measured, in kernels that have it.
    pub(super) fn usual_variant(&self) -> Option<&str> {
        self.options.variant.as_deref().or(self.info.software.then_some(SOFTWARE))
    }

    /// Whether a variant can compute a step, and is not known to do so wrong.
    pub(super) fn suits(&self, step: &Step, variant: &'static Variant) -> bool {
        let source = Source { kernel: step.kernel, variant: variant.name, form: step.form };
        step.home().suits(&step.params, step.form, variant) && !self.quarantine.holds(source, variant)
    }

    /// Opens the chosen device.
    pub(super) fn open(choice: Choice, options: Options) -> Result<Self> {
        let adapters = adapters();
        let infos: Vec<DeviceInfo> =
            adapters.iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect();
        let index = pick(choice, &infos)?;
        let (adapter, mut info) = (&adapters[index], infos[index].clone());
        info.spirv &= !(options.plain_wgsl || options.checked || options.floor);
        let mut optional = Features::TIMESTAMP_QUERY | Features::SUBGROUP | Features::SHADER_F16;
        optional.set(Features::PASSTHROUGH_SHADERS, info.spirv);
        optional.set(Features::PIPELINE_CACHE, options.tuning.is_some());
        info.has.rounding &= !options.exact;
        if !info.has.rounding {
            info.has.matrix = 0;
        }
        optional.set(Features::EXPERIMENTAL_COOPERATIVE_MATRIX, info.has.matrix > 0);
        let (features, limits) = if options.floor {
            info.has = Needs::default();
            info.timestamps = false;
            let floor = wgpu::Limits { max_immediate_size: IMMEDIATES as u32, ..wgpu::Limits::defaults() };
            (Features::IMMEDIATES, floor.or_worse_values_from(&adapter.limits()))
        } else {
            (Features::IMMEDIATES | (adapter.features() & optional), adapter.limits())
        };
        let experimental_features = if features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            // SAFETY: what may be wrong with them in wgpu or the driver shows in shaders that use them alone; those are
            // this crate's own, and run only once they were measured and compared with their twin.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        info.max_binding_bytes = limits.max_storage_buffer_binding_size;
        info.max_buffer_bytes = limits.max_buffer_size;
        info.workgroup_bytes = limits.max_compute_workgroup_storage_size;
        info.bound(&options);
        let request = wgpu::DeviceDescriptor {
            label: Some("pocketlm"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            // Large blocks save time where buffers come and go; here they come once, and memory is short.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (raw, queue) = pollster::block_on(adapter.request_device(&request)).map_err(|error| {
            Error::new(Kind::DeviceUnavailable, "the device cannot be opened").at(&info.name).caused_by(error)
        })?;

        let health = Arc::new(Health::default());
        let loss = health.clone();
        raw.set_device_lost_callback(move |reason, message| {
            loss.lose(format!("{reason:?} {message}").trim())
        });
        let stray = health.clone();
        raw.on_uncaptured_error(Arc::new(move |error| {
            log::error!("uncaptured error of the device: {error}");
            let mut slot = stray.stray.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert_with(|| typed("between two verbs", error));
        }));
        let quarantine = Quarantine::open(&info, &options);
        let meter = Arc::default();
        Ok(Self { raw, queue, info, options, meter, quarantine, is_hosts: false, health })
    }

    /// The host's own device.
    pub(super) fn share(host: &SharedDevice, options: Options) -> Result<Self> {
        let SharedDevice { adapter, device: raw, queue } = host.clone();
        let (features, limits) = (raw.features(), raw.limits());
        let mut info = describe(0, &adapter);
        if !features.contains(Features::IMMEDIATES) || limits.max_immediate_size < IMMEDIATES as u32 {
            let what = format!("the shared device takes less than {IMMEDIATES} bytes of immediates");
            return Err(Error::new(Kind::DeviceUnavailable, what)
                .at(&info.name)
                .hint("open it with the features and limits that SharedDevice names"));
        }
        info.has.f16 &= features.contains(Features::SHADER_F16);
        if !features.contains(Features::SUBGROUP) {
            info.has.subgroup = 0;
        }
        if options.exact || !features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            info.has.matrix = 0;
        }
        info.has.rounding &= !options.exact;
        info.timestamps &= features.contains(Features::TIMESTAMP_QUERY);
        info.spirv &= features.contains(Features::PASSTHROUGH_SHADERS)
            && !(options.plain_wgsl || options.checked || options.floor);
        info.max_binding_bytes = limits.max_storage_buffer_binding_size;
        info.max_buffer_bytes = limits.max_buffer_size;
        info.workgroup_bytes = limits.max_compute_workgroup_storage_size;
        info.bound(&options);
        let quarantine = Quarantine::open(&info, &options);
        let (meter, health) = (Arc::default(), Arc::default());
        Ok(Self { raw, queue, info, options, meter, quarantine, is_hosts: true, health })
    }

    /// Fails where the device is gone or an error came from nowhere.
    pub(super) fn check(&self) -> Result<()> {
        // wgpu says that a device is gone while it is polled.
        self.poll(PollType::Poll)?;
        let mut stray = self.health.stray.lock().unwrap_or_else(PoisonError::into_inner);
        stray.take().map_or(Ok(()), Err)
    }

    /// Polls; `false` where the time ran out first.
    pub(super) fn poll(&self, how: PollType) -> Result<bool> {
        self.health.check()?;
        // wgpu panics where the driver reports the loss while somebody waits; it holds no lock by then.
        let polled = catch_unwind(AssertUnwindSafe(|| self.raw.poll(how)));
        match polled {
            Ok(Ok(_)) => {}
            Ok(Err(PollError::Timeout)) => return self.health.check().map(|()| false),
            Ok(Err(error)) => self.health.lose(&error.to_string()),
            Err(panic) if was_overtaken(&*panic) => return self.health.check().map(|()| false),
            Err(_) => self.health.lose("waiting for it failed"),
        }
        self.health.check().map(|()| true)
    }

    /// Waits for a submission, but not for ever.
    pub(super) fn wait(&self, index: &SubmissionIndex) -> Result<()> {
        let begun = Instant::now();
        let patience = self.options.patience.unwrap_or(PATIENCE);
        while begun.elapsed() < patience {
            let timeout = Some(Duration::from_secs(1).min(patience));
            if self.poll(PollType::Wait { submission_index: Some(index.clone()), timeout })? {
                return Ok(());
            }
        }
        Err(Error::new(Kind::DeviceLost, format!("no answer from the device within {patience:?}")))
    }

    /// Does `work` and fails where the device objects to it.
    pub(super) fn scoped<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        let filters = [ErrorFilter::OutOfMemory, ErrorFilter::Validation, ErrorFilter::Internal];
        let scopes = filters.map(|filter| self.raw.push_error_scope(filter));
        let done = work();
        // Scopes are a stack.
        let errors: Vec<wgpu::Error> =
            scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        // What else is wrong does not matter on a lost device, and is usually its consequence.
        self.health.check()?;
        match errors.into_iter().next() {
            None => Ok(done),
            Some(error) => {
                self.poll(PollType::Poll)?;
                Err(typed(what, error))
            }
        }
    }

    /// A buffer of at least `bytes` bytes, which a shader can see whole as an array of any type.
    pub(super) fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let limit = self.info.max_binding_bytes.min(self.info.max_buffer_bytes);
        let size = padded(bytes).filter(|&size| size <= limit).ok_or_else(|| {
            Error::new(
                Kind::OutOfMemory,
                format!("{bytes} bytes where the device allows {limit} in a buffer"),
            )
            .at(label)
        })?;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.scoped(label, || self.raw.create_buffer(&descriptor))
    }

    /// The device says that it finished what it did not compute: it is not believed any more.
    pub(super) fn forsaken(&self) -> Error {
        self.health.lose("a submission was called finished and did not come to its end");
        self.health.check().err().unwrap_or_else(|| Error::internal("a lost device is well"))
    }

    /// Gives the device up, as if it had been pulled out.
    pub(super) fn destroy(&self) {
        self.raw.destroy();
    }
}

impl Health {
    fn lose(&self, why: &str) {
        let _ = self.lost.set(why.into());
    }

    fn check(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(why) => Err(Error::new(Kind::DeviceLost, format!("the device was lost: {why}"))
                .hint("load the model again, on this device or on the CPU")),
        }
    }
}

/// Whether a wait panicked because another thread saw its end first: wgpu 30 takes that for impossible (`Device::maintain`), and a host
/// that draws from its own thread makes it happen. The next look finds that it is over.
fn was_overtaken(panic: &(dyn Any + Send)) -> bool {
    let said = panic.downcast_ref::<String>();
    said.is_some_and(|said| said.contains("should be at least the wait submission index"))
}

fn typed(what: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::new(Kind::OutOfMemory, "the device has no memory left").at(what)
        }
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            let lines: Vec<&str> =
                description.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            Error::internal(lines.join(" | ")).at(what)
        }
    }
}

fn adapters() -> Vec<wgpu::Adapter> {
    // An instance without a single backend compiled in panics.
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> DeviceInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let immediates =
        features.contains(Features::IMMEDIATES) && limits.max_immediate_size >= IMMEDIATES as u32;
    let mut described = DeviceInfo {
        index,
        name: info.name,
        backend: match info.backend {
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            _ => "other",
        },
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "discrete",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "cpu",
            DeviceType::Other => "other",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
        software: info.device_type == DeviceType::Cpu,
        has: Needs {
            subgroup: if features.contains(Features::SUBGROUP) { info.subgroup_min_size.max(1) } else { 0 },
            f16: features.contains(Features::SHADER_F16),
            matrix: matrices(adapter),
            rounding: true,
        },
        subgroup: (info.subgroup_min_size, info.subgroup_max_size),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
        spirv: info.backend == Backend::Vulkan && features.contains(Features::PASSTHROUGH_SHADERS),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        refused: (!immediates).then(|| format!("it takes less than {IMMEDIATES} bytes of immediates")),
        quirks: Vec::new(),
    };
    quirks::apply(&mut described);
    described
}

/// The sum of the sides of cooperative matrices of f16 with sums in f32.
fn matrices(adapter: &wgpu::Adapter) -> u32 {
    use wgpu::CooperativeScalarType::{F16, F32};
    let found = adapter.cooperative_matrix_properties();
    let has = |side: u32| {
        let is_it = |it: &wgpu::CooperativeMatrixProperties| {
            [it.m_size, it.n_size, it.k_size] == [side; 3] && it.ab_type == F16 && it.cr_type == F32
        };
        found.iter().any(is_it)
    };
    [8, 16].into_iter().filter(|&side| has(side)).sum()
}

/// The place of the chosen device.
fn pick(choice: Choice, infos: &[DeviceInfo]) -> Result<usize> {
    let unavailable = |what: String| {
        let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
        let found = if names.is_empty() { "none".into() } else { names.join(", ") };
        Err(Error::new(Kind::DeviceUnavailable, what)
            .hint(format!("devices found: {found}; the CPU backend needs none")))
    };
    let found = match choice {
        Choice::Index(index) => infos.get(index),
        Choice::Any | Choice::Best => infos
            .iter()
            .filter(|info| info.refused.is_none() && (choice == Choice::Any || !info.software))
            .min_by_key(|info| rank(info)),
    };
    match found {
        None => unavailable(match choice {
            Choice::Index(index) => format!("there is no device {index}"),
            Choice::Any | Choice::Best => "there is no GPU".into(),
        }),
        Some(DeviceInfo { name, refused: Some(why), .. }) => {
            unavailable(format!("{name} cannot be used: {why}"))
        }
        Some(info) => Ok(info.index),
    }
}

/// Smaller is faster.
fn rank(info: &DeviceInfo) -> (usize, usize) {
    let place = |order: &[&str], of| order.iter().position(|&name| name == of).unwrap_or(order.len());
    (
        place(&["discrete", "integrated", "virtual", "other"], info.kind),
        place(&["metal", "vulkan", "dx12"], info.backend),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: usize, kind: &'static str, backend: &'static str) -> DeviceInfo {
        DeviceInfo {
            index,
            name: format!("{kind} {index}"),
            backend,
            kind,
            driver: String::new(),
            software: kind == "cpu",
            has: Needs::default(),
            subgroup: (0, 0),
            timestamps: false,
            spirv: false,
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            ..DeviceInfo::default()
        }
    }

    #[test]
    fn the_best_device_is_real_and_usable() {
        let mut infos = [
            info(0, "cpu", "vulkan"),
            info(1, "integrated", "vulkan"),
            info(2, "discrete", "dx12"),
            info(3, "discrete", "vulkan"),
        ];
        assert_eq!(pick(Choice::Best, &infos).unwrap(), 3);
        infos[3].refused = Some("it is broken".into());
        assert_eq!(pick(Choice::Best, &infos).unwrap(), 2);
        assert_eq!(pick(Choice::Index(0), &infos).unwrap(), 0);
        let error = pick(Choice::Index(3), &infos).unwrap_err();
        assert!(error.to_string().contains("it is broken"), "{error}");
    }

    #[test]
    fn software_is_taken_only_where_allowed() {
        let infos = [info(0, "cpu", "vulkan")];
        let error = pick(Choice::Best, &infos).unwrap_err();
        assert_eq!(error.kind(), Kind::DeviceUnavailable);
        assert!(error.to_string().contains("cpu 0"), "{error}");
        assert_eq!(pick(Choice::Any, &infos).unwrap(), 0);
        assert!(pick(Choice::Any, &[]).is_err());
        assert!(pick(Choice::Index(1), &infos).is_err());
    }
}
